"""Test the cache over a socket: which answers are repeated, for how long, and to which clients."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.config import ConfigError
from bridge.server.server import Server
from tests.support.clock import advance, turns
from tests.support.event_harness import COMPLETE, FINISH, OVERLOADED, ROLE, content, step
from tests.support.harness import Client, Frame, config_of, connected, running
from tests.support.provider_script import JSON, ScriptedProvider, ScriptedResponse, answers, streams
from tests.support.redis_server import RedisServer

OPEN = "[gateways.gateway]\n"
CACHING = OPEN + "cache_ttl = 3600\n"


class CachingBridge:
    """A bridge with a cache, a client's socket to it, and its provider."""

    def __init__(self, server: Server, provider: ScriptedProvider, client: Client) -> None:
        self.server, self.provider, self.client = server, provider, client
        self._events = 0

    @property
    def calls(self) -> int:
        return len(self.provider.requests)

    async def call(self, request: object = None, client: Client | None = None) -> list[Frame]:
        """Return all frames of the event."""
        self._events += 1
        name = f"event {self._events}"
        await (client or self.client).create(request or step(), eventId=name)
        return await (client or self.client).until_last(name)

    async def status(self, request: object = None, client: Client | None = None) -> str:
        last = (await self.call(request, client))[-1]
        assert last["metadata"]["success"], last
        status: str = last["metadata"]["cacheStatus"]
        return status

    async def statuses(self, *requests: object) -> list[str]:
        return [await self.status(request) for request in requests]


@asynccontextmanager
async def serving(text: str, folder: Path, *plays: ScriptedResponse, **handshake: Any) -> AsyncIterator[CachingBridge]:
    """Run the bridge. Without plays, every call is answered."""
    provider = ScriptedProvider(*(plays or [answers()] * 10))
    async with running(config_of(text, folder), provider) as server, connected(server, **handshake) as client:
        yield CachingBridge(server, provider, client)


def with_headers(**headers: str) -> Frame:
    """Return a step with these headers; underscores stand for hyphens."""
    request = step()
    return request | {
        "headers": request["headers"] | {name.replace("_", "-"): value for name, value in headers.items()}
    }


# On and off.


async def test_the_cache_is_off_by_default(tmp_path: Path) -> None:
    async with serving(OPEN, tmp_path) as bridge:
        assert await bridge.statuses(None, None) == ["MISS", "MISS"]
        assert bridge.calls == 2


ASKS = {
    "cf-aig-cache-ttl": with_headers(cf_aig_cache_ttl="60"),
    "cf-cache-ttl": with_headers(cf_cache_ttl="60"),
    "cacheTtl": step(cacheTtl=60),
    "cf-aig-cache-key": with_headers(cf_aig_cache_key="mine"),
    "cacheKey": step(cacheKey="mine"),
}


@pytest.mark.parametrize("cached_step", ASKS.values(), ids=ASKS.keys())
async def test_a_header_or_a_config_turns_the_cache_on(cached_step: Frame, tmp_path: Path) -> None:
    async with serving(OPEN, tmp_path) as bridge:
        assert await bridge.statuses(cached_step, cached_step) == ["MISS", "HIT"]
        assert bridge.calls == 1
        assert bridge.provider.requests[0].headers.keys().isdisjoint({"cf-aig-cache-ttl", "cf-aig-cache-key"})


@pytest.mark.parametrize("header", ["cf-aig-cache-ttl", "cf-cache-ttl", "cf-aig-cache-key"])
async def test_a_handshake_header_turns_the_cache_on_for_all_events(header: str, tmp_path: Path) -> None:
    async with serving(OPEN, tmp_path, headers={header: "60"}) as bridge:
        assert await bridge.statuses(None, None) == ["MISS", "HIT"]


async def test_a_gateways_cache_ttl_turns_the_cache_on_for_all_events(tmp_path: Path) -> None:
    async with serving(CACHING, tmp_path) as bridge:
        assert await bridge.statuses(None, None) == ["MISS", "HIT"]


OFF = {
    "cf-aig-skip-cache": with_headers(cf_aig_skip_cache="true"),
    "cf-skip-cache": with_headers(cf_skip_cache="true"),
    "skipCache": step(skipCache=True),
    "cf-aig-cache-ttl: 0": with_headers(cf_aig_cache_ttl="0"),
    "cacheTtl: 0": step(cacheTtl=0),
    "cf-aig-skip-cache, with a key": with_headers(cf_aig_skip_cache="true", cf_aig_cache_key="mine"),
}


@pytest.mark.parametrize("cached_step", OFF.values(), ids=OFF.keys())
async def test_skip_cache_neither_reads_nor_writes(cached_step: Frame, tmp_path: Path) -> None:
    async with serving(CACHING, tmp_path) as bridge:
        assert await bridge.statuses(cached_step, None, cached_step, None) == ["MISS", "MISS", "MISS", "HIT"]
        assert bridge.calls == 3


