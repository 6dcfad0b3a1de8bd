"""The limits of gateways and tokens, as a client meets them on a socket."""

import asyncio
import base64
import gzip
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.server.server import Server
from bridge.services.limits.budgets import SOON_MS
from bridge.services.limits.reserving import WAIT_S
from tests.support.clock import advance, turns, until
from tests.support.event_harness import COMPLETE, ROLE, content, step
from tests.support.harness import Client, Frame, config_of, connected, running
from tests.support.provider_script import (
    JSON,
    RESET,
    SILENCE,
    ScriptedProvider,
    ScriptedResponse,
    answers,
    refuses,
    streams,
)
from tests.support.wall_clock import Wall

BARE = "[gateways.gateway]\n"
OPEN = BARE + "custom_cost = { per_token_in = 1e-6, per_token_out = 0.0 }\n"
"""Its price is its own: an answer costs what `costing` says."""


def tokens(ci: str) -> str:
    """Two of them, of which one has limits."""
    ours, other = (hashlib.sha256(name.encode()).hexdigest() for name in ("ci", "cd"))
    return f"""
[gateways.gateway.tokens]
cd = "sha256:{other}"
[gateways.gateway.tokens.ci]
token = "sha256:{ours}"
{ci}
"""


def costing(usd: float) -> ScriptedResponse:
    """An answer that costs so much at the price of `OPEN`."""
    return answers(used(usd))


def used(usd: float) -> bytes:
    return b'{"usage":{"prompt_tokens":%d,"completion_tokens":2}}' % round(usd * 1e6)


class LimitedBridge:
    """A bridge with limits, one client's socket to it, and the provider behind it."""

    def __init__(self, server: Server, provider: ScriptedProvider, client: Client, folder: Path) -> None:
        self.server, self.provider, self.client, self._folder = server, provider, client, folder
        self._events = 0

    async def begin(self, request: object = None, client: Client | None = None) -> str:
        self._events += 1
        name = f"event {self._events}"
        await (client or self.client).create(request or step(), eventId=name)
        return name

    async def end(self, name: str, client: Client | None = None) -> Frame:
        """Its last frame."""
        return (await (client or self.client).until_last(name))[-1]

    async def call(self, request: object = None, client: Client | None = None) -> Frame:
        return await self.end(await self.begin(request, client), client)

    async def call_that_waits(self) -> Frame:
        """An event that waits for money until its time is over."""
        name = await self.begin()
        await turns(100)
        advance(WAIT_S)
        return await self.end(name)

    async def codes(self, count: int) -> list[int | None]:
        """Of so many events at once, in the order in which they were sent."""
        names = [await self.begin() for _ in range(count)]
        return [code(await self.end(name)) for name in names]

    async def calls(self, count: int) -> None:
        """Until the provider has been called so often; and then it is not called any more."""
        await until(lambda: len(self.provider.requests) == count)
        await turns(100)
        assert len(self.provider.requests) == count

    def reload(self, text: str) -> None:
        self.server.reload(config_of(text, self._folder))


@asynccontextmanager
async def serving(text: str, folder: Path, *plays: ScriptedResponse, **handshake: Any) -> AsyncIterator[LimitedBridge]:
    provider = ScriptedProvider(*plays)
    async with running(config_of(text, folder), provider) as server, connected(server, **handshake) as client:
        yield LimitedBridge(server, provider, client, folder)


def code(frame: Frame) -> int | None:
    found: int | None = frame.get("error", {}).get("code")
    return found


def bearer(token: str) -> dict[str, dict[str, str]]:
    return {"headers": {"cf-aig-authorization": f"Bearer {token}"}}


# Requests per window.


RATE = OPEN + "rate_limiting_limit = 2\nrate_limiting_interval = 60\n"


async def test_a_fixed_clock_window_passes_at_most_the_limit(tmp_path: Path, wall: Wall):
    wall.advance(50)
    async with serving(RATE + 'rate_limiting_technique = "fixed"', tmp_path, *[answers()] * 3) as place:
        assert await place.codes(3) == [None, None, 2003]
        wall.advance(10)
        assert code(await place.call()) is None


