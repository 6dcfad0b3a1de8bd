"""Limits that several bridges share through a real Redis, and what becomes of them without it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.services.limits.test_limiter import BARE, OPEN, LimitedBridge, budget, code, config_of, costing, used
from tests.support.clock import turns
from tests.support.event_harness import step
from tests.support.harness import Frame, connected, running
from tests.support.provider_script import JSON, ScriptedProvider, ScriptedResponse, answers
from tests.support.redis_server import RedisServer
from tests.support.wall_clock import Wall

pytestmark = pytest.mark.needs("redis-server")

RATE = OPEN + "rate_limiting_limit = 40\nrate_limiting_interval = 3600\n"


@asynccontextmanager
async def bridges(
    text: str, folder: Path, redis: RedisServer, *plays: Sequence[ScriptedResponse]
) -> AsyncIterator[list[LimitedBridge]]:
    """One for each of the lists of plays."""
    # Patient: a machine that is busy elsewhere is not to be taken for a Redis that is lost.
    config = f'[server]\nredis_url = "{redis.url}"\nredis_timeout = 10000\n{text}'
    async with AsyncExitStack() as stack:
        all_bridges = []
        for each in plays:
            provider = ScriptedProvider(*each)
            server = await stack.enter_async_context(running(config_of(config, folder), provider))
            client = await stack.enter_async_context(connected(server))
            all_bridges.append(LimitedBridge(server, provider, client, folder))
        yield all_bridges


@pytest.mark.parametrize("technique", ["fixed", "sliding"])
@pytest.mark.usefixtures("wall")  # a fixed window ends with the clock's hour, be it in the middle of a test
async def test_events_at_several_bridges_do_not_exceed_one_limit(tmp_path: Path, redis: RedisServer, technique: str):
    text = RATE + f'rate_limiting_technique = "{technique}"'
    async with bridges(text, tmp_path, redis, [answers()] * 40, [answers()] * 40) as (one, other):
        codes = [*await one.codes(30), *await other.codes(30)]
        assert (codes.count(None), codes.count(2003)) == (40, 20)


async def test_attempts_at_several_bridges_count_in_one_window(tmp_path: Path, redis: RedisServer, wall: Wall):
    text = RATE.replace("= 40", "= 4")
    failing = [answers(status=500)] * 3
    async with bridges(text, tmp_path, redis, failing, failing[:1]) as (one, other):
        assert code(await one.call(step(maxAttempts=3, retryDelay=0))) == 500
        frame = await other.call([step(maxAttempts=3, retryDelay=0), step("groq")])
        assert code(frame) == 500
        assert [attempt["code"] for attempt in frame["metadata"]["attempts"]] == [500, 2003, 2003]


async def test_a_refusal_contains_the_wait_of_the_shared_window(tmp_path: Path, redis: RedisServer, wall: Wall):
    text = RATE.replace("= 40", "= 1")
    wall.advance(600)
    async with bridges(text, tmp_path, redis, [answers()], []) as (one, other):
        await one.call()
        assert (await other.call())["error"]["retryAfterMs"] == 3_000_001


async def test_a_refusal_contains_the_wait_of_a_shared_sliding_window(tmp_path: Path, redis: RedisServer):
    """It begins with its first hit, and moves by Redis's own clock."""
    text = RATE.replace("= 40", "= 1") + 'rate_limiting_technique = "sliding"'
    async with bridges(text, tmp_path, redis, [answers()], []) as (one, other):
        await one.call()
        assert 3_500_000 < (await other.call())["error"]["retryAfterMs"] <= 3_600_001


async def test_money_spent_by_one_bridge_is_spent_for_the_others(tmp_path: Path, redis: RedisServer, wall: Wall):
    async with bridges(OPEN + budget(), tmp_path, redis, [costing(0.6), costing(0.6)], [costing(0.1)]) as (one, other):
        assert [code(await one.call()) for _ in range(2)] == [None, None]
        frame = await settled(other, 2041)
        assert frame["error"]["retryAfterMs"] == 43_200_001
        wall.advance(43_200)
        assert code(await other.call()) is None