async def test_a_size_of_zero_turns_the_cache_off(tmp_path: Path) -> None:
    async with serving("[server]\ncache_bytes = 0\n" + CACHING, tmp_path) as bridge:
        assert await bridge.statuses(None, None) == ["MISS", "MISS"]


# How long.


@pytest.mark.parametrize(
    ("cached_step", "seconds"),
    [
        (with_headers(cf_aig_cache_ttl="60"), 60),
        (with_headers(cf_aig_cache_ttl="7200"), 7200),
        (step(), 3600),
        (with_headers(cf_aig_cache_key="mine"), 3600),
    ],
)
async def test_a_stored_answer_is_returned_until_it_expires(cached_step: Frame, seconds: int, tmp_path: Path) -> None:
    async with serving(CACHING, tmp_path) as bridge:
        assert await bridge.status(cached_step) == "MISS"
        advance(seconds - 1)
        assert await bridge.status(cached_step) == "HIT"
        advance(2)
        assert await bridge.statuses(cached_step, cached_step) == ["MISS", "HIT"]


async def test_a_cache_key_without_a_lifetime_stores_for_five_minutes(tmp_path: Path) -> None:
    async with serving(OPEN, tmp_path) as bridge:
        request = with_headers(cf_aig_cache_key="mine")
        assert await bridge.status(request) == "MISS"
        advance(299)
        assert await bridge.status(request) == "HIT"
        advance(2)
        assert await bridge.status(request) == "MISS"


async def test_a_shorter_requested_lifetime_gets_no_older_answer(tmp_path: Path) -> None:
    async with serving(CACHING, tmp_path) as bridge:
        short = with_headers(cf_aig_cache_ttl="60")
        assert await bridge.status() == "MISS"
        advance(61)
        assert await bridge.statuses(None, short, short, None) == ["HIT", "MISS", "HIT", "HIT"]
        advance(61)
        assert await bridge.status() == "MISS"  # it was stored anew, for a minute


@pytest.mark.parametrize(("value", "nearest"), [("1", 60), ("59", 60), ("99999999", 2_592_000)])
async def test_a_lifetime_out_of_range_is_clamped_with_a_warning(value: str, nearest: int, tmp_path: Path) -> None:
    async with serving(OPEN, tmp_path) as bridge:
        last = (await bridge.call(with_headers(cf_aig_cache_ttl=value)))[-1]
        assert (
            last["metadata"]["warnings"]
            == [
                f"request.headers.cf-aig-cache-ttl: '{value}' is not a whole number of seconds from 60 to 2592000; "
                f"{nearest} is used instead."
            ]
            or str(nearest) in last["metadata"]["warnings"][0]
        )
        advance(nearest - 1)
        assert await bridge.status(with_headers(cf_aig_cache_ttl=value)) == "HIT"


# What, and whose.


async def test_a_different_request_gets_a_different_answer(tmp_path: Path) -> None:
    async with serving(CACHING, tmp_path) as bridge:
        others = [
            step() | {"query": {"model": "small", "stream": True, "n": 2}},
            step() | {"endpoint": "v1/chat/completions?version=2"},
            step() | {"method": "GET", "query": None},
            with_headers(openai_beta="assistants=v2"),
            with_headers(authorization="Bearer another"),
            step("groq"),
        ]
        assert await bridge.statuses(None, *others) == ["MISS"] * 7
        assert await bridge.statuses(None, *others) == ["HIT"] * 7


async def test_client_and_retry_headers_do_not_change_the_request(tmp_path: Path) -> None:
    async with serving(CACHING, tmp_path) as bridge:
        others = [with_headers(user_agent="b"), with_headers(x_stainless_retry_count="1", idempotency_key="2")]
        assert await bridge.statuses(None, *others) == ["MISS", "HIT", "HIT"]


async def test_a_cache_key_replaces_the_request(tmp_path: Path) -> None:
    async with serving(CACHING, tmp_path) as bridge:
        request = with_headers(cf_aig_cache_key="mine")
        other = request | {"query": {"model": "other"}}
        stranger = request | {"headers": request["headers"] | {"authorization": "Bearer another"}}
        assert await bridge.statuses(request, other, None, stranger) == ["MISS", "HIT", "MISS", "MISS"]


async def test_a_shared_cache_answers_equal_requests_of_all_clients(tmp_path: Path) -> None:
    async with serving(CACHING + "cache_shared = true\n", tmp_path) as bridge:
        assert await bridge.statuses(None, with_headers(authorization="Bearer another")) == ["MISS", "HIT"]
        other = step() | {"query": {"model": "other"}}
        assert await bridge.status(other) == "MISS"