async def test_a_sliding_window_counts_earlier_events_while_they_are_in_reach(tmp_path: Path, wall: Wall):
    async with serving(RATE + 'rate_limiting_technique = "sliding"', tmp_path, *[answers()] * 4) as place:
        assert await place.codes(2) == [None, None]
        wall.advance(60)
        assert code(await place.call()) == 2003
        wall.advance(0.1)
        assert await place.codes(2) == [None, 2003]
        wall.advance(30)
        assert await place.codes(2) == [None, 2003]


async def test_a_refusal_is_the_events_last_frame_and_contains_retry_after(tmp_path: Path, wall: Wall):
    wall.advance(12.5)
    async with serving(RATE, tmp_path, *[answers()] * 2) as place:
        await place.codes(2)
        frame = await place.call()
        assert frame["type"] == "universal.created"
        assert frame["error"] == {
            "code": 2003,
            "message": "Rate limited: 2 requests per 60s (fixed) for gateway 'gateway'",
            "source": "client",
            "retryable": True,
            "retryAfterMs": 47_501,
        }
        assert (frame["metadata"]["status"], frame["response"]["internalCode"]) == (429, 2003)


async def test_many_concurrent_events_do_not_exceed_a_limit(tmp_path: Path, wall: Wall):
    text = OPEN + "rate_limiting_limit = 40\nrate_limiting_interval = 60\n"
    async with serving(text, tmp_path, *[answers()] * 40) as place:
        codes = await place.codes(200)
        assert (codes.count(None), codes.count(2003)) == (40, 160)


async def test_a_gateway_for_any_name_has_one_limit_for_all_names(tmp_path: Path, wall: Wall):
    text = RATE.replace("gateways.gateway", 'gateways."*"')
    async with serving(text, tmp_path, *[answers()] * 2) as place, connected(place.server, "/v1/me/made-up") as other:
        assert [code(await place.call()), code(await place.call(client=other))] == [None, None]
        assert code(await place.call(client=other)) == 2003


async def test_a_token_over_its_limit_consumes_nothing_of_its_gateways_limit(tmp_path: Path, wall: Wall):
    text = RATE.replace("= 2", "= 3") + tokens("rate_limiting_limit = 1\nrate_limiting_interval = 60")
    async with (
        serving(text, tmp_path, *[answers()] * 3, **bearer("ci")) as place,
        connected(place.server, **bearer("cd")) as other,
    ):
        assert await place.codes(5) == [None, 2003, 2003, 2003, 2003]
        assert [code(await place.call(client=other)) for _ in range(3)] == [None, None, 2003]


async def test_a_reloaded_limit_applies_from_the_next_event_on(tmp_path: Path, wall: Wall):
    async with serving(RATE, tmp_path, *[answers()] * 4) as place:
        assert await place.codes(3) == [None, None, 2003]
        place.reload(RATE.replace("= 2", "= 3"))
        assert await place.codes(2) == [None, 2003]
        place.reload(OPEN)
        assert code(await place.call()) is None


async def test_every_attempt_counts_in_the_window(tmp_path: Path, wall: Wall):
    text = RATE.replace("= 2", "= 5")
    failing = [answers(status=500)] * 5
    async with serving(text, tmp_path, *failing) as place:
        frame = await place.call([step(slug, maxAttempts=5, retryDelay=0) for slug in ("openai", "groq", "mistral")])
        assert len(place.provider.requests) == 5
        assert (code(frame), frame["metadata"]["step"]) == (500, "0"), "the last answer that a provider gave"
        codes = [attempt["code"] for attempt in frame["metadata"]["attempts"]]
        assert codes == [500] * 5 + [2003, 2003]
        assert code(await place.call()) == 2003


async def test_a_step_refused_by_the_window_is_a_failed_step(tmp_path: Path, wall: Wall):
    """The chain goes on, and ends with the refusal where no provider gave an answer."""
    async with serving(RATE.replace("= 2", "= 1"), tmp_path, refuses()) as place:
        frame = await place.call([step(maxAttempts=3, retryDelay=0), step("groq")])
        assert (code(frame), frame["metadata"]["step"]) == (2003, "1")
        assert frame["error"]["retryAfterMs"] == 60_001
        assert [attempt["code"] for attempt in frame["metadata"]["attempts"]] == [9010, 2003, 2003]
        assert len(place.provider.requests) == 1