async def settled(bridge: LimitedBridge, expected: int) -> Frame:
    """What is spent reaches Redis a moment after its event's end; until then it is reserved."""
    while True:
        frame = await bridge.call()
        assert code(frame) == expected
        if frame["error"]["retryAfterMs"] != 1000:
            return frame


async def test_money_reserved_by_one_bridge_is_unavailable_to_others(tmp_path: Path, redis: RedisServer, wall: Wall):
    gate = asyncio.Event()
    slow = ScriptedResponse(before_head=[gate], body=[used(0.1)], content_type=JSON)
    async with bridges(OPEN + budget(), tmp_path, redis, [costing(0.5), slow], [costing(0.1)]) as (one, other):
        await one.call()
        running_ = await one.begin()
        await one.calls(2)
        frame = await other.call_that_waits()
        assert (code(frame), frame["error"]["retryAfterMs"]) == (2041, 1000)
        name = await other.begin()
        await turns(100)
        gate.set()
        assert code(await one.end(running_)) is None
        assert code(await other.end(name)) is None, "it waited for what the other bridge settled"


async def test_many_calls_at_several_bridges_do_not_exceed_a_budget(tmp_path: Path, redis: RedisServer, wall: Wall):
    gate = asyncio.Event()
    body = b'{"usage":{"prompt_tokens":3,"completion_tokens":2,"cost":2.0}}'
    slow = ScriptedResponse(before_head=[gate], body=[body], content_type=JSON)
    async with bridges(BARE + budget(), tmp_path, redis, [slow], []) as (one, other):
        first = await one.begin(step("openrouter"))
        await one.calls(1)
        names = [(runtime, await runtime.begin(step("openrouter"))) for runtime in (one, other) for _ in range(30)]
        await turns(200)
        gate.set()
        assert code(await one.end(first)) is None
        assert {code(await bridge.end(name)) for bridge, name in names} == {2041}


async def test_a_budget_in_redis_outlives_the_bridges(tmp_path: Path, redis: RedisServer, wall: Wall):
    async with bridges(OPEN + budget(), tmp_path, redis, [costing(1.0)]) as (one,):
        await one.call()
    async with bridges(OPEN + budget(), tmp_path, redis, []) as (other,):
        frame = await other.call()
        assert (code(frame), frame["error"]["retryAfterMs"]) == (2041, 43_200_001)


async def test_without_redis_each_bridge_continues_and_reports_spending_when_it_returns(
    tmp_path: Path, redis: RedisServer, wall: Wall
):
    free = [answers()] * 10_000
    async with bridges(
        OPEN + budget(), tmp_path, redis, [costing(0.3), costing(0.1), costing(0.3)], [costing(0.5), *free]
    ) as (one, other):
        for runtime in (one, other, one):
            await runtime.call()
        redis.freeze()
        assert [code(await one.call()) for _ in range(2)] == [None, 2041]
        redis.unfreeze()
        while code(await other.call()) is None:  # until it has heard of it
            pass
        assert (await settled(other, 2041))["error"]["retryAfterMs"] == 43_200_001


async def test_without_redis_each_bridge_counts_requests_on_its_own(tmp_path: Path, redis: RedisServer, wall: Wall):
    text = RATE.replace("= 40", "= 2")
    async with bridges(text, tmp_path, redis, [answers()] * 4, [answers()] * 2) as (one, other):
        assert [code(await one.call()) for _ in range(3)] == [None, None, 2003]
        redis.kill()
        assert [code(await other.call()) for _ in range(3)] == [None, None, 2003]
        redis.start()


async def test_a_bridge_that_never_reached_redis_enforces_limits(tmp_path: Path, redis: RedisServer, wall: Wall):
    redis.kill()
    text = RATE.replace("= 40", "= 2") + budget()
    async with bridges(text, tmp_path, redis, [costing(1.0)]) as (one,):
        assert [code(await one.call()) for _ in range(3)] == [None, 2041, 2003]