async def test_gateways_do_not_share_answers(tmp_path: Path) -> None:
    async with (
        serving(CACHING + "[gateways.other]\ncache_ttl = 3600\n", tmp_path) as bridge,
        connected(bridge.server, "/v1/account/other") as other,
        connected(bridge.server, "/v1/another-account/gateway") as same,
    ):
        assert await bridge.status() == "MISS"
        assert await bridge.status(client=other) == "MISS"
        assert await bridge.status(client=same) == "HIT"


@pytest.mark.parametrize(
    "play",
    [
        answers(b'{"error":{"message":"bad"}}', status=400),
        answers(b'{"error":{"message":"busy"}}', status=503),
        answers(status=302, location="https://elsewhere.test"),
        streams(ROLE, content("a"), FINISH[:20]),
        streams(ROLE, content("a"), OVERLOADED),
        streams(),
    ],
)
async def test_only_complete_successful_answers_are_stored(play: ScriptedResponse, tmp_path: Path) -> None:
    async with serving(CACHING, tmp_path, play, streams(*COMPLETE)) as bridge:
        assert not (await bridge.call())[-1]["metadata"]["success"]
        assert await bridge.statuses(None, None) == ["MISS", "HIT"]


async def test_a_fallbacks_answer_is_stored_for_its_own_step(tmp_path: Path) -> None:
    refused = answers(b'{"error":{"message":"no"}}', status=400)
    async with serving(CACHING, tmp_path, refused, answers(), refused) as bridge:
        chain = [step(), step("groq")]
        assert await bridge.statuses(chain, chain) == ["MISS", "HIT"]
        assert bridge.calls == 3
        last = (await bridge.call(step("groq")))[-1]
        assert (last["metadata"]["cacheStatus"], last["metadata"]["step"]) == ("HIT", "0")


async def test_public_headers_are_stored_and_private_ones_are_not(tmp_path: Path) -> None:
    label = "application/json; charset=utf-8"
    play = ScriptedResponse([b'{"ok":true}'], 201, label, {"x-request-id": "r1", "set-cookie": "a=secret"})
    async with serving(CACHING, tmp_path, play) as bridge:
        first, second = [(await bridge.call())[-1]["metadata"] for _ in range(2)]
        assert second["headers"] == first["headers"]
        assert second["headers"] == {"content-type": label, "x-request-id": "r1"}
        assert (second["status"], second["contentType"]) == (201, JSON)


async def test_a_cached_answer_costs_nothing_and_reports_its_usage(tmp_path: Path) -> None:
    play = answers(b'{"usage":{"prompt_tokens":3,"completion_tokens":2,"cost":0.5}}')
    async with serving(CACHING, tmp_path, play) as bridge:
        first, second = [(await bridge.call(step("openrouter")))[-1]["metadata"] for _ in range(2)]
        assert (first["cost"], second["cost"]) == (0.5, 0)
        assert first["usage"] == second["usage"]


# Over HTTP.


@pytest.mark.parametrize("path", ["/v1/account/gateway/openai/v1/chat/completions", "/v1/account/gateway"])
async def test_a_cached_http_answer_has_the_same_bytes_and_a_cache_header(path: str, tmp_path: Path) -> None:
    body = [step()] if path.endswith("gateway") else {"model": "small", "stream": True}
    async with serving(OPEN, tmp_path, streams(*COMPLETE)) as bridge, aiohttp.ClientSession() as session:
        url = bridge.server.url.replace("ws://", "http://") + path
        statuses = []
        for _ in range(2):
            async with session.post(url, json=body, headers={"cf-aig-cache-ttl": "60"}) as response:
                statuses.append((response.headers["cf-aig-cache-status"], await response.read()))
        assert statuses == [("MISS", b"".join(COMPLETE)), ("HIT", b"".join(COMPLETE))]
        assert bridge.calls == 1


# Limits.


def tokens(ci: str = "", gateway: str = "cache_shared = true") -> str:
    """Return the configuration of two tokens, of which one may have limits."""
    ours, other = (hashlib.sha256(name.encode()).hexdigest() for name in ("ci", "cd"))
    return f"""
[gateways.gateway]
cache_ttl = 60
{gateway}
[gateways.gateway.tokens]
cd = "sha256:{other}"
[gateways.gateway.tokens.ci]
token = "sha256:{ours}"
{ci}
"""


def bearer(name: str) -> dict[str, str]:
    return {"cf-aig-authorization": f"Bearer {name}"}