async def test_a_token_s_window_counts_its_attempts_too(tmp_path: Path, wall: Wall):
    text = OPEN + tokens("rate_limiting_limit = 2\nrate_limiting_interval = 60")
    async with serving(text, tmp_path, answers(status=500), answers(status=500), **bearer("ci")) as place:
        frame = await place.call([step(), step("groq"), step("mistral")])
        assert [attempt["code"] for attempt in frame["metadata"]["attempts"]] == [500, 500, 2003]


async def test_an_attempt_without_a_slot_is_not_counted_as_a_call(tmp_path: Path, wall: Wall):
    text = RATE + "max_concurrent_by_provider = { openai = 1 }\nmax_wait = 0"
    async with serving(text, tmp_path, ScriptedResponse(before_head=[SILENCE]), answers()) as place:
        await place.begin()
        await place.calls(1)
        frame = await place.call([step(), step("groq")])
        assert (code(frame), frame["metadata"]["step"]) == (None, "1")


# How many at once.


def waiting(gate: asyncio.Event) -> ScriptedResponse:
    return ScriptedResponse(before_head=[gate], body=[b"{}"], content_type=JSON)


async def test_events_above_the_limit_wait_and_proceed_in_order(tmp_path: Path):
    gates = [asyncio.Event() for _ in range(4)]
    async with serving(OPEN + "max_concurrent = 2", tmp_path, *map(waiting, gates)) as place:
        names = [await place.begin(step() | {"query": {"model": str(number)}}) for number in range(4)]
        await place.calls(2)
        for done in range(2):
            gates[done].set()
            await place.end(names[done])
            await place.calls(3 + done)
            assert place.provider.requests[-1].content == b'{"model":"%d"}' % (2 + done)
        for gate in gates:
            gate.set()


async def test_an_event_that_waits_too_long_gets_a_retry_delay(tmp_path: Path):
    text = OPEN + "max_concurrent = 1\nmax_wait = 3000"
    async with serving(text, tmp_path, ScriptedResponse(before_head=[SILENCE])) as place:
        await place.begin()
        await place.calls(1)
        second = await place.begin()
        await turns(50)
        advance(3)
        frame = await place.end(second)
        assert (frame["type"], code(frame), frame["metadata"]["status"]) == ("universal.created", 9005, 429)
        assert frame["error"]["retryable"] is True
        assert frame["error"]["retryAfterMs"] == SOON_MS


async def test_a_full_queue_refuses_events(tmp_path: Path):
    async with serving(OPEN + "max_concurrent = 1", tmp_path, ScriptedResponse(before_head=[SILENCE])) as place:
        for _ in range(5):
            await place.begin()
        assert code(await place.call()) == 9005


async def test_a_cancelled_event_leaves_the_queue(tmp_path: Path):
    gate = asyncio.Event()
    async with serving(OPEN + "max_concurrent = 1", tmp_path, waiting(gate), answers()) as place:
        first, second, third = [await place.begin() for _ in range(3)]
        await place.calls(1)
        await place.client.cancel(second)
        assert code(await place.end(second)) == 9020
        gate.set()
        assert [code(await place.end(name)) for name in (first, third)] == [None, None]


@pytest.mark.parametrize("limit", ["max_concurrent = 1", "max_concurrent_by_provider = { openai = 1 }"])
async def test_total_timeout_runs_while_an_event_waits(tmp_path: Path, limit: str):
    async with serving(OPEN + limit, tmp_path, ScriptedResponse(before_head=[SILENCE])) as place:
        await place.begin()
        await place.calls(1)
        second = await place.begin(step(totalTimeout=2000))
        await turns(50)
        advance(2)
        assert code(await place.end(second)) == 9015


async def test_a_slot_is_released_however_its_event_ends(tmp_path: Path):
    plays = [
        answers(status=500),
        ScriptedResponse(before_connect=[OSError()]),
        streams(content("a"), RESET),
        ScriptedResponse(before_head=[SILENCE]),
        streams(*COMPLETE),
    ]
    limits = "max_concurrent = 1\nmax_concurrent_by_provider = { openai = 1 }"
    async with serving(OPEN + limits, tmp_path, *plays) as place:
        for expected in (500, 9099, 9016):
            assert code(await place.call()) == expected
        async with connected(place.server) as other:
            await place.begin(client=other)
            await place.calls(4)
        assert code(await place.call()) is None


