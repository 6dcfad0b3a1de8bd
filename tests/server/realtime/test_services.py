"""Apply limits, prices, the log and metrics to sessions over real sockets."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import orjson
import pytest

from bridge.policy.reported import MAX_TOKENS
from bridge.relay.costs import MANY_TOKENS
from bridge.relay.interfaces import Services
from bridge.relay.summary import Cost
from bridge.server.server import Server
from bridge.services.pricing.pricer import EventPricer
from bridge.services.pricing.rates import ModelPrices, TokenPrice
from bridge.upstream.realtime import Connector
from tests.end_to_end.test_request_log import bytes_of_log, rows
from tests.server.realtime.test_accounting import DONE, Observed
from tests.services.metrics.test_metrics import of, scraped
from tests.support.commands import run
from tests.support.harness import config_of, running
from tests.support.raw_client import UPGRADE, RawClient, RawResponse, connect_raw, frame
from tests.support.realtime_harness import (
    CLOSE,
    PATH,
    AcceptingProvider,
    ProviderSide,
    client_close_frame,
    close_payload,
    connect_realtime,
    open_session_with_server,
    realtime_bridge,
)
from tests.support.socket_provider import Provider

TOKEN = "a-token-of-the-house"
TALK = "/v1/account/mine/openai?model=gpt-realtime"
CONFIG = """
[server]
log_path = "log.db"
log_payload_bytes = 1000
[providers.openai]
base_url = "http://127.0.0.1:{port}/v1"
[gateways.mine.tokens]
ci = "sha256:{digest}"
[gateways.mine.keys.openai]
default = "file:key"
[gateways.mine]
"""


class Place:
    """A bridge with all services, and its provider."""

    def __init__(self, server: Server, sockets: AcceptingProvider, rooms: AsyncExitStack) -> None:
        self.server = server
        self._sockets = sockets
        self._rooms = rooms

    async def asks(self, headers: Mapping[str, str] = {}) -> tuple[RawClient, RawResponse]:
        client = await self._rooms.enter_async_context(connect_raw(self.server, receive_bytes=65_536))
        return client, await client.request(TALK, {**UPGRADE, "cf-aig-authorization": TOKEN, **headers})

    async def refusal(self) -> RawResponse:
        _, answered = await self.asks()
        return answered

    async def talk(self, headers: Mapping[str, str] = {}) -> tuple[RawClient, ProviderSide]:
        client, answered = await self.asks(headers)
        assert answered.status == 101, answered.body
        side = await self._sockets.next_session()
        self._rooms.callback(side.line.drop)
        return client, side


@asynccontextmanager
async def place(folder: Path, limits: str = "") -> AsyncIterator[Place]:
    """Run a bridge with all services; `limits` belong to the gateway."""
    (folder / "key").write_text("stored-secret")
    sockets = AcceptingProvider()
    async with Provider(sockets.script) as provider:
        text = CONFIG.format(port=provider.port, digest=hashlib.sha256(TOKEN.encode()).hexdigest()) + limits
        async with running(config_of(text, folder)) as server, AsyncExitStack() as rooms:
            yield Place(server, sockets, rooms)


async def parted(client: RawClient, side: ProviderSide) -> None:
    """Close the session from the client's side, and wait until both connections are closed."""
    await client.send(frame(close_payload(1000), CLOSE))
    assert await side.close_frame() == (1000, "")
    await side.send(close_payload(1000), CLOSE)
    assert await client_close_frame(client) == (1000, "")
    await client.read_to_end()


ROW = {
    "request_type": "realtime",
    "token": "ci",
    "event_id": "a-talk",
    "provider": "openai",
    "model": "gpt-realtime",
    "path": "realtime",
    "status_code": 101,
    "success": 1,
    "byok": "default",
    "tokens_in": 30,
    "tokens_out": 12,
    "metadata": '{"team":"voice"}',
    "request_size": 17,
    "response_size": len(DONE),
    "request_head": None,
    "response_head": None,
    "messages_from_client": 1,
    "messages_from_provider": 1,
    "closed_by": "client",
    "close_code": 1000,
}