@pytest.mark.parametrize(("shared", "expected"), [("false", ["MISS", "MISS"]), ("true", ["MISS", "HIT"])])
@pytest.mark.parametrize("config", [{}, {"cacheKey": "mine"}])
async def test_tokens_share_answers_only_in_a_shared_cache(
    shared: str, expected: list[str], config: dict[str, str], tmp_path: Path
) -> None:
    """Both tokens send the same request with the same provider credential."""
    text = tokens(gateway=f"cache_shared = {shared}")
    async with (
        serving(text, tmp_path, headers=bearer("ci")) as bridge,
        connected(bridge.server, headers=bearer("cd")) as other,
    ):
        statuses = [await bridge.status(step(**config)), await bridge.status(step(**config), client=other)]
        assert statuses == expected
        assert await bridge.status(step(**config)) == "HIT"


async def test_each_waiter_for_a_shared_call_is_refused_on_its_own(tmp_path: Path) -> None:
    """The first waiter gets no slot in time; the second, with another token, gets one."""
    ends = asyncio.Event()
    text = tokens("max_concurrent_by_provider = {openai = 1}\nmax_wait = 1000")
    async with (
        serving(
            text, tmp_path, ScriptedResponse([ends, b"{}"], content_type=JSON), answers(), headers=bearer("ci")
        ) as bridge,
        connected(bridge.server, headers=bearer("cd")) as other,
    ):
        await bridge.client.create(step(skipCache=True), eventId="first")
        refused = asyncio.create_task(bridge.call())
        await turns(200)
        waiting = asyncio.create_task(bridge.call(client=other))
        await turns(200)
        assert bridge.calls == 1
        advance(1.1)
        assert (await refused)[-1]["error"]["code"] == 9005
        assert (await waiting)[-1]["metadata"]["cacheStatus"] == "MISS"
        assert bridge.calls == 2
        ends.set()
        await bridge.client.until_last("first")


async def test_a_hit_needs_no_concurrency_slot(tmp_path: Path) -> None:
    ends = asyncio.Event()
    text = OPEN + "cache_ttl = 60\nmax_concurrent_by_provider = {openai = 1}\nmax_wait = 0\n"
    async with serving(text, tmp_path, answers(), ScriptedResponse([ends, b"{}"], content_type=JSON)) as bridge:
        assert await bridge.status() == "MISS"
        await bridge.client.create(step(skipCache=True), eventId="long")
        await turns(200)
        assert await bridge.status() == "HIT"
        ends.set()
        await bridge.client.until_last("long")


# Where answers lie.


async def test_a_cache_file_survives_a_restart_of_the_bridge(tmp_path: Path) -> None:
    text = '[server]\ncache_path = "answers.db"\n' + CACHING
    async with serving(text, tmp_path, streams(*COMPLETE)) as bridge:
        first = await bridge.call()
        assert first[-1]["metadata"]["cacheStatus"] == "MISS"
    async with serving(text, tmp_path) as bridge:
        again = await bridge.call()
        assert again[-1]["metadata"]["cacheStatus"] == "HIT"
        assert [frame.get("response") for frame in again] == [frame.get("response") for frame in first]
        assert bridge.calls == 0
    assert (tmp_path / "answers.db").exists()


async def test_an_impossible_cache_path_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cache_path"):
        async with serving('[server]\ncache_path = "no/where.db"\n', tmp_path):
            pass


@pytest.mark.needs("redis-server")
async def test_bridges_that_share_a_redis_share_their_answers(redis: RedisServer, tmp_path: Path) -> None:
    text = f'[server]\nredis_url = "{redis.url}"\n' + CACHING
    async with serving(text, tmp_path) as one, serving(text, tmp_path) as other:
        assert await one.status() == "MISS"
        while redis.command("KEYS", "*:cache:*").startswith(b"*0"):
            await turns()
        assert await other.status() == "HIT"
        redis.kill()
        assert await other.status() == "HIT"  # from its memory by now
        assert await one.statuses(step("groq"), step("groq")) == ["MISS", "HIT"]


REPORTED = {
    "in one piece": answers(b'{"error":{"message":"too many","code":429}}'),
    "Workers AI": answers(b'{"result":null,"success":false,"errors":[{"code":3040,"message":"m"}]}'),
    "truncated": answers(b'{"choices":['),
    "in a stream": streams(content("a"), b'error: {"code":503,"message":"m"}\n\n'),
    "the end mark alone": streams(b"data: [DONE]\n\n"),
}


@pytest.mark.parametrize("play", REPORTED.values(), ids=REPORTED.keys())
async def test_an_error_inside_http_200_is_not_stored(play: ScriptedResponse, tmp_path: Path) -> None:
    async with serving(CACHING, tmp_path, play, answers()) as bridge:
        failed = (await bridge.call())[-1]["metadata"]
        assert (failed["success"], failed["cacheStatus"]) == (False, "MISS")
        assert await bridge.statuses(None, None) == ["MISS", "HIT"]