async def test_events_of_another_token_do_not_wait_behind_those_of_one(tmp_path: Path):
    gate = asyncio.Event()
    text = OPEN + "max_concurrent = 2\n" + tokens("max_concurrent = 1")
    async with (
        serving(text, tmp_path, waiting(gate), answers(), **bearer("ci")) as place,
        connected(place.server, **bearer("cd")) as other,
    ):
        for _ in range(4):
            await place.begin()
        await place.calls(1)
        assert code(await place.call(client=other)) is None


BY_PROVIDER = OPEN + "max_concurrent_by_provider = { openai = 1 }\n"


async def test_a_provider_slot_is_held_until_the_answer_is_read(tmp_path: Path):
    gate = asyncio.Event()
    async with serving(BY_PROVIDER, tmp_path, streams(ROLE, content("a"), gate, *COMPLETE), answers()) as place:
        first, second = [await place.begin() for _ in range(2)]
        await place.calls(1)
        gate.set()
        assert [code(await place.end(name)) for name in (first, second)] == [None, None]


async def test_connect_timeout_does_not_run_while_an_event_waits_for_a_slot(tmp_path: Path):
    gate = asyncio.Event()
    async with serving(BY_PROVIDER, tmp_path, waiting(gate), ScriptedResponse(before_connect=[SILENCE])) as place:
        await place.begin()
        second = await place.begin(step(connectTimeout=1000, requestTimeout=2000))
        await place.calls(1)
        advance(5)
        await turns(50)
        gate.set()
        await place.calls(2)
        advance(1)
        assert code(await place.end(second)) == 9010


async def test_a_step_without_a_free_provider_slot_falls_back_to_the_next(tmp_path: Path):
    text = BY_PROVIDER + "max_wait = 0"
    async with serving(text, tmp_path, ScriptedResponse(before_head=[SILENCE]), answers()) as place:
        await place.begin()
        await place.calls(1)
        frame = await place.call([step(maxAttempts=3), step("groq")])
        assert (code(frame), frame["metadata"]["step"]) == (None, "1")
        assert [attempt.get("code") for attempt in frame["metadata"]["attempts"]] == [9005, None]
        assert code(await place.call()) == 9005


# Money.


def budget(limit: float = 1.0, **more: str) -> str:
    keys = {"id": '"day"', "limitType": '"cost"', "limit": str(limit), "window": "86400", "technique": '"fixed"'} | more
    rule = ", ".join(f"{key} = {value}" for key, value in keys.items())
    return f"spend_limits = {{ rules = [{{ {rule} }}] }}\n"


async def test_an_exhausted_budget_stops_provider_calls_until_the_window_ends(tmp_path: Path, wall: Wall):
    async with serving(OPEN + budget(), tmp_path, costing(0.6), costing(0.6), costing(0.1)) as place:
        assert [code(await place.call()) for _ in range(3)] == [None, None, 2041]
        frame = await place.call()
        assert frame["error"] == {
            "code": 2041,
            "message": "Spend limit exceeded: rule 'day' (cost limit 1 per 86400s, fixed) for gateway 'gateway'",
            "source": "client",
            "retryable": False,
            "retryAfterMs": 43_200_001,
        }
        assert (frame["type"], frame["metadata"]["status"]) == ("universal.created", 429)
        wall.advance(43_200)
        assert code(await place.call()) is None


async def test_a_sliding_budget_recovers_gradually(tmp_path: Path, wall: Wall):
    text = OPEN + budget(technique='"sliding"', window="3600")
    async with serving(text, tmp_path, costing(2.0), costing(0.1)) as place:
        assert [code(await place.call()) for _ in range(2)] == [None, 2041]
        wall.advance(3600 + 1799)
        assert code(await place.call()) == 2041
        wall.advance(2)
        assert code(await place.call()) is None


async def test_events_in_flight_reserve_the_recent_cost_of_their_model(tmp_path: Path, wall: Wall):
    gate = asyncio.Event()
    slow = ScriptedResponse(before_head=[gate], body=[used(0.1)], content_type=JSON)
    async with serving(OPEN + budget(), tmp_path, costing(0.4), slow, slow, costing(0.1)) as place:
        await place.call()
        running = [await place.begin(), await place.begin()]
        await place.calls(3)
        frame = await place.call_that_waits()
        assert (code(frame), frame["error"]["retryAfterMs"]) == (2041, SOON_MS)
        gate.set()
        assert [code(await place.end(name)) for name in running] == [None, None]
        assert code(await place.call()) is None, "they were cheaper than what was reserved for them"


