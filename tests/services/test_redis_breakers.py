"""An outage that one process has seen is known to the others; without Redis each sees for itself."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from bridge.policy.breaker import FAILURES, FIRST_INTERVAL_S, MAX_INTERVAL_S, MAX_KEYS_PER_TOKEN, BreakerKey, Breakers
from bridge.services.redis import RedisStore, opened
from bridge.services.redis_breakers import redis_breakers
from tests.support.clock import until
from tests.support.event_harness import step
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import ScriptedProvider, answers
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.needs("redis-server")

KEY = BreakerKey("gateway", "token", "https://api.openai.com", "gpt", "openai")
NO_MODEL = BreakerKey("gateway", "token", "https://api.openai.com", None, "openai")
ODD = BreakerKey("gateway", "", "https://api.openai.com", "\ud800", "openai")
WRITTEN = json.dumps(astuple(KEY))


@asynccontextmanager
async def process(redis: RedisServer) -> AsyncIterator[tuple[Breakers, RedisStore]]:
    """What one process has; it hears the others."""
    listeners = int(subscribers(redis))
    async with opened(redis.url, "bridge") as store, redis_breakers(store) as breakers:
        await until(lambda: int(subscribers(redis)) > listeners)
        yield breakers, store


def subscribers(redis: RedisServer) -> bytes:
    return redis.command("PUBSUB", "NUMSUB", "bridge:1:breakers:changes").split(b":")[-1]


def fail(breakers: Breakers, key: BreakerKey = KEY) -> None:
    now = asyncio.get_running_loop().time()
    for _ in range(FAILURES):
        breakers.failed(key, now, None)


def open_for(breakers: Breakers, key: BreakerKey = KEY) -> float:
    return breakers.due_at(key) - asyncio.get_running_loop().time()


@pytest.mark.parametrize("key", [KEY, NO_MODEL, ODD])
async def test_a_breaker_opens_and_closes_in_all_processes(redis: RedisServer, key: BreakerKey) -> None:
    async with process(redis) as (one, _), process(redis) as (other, _):
        fail(one, key)
        await until(lambda: len(other))
        assert FIRST_INTERVAL_S - 1 < open_for(other, key) <= FIRST_INTERVAL_S
        other.succeeded(key)
        await until(lambda: not len(one))


async def test_a_later_process_learns_open_breakers_and_their_duration(redis: RedisServer) -> None:
    async with process(redis) as (one, _):
        fail(one)
        fail(one, NO_MODEL)
        await until(lambda: b"gpt" in redis.command("ZRANGE", "bridge:1:breakers", "0", "-1"))
        await until(lambda: redis.command("ZCARD", "bridge:1:breakers") == b":2\r\n")
        one.answered(NO_MODEL)
        await until(lambda: redis.command("ZCARD", "bridge:1:breakers") == b":1\r\n")
        async with process(redis) as (late, _):
            await until(lambda: len(late))
            assert FIRST_INTERVAL_S - 2 < open_for(late) <= FIRST_INTERVAL_S
            assert late.due_at(NO_MODEL) == -math.inf
    assert redis.command("PTTL", "bridge:1:breakers") != b":-1\r\n", "it expires"


async def test_a_due_breaker_without_a_probe_stays_open(redis: RedisServer) -> None:
    due_long_ago_ms = 1_000 * (int(redis.command("TIME").split(b"\r\n")[2]) - 30)
    redis.command("ZADD", "bridge:1:breakers", str(due_long_ago_ms), WRITTEN)
    async with process(redis) as (late, _):
        await until(lambda: len(late))
        assert -31 < open_for(late) < -28
        assert late.acquire(KEY, asyncio.get_running_loop().time()) is not None, "its first call is a probe"


@pytest.mark.parametrize(
    "message", ["", "{}", "[1, 2]", '["x", "nothing", 1]', '["x", "[1]", "soon"]', '["x", "[[]]", 1]']
)
async def test_invalid_messages_on_the_channel_are_ignored(redis: RedisServer, message: str) -> None:
    async with process(redis) as (one, _):
        redis.command("PUBLISH", "bridge:1:breakers:changes", message)
        redis.command("PUBLISH", "bridge:1:breakers:changes", json.dumps(["other", WRITTEN, 9000]))
        await until(lambda: len(one))
        assert 8 < open_for(one) <= 9
        redis.command("PUBLISH", "bridge:1:breakers:changes", json.dumps(["other", WRITTEN, 9_000_000]))
        await until(lambda: open_for(one) > 9)
        assert open_for(one) <= MAX_INTERVAL_S


OF_ANOTHER_VERSION = '["gateway", "https://api.openai.com", "gpt", "openai"]'


@pytest.mark.parametrize(
    "member",
    ["", "no JSON", "7", "[[]]", "{}", OF_ANOTHER_VERSION, '["a", "b", "c", [], "e"]', '["a", "b", "c", 0, "e"]'],
)
async def test_invalid_members_of_the_set_are_ignored(redis: RedisServer, member: str) -> None:
    soon_ms = 1_000 * (int(redis.command("TIME").split(b"\r\n")[2]) + 60)
    redis.command("ZADD", "bridge:1:breakers", str(soon_ms), member)
    redis.command("ZADD", "bridge:1:breakers", str(soon_ms + 1), WRITTEN)
    async with process(redis) as (late, _), process(redis) as (one, _):
        await until(lambda: late.due_at(KEY) > 0)
        fail(one, NO_MODEL)
        await until(lambda: late.due_at(NO_MODEL) > 0)


async def test_a_breaker_open_for_two_tokens_in_two_processes_is_open_for_the_gateway(redis: RedisServer) -> None:
    of_other, of_third = replace(KEY, token="other"), replace(KEY, token="third")
    async with process(redis) as (one, _), process(redis) as (other, _):
        fail(one)
        await until(lambda: len(other))
        assert other.due_at(of_third) == -math.inf
        fail(other, of_other)
        assert open_for(other, of_third) > 0
        await until(lambda: len(one) == 2)
        assert open_for(one, of_third) > 0


async def test_an_evicted_key_is_removed_from_redis(redis: RedisServer) -> None:
    async with process(redis) as (one, _):
        for number in range(MAX_KEYS_PER_TOKEN + 20):
            fail(one, replace(KEY, model=str(number)))
        await until(lambda: redis.command("ZCARD", "bridge:1:breakers") == b":%d\r\n" % MAX_KEYS_PER_TOKEN)


async def test_without_redis_breakers_are_local_and_are_shared_again_afterwards(redis: RedisServer) -> None:
    async with process(redis) as (one, first), process(redis) as (other, second):
        redis.kill()
        await until(lambda: not first.is_up and not second.is_up)
        fail(one)
        assert len(one) == 1
        redis.start()
        await asyncio.gather(first.wait_available(), second.wait_available())
        await until(lambda: int(subscribers(redis)) == 2)
        assert not len(other)
        fail(one, NO_MODEL)
        await until(lambda: len(other))


async def test_an_outage_found_by_one_bridge_is_skipped_by_the_other(redis: RedisServer, tmp_path: Path) -> None:
    """Over real sockets, with the setting redis_url: five failures here, and the other bridge goes to the fallback."""
    failing = [answers(status=500) for _ in range(FAILURES)]
    steps = [step("openai"), step("groq")]
    config = config_of(f'[server]\nredis_url = "{redis.url}"\n', tmp_path)
    provider, healthy = ScriptedProvider(*failing), ScriptedProvider(answers())
    async with running(config, provider) as one, running(config, healthy) as other:
        await until(lambda: int(subscribers(redis)) == 2)
        async with connected(one) as client:
            for number in range(FAILURES):
                await client.call({"eventId": number, **step("openai")})
        await until(lambda: redis.command("ZCARD", "bridge:1:breakers") == b":1\r\n")
        async with connected(other) as client:
            [*_, last] = await client.call({"eventId": "a", "steps": steps})
    assert (last["metadata"]["step"], last["metadata"]["success"]) == ("1", True)