async def test_with_all_services_a_session_is_counted_while_it_runs_and_logged_at_its_end(
    tmp_path: Path,
) -> None:
    limits = "rate_limiting_limit = 9\nrate_limiting_interval = 60\nmax_concurrent = 9\n"
    async with place(tmp_path, limits) as at:
        client, side = await at.talk({"cf-aig-metadata": '{"team":"voice"}', "cf-aig-event-id": "a-talk"})
        assert side.headers["authorization"] == "Bearer stored-secret"
        await client.send(frame(b"said and not kept"))
        await side.next_frame()
        await side.send(DONE)
        await client.next_frame()
        during = await scraped(at.server)
        await parted(client, side)
        after = await scraped(at.server)
    now = ("bridge_events_in_flight", "bridge_sockets")
    assert of(during, *now) == {
        "bridge_events_in_flight[phase=talking provider=openai]": 1,
        "bridge_sockets[]": 1,
    }
    assert of(after, *now) == {}
    mine = "gateway=mine provider=openai"
    assert of(after, "bridge_events_total", "bridge_realtime_messages_total", "bridge_realtime_bytes_total") == {
        "bridge_events_total[gateway=mine outcome=answered provider=openai step=0 transport=realtime]": 1,
        f"bridge_realtime_messages_total[{mine} sender=client]": 1,
        f"bridge_realtime_messages_total[{mine} sender=provider]": 1,
        f"bridge_realtime_bytes_total[{mine} sender=client]": 17,
        f"bridge_realtime_bytes_total[{mine} sender=provider]": len(DONE),
    }
    [row] = rows(tmp_path)
    assert {name: row[name] for name in ROW} == ROW
    written = bytes_of_log(tmp_path)
    assert b"not kept" not in written
    assert b"response.done" not in written
    shown = run("logs", "show", "--path", str(tmp_path / "log.db"), str(row["id"])).stdout.splitlines()
    assert {"request_type: realtime", "closed_by: client", "close_code: 1000", "messages_from_client: 1"} <= set(shown)


# Limits.


async def test_a_session_is_one_event_of_the_rate_limit(tmp_path: Path) -> None:
    async with place(tmp_path, "rate_limiting_limit = 1\nrate_limiting_interval = 60") as at:
        client, side = await at.talk()
        response = await at.refusal()
        assert (response.status, response.sdk_code) == (429, 2003)
        assert int(response.headers["retry-after"]) > 0
        await parted(client, side)


@pytest.mark.parametrize("limit", ["max_concurrent = 1", "max_concurrent_by_provider = { openai = 1 }"])
async def test_a_concurrency_slot_is_held_until_the_session_ends(tmp_path: Path, limit: str) -> None:
    async with place(tmp_path, f"{limit}\nmax_wait = 0") as at:
        client, side = await at.talk()
        assert (await at.refusal()).status == 429
        await parted(client, side)
        await parted(*await at.talk())


async def test_the_cost_of_a_session_is_charged_when_it_ends(tmp_path: Path) -> None:
    rule = 'id = "day", limitType = "cost", limit = 1.0, window = 86400, technique = "fixed"'
    price = "custom_cost = { per_token_in = 0.01, per_token_out = 0.1 }"
    async with place(tmp_path, f"spend_limits = {{ rules = [{{ {rule} }}] }}\n{price}") as at:
        client, side = await at.talk()
        await side.send(DONE)
        await client.next_frame()
        await parted(client, side)
        response = await at.refusal()
        assert (response.status, response.sdk_code) == (429, 2041)
    costs = [(row["cost"], row["cost_source"]) for row in rows(tmp_path)]
    assert costs == [(1.5, "custom"), (None, None)]


async def test_a_session_without_a_known_price_is_refused_under_a_budget(tmp_path: Path) -> None:
    """The provider's address has no known price."""
    rule = 'id = "day", limitType = "cost", limit = 1.0, window = 86400'
    async with place(tmp_path, f"spend_limits = {{ rules = [{{ {rule} }}] }}") as at:
        response = await at.refusal()
        assert (response.status, response.sdk_code) == (403, 9027)
    async with place(tmp_path, f'spend_limits = {{ rules = [{{ {rule} }}], unpriced = "allow" }}') as at:
        await parted(*await at.talk())


# Prices.


class Prices:
    """Implements the interface of prices: higher above ten tokens, and for audio."""

    def rates(self, url: str, model: str) -> ModelPrices | None:
        return (
            ModelPrices(TokenPrice(1.0, ((10, 2.0),)), TokenPrice(10.0), audio_input=TokenPrice(100.0))
            if model == "known"
            else None
        )


def done(tokens_in: int, *, sound: int = 0, kind: str = "response.done", **response: object) -> bytes:
    usage = {"input_tokens": tokens_in, "output_tokens": 1, "input_token_details": {"audio_tokens": sound}}
    return orjson.dumps({"type": kind, "response": {"usage": usage, **response}})


RESPONSES = b'{"type":"response.create","model":"unknown","input":"Hi"}'
SETUP = b'{"setup":{"model":"models/known"}}'
GEMINI = orjson.dumps({"usageMetadata": {"promptTokenCount": 5, "responseTokenCount": 1}})