async def test_an_event_kept_out_by_reservations_waits_for_a_settlement(tmp_path: Path, wall: Wall):
    gates = [asyncio.Event() for _ in range(3)]
    plays = [
        costing(0.4),
        *(ScriptedResponse(before_head=[gate], body=[used(0.1)], content_type=JSON) for gate in gates),
    ]
    async with serving(OPEN + budget(), tmp_path, *plays) as place:
        await place.call()
        names = [await place.begin() for _ in range(3)]
        await place.calls(3)
        advance(WAIT_S - 1)
        gates[0].set()
        await place.end(names[0])
        await place.calls(4)
        for gate in gates:
            gate.set()
        assert [code(await place.end(name)) for name in names[1:]] == [None, None]


async def test_waiting_events_are_refused_as_soon_as_the_money_is_spent(tmp_path: Path, wall: Wall):
    gate = asyncio.Event()
    play = ScriptedResponse(before_head=[gate], body=[used(2.0)], content_type=JSON)
    async with serving(OPEN + budget(), tmp_path, costing(0.5), play) as place:
        await place.call()
        names = [await place.begin() for _ in range(20)]
        await place.calls(2)
        gate.set()
        frames = [await place.end(name) for name in names]
        assert [code(frame) for frame in frames] == [None] + [2041] * 19
        assert {frame["error"]["retryAfterMs"] for frame in frames[1:]} == {43_200_001}


async def test_one_of_many_calls_with_unknown_price_passes_a_budget_that_it_exceeds(tmp_path: Path, wall: Wall):
    """Only their provider will tell what they cost; until then each holds a dollar."""
    gate = asyncio.Event()
    body = b'{"usage":{"prompt_tokens":3,"completion_tokens":2,"cost":2.0}}'
    async with serving(
        BARE + budget(), tmp_path, ScriptedResponse(before_head=[gate], body=[body], content_type=JSON)
    ) as place:
        names = [await place.begin(step("openrouter")) for _ in range(200)]
        await place.calls(1)
        gate.set()
        codes = [code(await place.end(name)) for name in names]
        assert (codes.count(None), codes.count(2041)) == (1, 199)


async def test_cheap_calls_do_not_lower_the_reservation_of_an_expensive_one(tmp_path: Path, wall: Wall):
    text = BARE + "custom_cost = { per_token_in = 0.0, per_token_out = 0.00001 }\n" + budget()
    dear = step() | {"query": {"max_tokens": 1, "max_completion_tokens": 60_000}}
    plays = [*[costing(0.0)] * 3, *[ScriptedResponse(before_head=[SILENCE])] * 2]
    async with serving(text, tmp_path, *plays) as place:
        for _ in range(3):
            assert code(await place.call()) is None
        for _ in range(5):
            await place.begin(dear)
        await place.calls(5)


async def test_a_compressed_body_does_not_hide_its_maximum_answer_length(tmp_path: Path, wall: Wall):
    text = BARE + "custom_cost = { per_token_in = 0.0, per_token_out = 0.00001 }\n" + budget()
    body = base64.b64encode(gzip.compress(b'{"model":"small","max_tokens":60000}')).decode()
    dear = step() | {"body": body, "encoding": "base64"}
    del dear["query"]
    dear["headers"] = {"content-encoding": "gzip"}
    async with serving(text, tmp_path, *[ScriptedResponse(before_head=[SILENCE])] * 2) as place:
        for _ in range(2):
            await place.begin(dear)
        await place.calls(2)
        assert code(await place.call_that_waits()) == 2041


async def test_an_event_that_waits_for_money_can_be_cancelled_and_leaves_nothing_behind(tmp_path: Path, wall: Wall):
    async with serving(OPEN + budget(), tmp_path, costing(0.5), ScriptedResponse(before_head=[SILENCE])) as place:
        await place.call()
        await place.begin()
        await place.calls(2)
        waiting_ = await place.begin()
        await turns(50)
        await place.client.cancel(waiting_)
        assert code(await place.end(waiting_)) == 9020


async def test_total_timeout_runs_while_an_event_waits_for_money(tmp_path: Path, wall: Wall):
    async with serving(OPEN + budget(), tmp_path, costing(0.5), ScriptedResponse(before_head=[SILENCE])) as place:
        await place.call()
        await place.begin()
        await place.calls(2)
        waiting_ = await place.begin(step(totalTimeout=2000))
        await turns(50)
        advance(2)
        assert code(await place.end(waiting_)) == 9015


async def test_many_concurrent_events_overspend_by_at_most_one_estimate(tmp_path: Path, wall: Wall):
    """The first of a model are estimated by their price and by how long an answer they allow."""
    gate = asyncio.Event()
    text = BARE + "custom_cost = { per_token_in = 0.0, per_token_out = 0.001 }\n" + budget()
    request = step() | {"query": {"max_tokens": 300}}
    answer = ScriptedResponse(
        before_head=[gate], body=[b'{"usage":{"prompt_tokens":3,"completion_tokens":300}}'], content_type=JSON
    )
    async with serving(text, tmp_path, *[answer] * 4) as place:
        names = [await place.begin(request) for _ in range(50)]
        await place.calls(4)
        gate.set()
        codes = [code(await place.end(name)) for name in names]
        assert (codes.count(None), codes.count(2041)) == (4, 46)
        assert code(await place.call(request)) == 2041, "4 times 0.3 are spent"


async def test_a_token_has_a_budget_of_its_own(tmp_path: Path, wall: Wall):
    text = OPEN + budget(limit=2.0) + tokens(budget(limit=1.0))
    async with (
        serving(text, tmp_path, *[costing(1.0)] * 2, **bearer("ci")) as place,
        connected(place.server, **bearer("cd")) as other,
    ):
        assert [code(await place.call()) for _ in range(2)] == [None, 2041]
        assert [code(await place.call(client=other)) for _ in range(2)] == [None, 2041]


@pytest.mark.parametrize(
    "message", ['{"total_cost":0}', '{"total_cost":1000000}', '{"per_token_in":0,"per_token_out":0}']
)
async def test_a_clients_custom_price_does_not_affect_a_budget(tmp_path: Path, wall: Wall, message: str):
    priced = {**step(), "headers": {"cf-aig-custom-cost": message}}
    async with serving(OPEN + budget(), tmp_path, costing(0.6), costing(0.6)) as place:
        assert [code(await place.call(priced)) for _ in range(3)] == [None, None, 2041]


async def test_a_gateways_custom_price_is_charged_to_budgets(tmp_path: Path, wall: Wall):
    text = BARE + "custom_cost = { total_cost = 0.6 }\n" + budget()
    async with serving(text, tmp_path, answers(), answers()) as place:
        assert await place.codes(1) + await place.codes(1) + await place.codes(1) == [None, None, 2041]


async def test_each_value_of_metadata_may_have_a_budget(tmp_path: Path, wall: Wall):
    text = OPEN + budget(metadata='{ team = { mode = "partition" } }')
    async with serving(text, tmp_path, *[costing(1.0)] * 4) as place:
        for team, expected in (("red", None), ("red", 2041), ("blue", None), ("blue", 2041)):
            assert code(await place.call(step(metadata={"team": team}))) == expected
        assert [code(await place.call()) for _ in range(2)] == [None, None], "who names no team has no rule"


async def test_an_event_without_money_ends_without_trying_every_step(tmp_path: Path, wall: Wall):
    async with serving(OPEN + budget(), tmp_path, costing(1.0)) as place:
        await place.call()
        frame = await place.call([step(maxAttempts=3), step("groq"), step("mistral")])
        assert (code(frame), frame["metadata"]["step"]) == (2041, "0")
        assert "attempts" not in frame["metadata"]


async def test_after_a_providers_rule_refuses_the_next_step_may_have_money_left(tmp_path: Path, wall: Wall):
    text = OPEN + budget(provider='{ mode = "filter", values = ["openai"] }')
    async with serving(text, tmp_path, costing(1.0), answers()) as place:
        await place.call()
        frame = await place.call([step(maxAttempts=3), step("groq")])
        assert (code(frame), frame["metadata"]["step"]) == (None, "1")
        assert code(await place.call()) == 2041