@pytest.mark.parametrize(
    ("query", "sent", "received", "cost"),
    [
        ("?model=known", b"Hi", [done(8), done(8)], 2 * (8 + 10)),
        ("?model=known", b"Hi", [done(12, sound=2), done(8)], 10 * 2 + 2 * 100 + 10 + 8 + 10),
        ("?model=unknown", b"Hi", [done(8)], None),
        ("", RESPONSES, [done(8, kind="response.completed", model="known")], 8 + 10),
        ("", RESPONSES, [done(8, kind="response.completed")], None),
        ("", SETUP, [GEMINI, GEMINI], 2 * (5 + 10)),
        ("", SETUP, [b"{}"], None),
    ],
)
async def test_each_turn_has_the_price_of_its_length_its_sound_and_its_model(
    tmp_path: Path, query: str, sent: bytes, received: list[bytes], cost: float | None
) -> None:
    observed = Observed()
    services = Services(observers=(observed,), pricer=EventPricer(Prices()))
    async with open_session_with_server(tmp_path, "", services, path=PATH + query) as (_, client, side):
        await client.send(frame(sent))
        await side.next_frame()
        for message in received:
            await side.send(message)
            await client.next_frame()
        await parted(client, side)
        entry = await observed.one()
    assert entry.cost == (None if cost is None else Cost(cost, "prices"))


async def test_a_price_of_the_client_does_not_change_the_charge(tmp_path: Path) -> None:
    observed, sockets = Observed(), AcceptingProvider()
    services = Services(observers=(observed,), pricer=EventPricer(Prices()))
    free = {"cf-aig-custom-cost": '{"total_cost":0}'}
    async with (
        realtime_bridge(sockets.script, tmp_path, "", services) as server,
        connect_realtime(server, f"{PATH}?model=known", free) as client,
    ):
        side = await sockets.next_session()
        for message in (done(12, sound=2), done(8)):
            await side.send(message)
            await client.next_frame()
        await parted(client, side)
        side.line.drop()
        entry = await observed.one()
    assert entry.cost == Cost(0.0, "custom", known_usd=10 * 2 + 2 * 100 + 10 + 8 + 10)


async def test_implausible_token_counts_of_a_turn_are_ignored(tmp_path: Path) -> None:
    observed = Observed()
    services = Services(observers=(observed,), pricer=EventPricer(Prices()))
    async with open_session_with_server(tmp_path, "", services, path=f"{PATH}?model=known") as (_, client, side):
        for _ in range(2):
            await side.send(done(10**12))
            await client.next_frame()
        await parted(client, side)
        entry = await observed.one()
    assert entry.cost == Cost(2 * (2 * MAX_TOKENS + 10.0), "prices")
    assert entry.warnings == [MANY_TOKENS]


# The end.


async def test_a_session_that_a_drain_ended_is_closed_with_1012(tmp_path: Path) -> None:
    observed = Observed()
    async with open_session_with_server(tmp_path, "drain_timeout = 1", Services(observers=(observed,))) as (
        server,
        client,
        side,
    ):
        stopping = asyncio.create_task(server.stop())
        assert await client_close_frame(client) == (1012, "the bridge is shutting down")
        assert await side.close_frame() == (1001, "")
        side.line.drop()
        client.abort()
        await stopping
        entry = await observed.one()
    assert (entry.success, entry.code) == (False, 9022)
    assert entry.realtime is not None
    assert (entry.realtime.closed_by, entry.realtime.close_code) == ("bridge", 1012)


def tokened(token: bytes) -> str:
    return f'[gateways.closed.tokens]\nci = "sha256:{hashlib.sha256(token).hexdigest()}"\n'


async def test_a_token_revoked_during_the_handshake_opens_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is revoked in the turn of the loop that reads the provider's response."""
    sockets, observed = AcceptingProvider(), Observed()
    services = Services(observers=(observed,))
    async with realtime_bridge(sockets.script, tmp_path, services=services, more=tokened(b"secret")) as server:
        opens = Connector.open

        async def opens_and_loses_the_token(self: Connector, *requested: object) -> object:
            socket = await opens(self, *requested)  # type: ignore[arg-type]  # as they were given
            text = (tmp_path / "bridge.toml").read_text().replace(tokened(b"secret"), tokened(b"another"))
            server.reload(config_of(text, tmp_path))
            return socket

        monkeypatch.setattr(Connector, "open", opens_and_loses_the_token)
        async with connect_raw(server) as client:
            response = await client.request(
                "/v1/account/closed/custom-x/talk", {**UPGRADE, "cf-aig-authorization": "secret"}
            )
            assert (response.status, response.sdk_code) == (401, 2009)
            side = await sockets.next_session()
            assert await side.close_frame() == (1001, "")
            side.line.drop()
        entry = await observed.one()
    assert (entry.status, entry.realtime) == (401, None)