async def test_a_cheaper_model_may_replace_one_with_an_exhausted_budget(tmp_path: Path, wall: Wall):
    text = OPEN + budget(model='{ mode = "filter", values = ["small"] }')
    async with serving(text, tmp_path, costing(1.0), answers()) as place:
        await place.call()
        frame = await place.call([step(), step() | {"query": {"model": "tiny"}}])
        assert (code(frame), frame["metadata"]["step"]) == (None, "1")


async def test_a_failed_step_reserves_once(tmp_path: Path, wall: Wall):
    """A retry, or the next step, draws on what the event has reserved already."""
    plays = [costing(0.9), answers(status=500), answers(status=500), costing(0.05), costing(0.05)]
    async with serving(OPEN + budget(), tmp_path, *plays) as place:
        await place.call()
        assert code(await place.call([step(maxAttempts=2, retryDelay=0), step("groq")])) is None
        assert code(await place.call()) is None, "0.95 is spent, and nothing reserved"


async def test_a_more_expensive_step_reserves_more_than_the_failed_one(tmp_path: Path, wall: Wall):
    text = BARE + "custom_cost = { per_token_in = 0.0, per_token_out = 0.00001 }\n" + budget()
    cheap, dear = (step() | {"query": {"max_tokens": tokens_}} for tokens_ in (1, 60_000))
    plays = [
        answers(status=500),
        ScriptedResponse(before_head=[SILENCE]),
        answers(status=500),
        ScriptedResponse(before_head=[SILENCE]),
    ]
    async with serving(text, tmp_path, *plays, answers(status=500)) as place:
        for calls in (2, 4):
            await place.begin([cheap, dear])
            await place.calls(calls)
        name = await place.begin([cheap, dear])
        await turns(100)
        advance(WAIT_S)
        assert code(await place.end(name)) == 2041
        assert len(place.provider.requests) == 4, "two dear ones are in flight, and hold more than there is"


async def test_a_single_event_may_continue_with_a_more_expensive_step(tmp_path: Path, wall: Wall):
    text = BARE + "custom_cost = { per_token_in = 0.0, per_token_out = 0.0001 }\n" + budget()
    steps = [step() | {"query": {"max_tokens": tokens_}} for tokens_ in (20_000, 60_000)]
    async with serving(text, tmp_path, answers(status=500), answers()) as place:
        assert code(await place.call(steps)) is None


async def test_a_cached_answer_is_served_without_money_left(tmp_path: Path, wall: Wall):
    text = OPEN + "cache_ttl = 300\n" + budget()
    async with serving(text, tmp_path, costing(1.0)) as place:
        assert code(await place.call()) is None
        frame = await place.call()
        assert (code(frame), frame["metadata"]["cacheStatus"], frame["metadata"]["cost"]) == (None, "HIT", 0.0)
        assert code(await place.call(step() | {"query": {"model": "other"}})) == 2041


async def test_a_rule_added_by_a_reload_applies_from_the_next_event_on(tmp_path: Path, wall: Wall):
    async with serving(OPEN, tmp_path, costing(1.0), costing(1.0)) as place:
        await place.call()
        place.reload(OPEN + budget())
        assert [code(await place.call()) for _ in range(2)] == [None, 2041]


async def test_the_event_that_continues_a_shared_call_is_charged_for_it(tmp_path: Path, wall: Wall):
    gate = asyncio.Event()
    play = ScriptedResponse(before_head=[gate], body=[used(1.0)], content_type=JSON)
    async with serving(OPEN + "cache_ttl = 300\n" + budget(), tmp_path, play) as place:
        leader, other = [await place.begin() for _ in range(2)]
        await place.calls(1)
        await place.client.cancel(leader)
        assert code(await place.end(leader)) == 9020
        gate.set()
        frame = await place.end(other)
        assert (code(frame), frame["metadata"]["cost"]) == (None, 1.0)
        assert code(await place.call(step() | {"query": {"model": "other"}})) == 2041


async def test_an_event_whose_client_leaves_settles_its_reservation(tmp_path: Path, wall: Wall):
    async with serving(
        OPEN + budget(), tmp_path, costing(0.4), *[ScriptedResponse(before_head=[SILENCE])] * 2, costing(0.1)
    ) as place:
        await place.call()
        async with connected(place.server) as other:
            for _ in range(2):
                await place.begin(client=other)
            await place.calls(3)
            assert code(await place.call_that_waits()) == 2041
        await until(lambda: not place.provider.open_streams)
        assert code(await place.call()) is None
