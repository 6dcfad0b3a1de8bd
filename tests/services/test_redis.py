"""Redis may be lost at any time: no command waits, each change is logged once, and it is found again."""

import asyncio
import logging
import time
from pathlib import Path

import pytest

from bridge.services.redis import RedisDown, RedisStore, opened
from tests.support.clock import until
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.needs("redis-server")


async def ping(store: RedisStore) -> object:
    return await store.call(lambda redis: redis.ping())


async def fails_at_once(store: RedisStore) -> None:
    """A command is refused in one step, without waiting for anything."""
    command = asyncio.ensure_future(ping(store))
    await asyncio.sleep(0)
    assert command.done()
    with pytest.raises(RedisDown):
        command.result()


async def fails(store: RedisStore) -> float:
    """How long a command took to be refused."""
    began_at = time.monotonic()
    with pytest.raises(RedisDown):
        await ping(store)
    return time.monotonic() - began_at


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message.split(";")[0] for record in caplog.records if record.name == "bridge.redis"]


async def test_commands_and_scripts_are_answered(redis: RedisServer) -> None:
    async with opened(redis.url, "bridge") as store:
        key = store.key("a", "b")
        add = store.script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        assert await add([key], [2]) == 2
        assert await add([key], [3]) == 5
        assert redis.command("GET", "bridge:1:a:b") == b"$1\r\n5\r\n"
        assert store.is_up


async def test_after_a_loss_no_command_waits_and_each_change_is_logged_once(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with opened(redis.url, "bridge") as store:
        await ping(store)
        redis.kill()
        await fails(store)
        for _ in range(100):
            await fails_at_once(store)
        assert (store.is_up, store.failed_calls) == (False, 101)
        await until(lambda: store.losses)
        redis.start()
        await store.wait_available()
        await ping(store)
        assert store.losses == 1
    assert messages(caplog) == ["Redis unreachable", "Redis reachable again"]


async def test_a_silent_redis_is_lost_after_the_time_limit(redis: RedisServer) -> None:
    async with opened(redis.url, "bridge") as store:
        redis.freeze()
        waits = await asyncio.gather(*(fails(store) for _ in range(200)))
        assert max(waits) < 2
        await fails_at_once(store)
        redis.unfreeze()
        await store.wait_available()
        await ping(store)


async def test_a_bridge_starts_without_redis_and_finds_it_later(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    redis.kill()
    async with opened(redis.url, "bridge") as store:
        assert not store.is_up
        await fails(store)
        redis.start()
        await store.wait_available()
        await ping(store)
    assert messages(caplog) == ["Redis unreachable", "Redis reachable again"]


async def test_a_loss_is_noticed_without_commands(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.services.redis.CHECK_S", 0.01)
    async with opened(redis.url, "bridge") as store:
        redis.kill()
        await until(lambda: not store.is_up)
        assert store.failed_calls == 0


async def test_a_redis_that_refuses_writes_counts_as_lost(redis: RedisServer) -> None:
    async with opened(redis.url, "bridge") as store:
        redis.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(RedisDown):
            await store.call(lambda client: client.set("a", "b"))
        await until(lambda: store.losses)
        redis.command("CONFIG", "SET", "maxmemory", "0")
        await store.wait_available()


async def test_a_refused_command_is_logged_once_and_loses_nothing(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with opened(redis.url, "bridge") as store:
        wrong = store.script("return redis.call('NOSUCHCOMMAND')")
        for _ in range(3):
            with pytest.raises(RedisDown):
                await wrong([], [])
            await store.wait_available()
        assert store.losses == 0
    assert messages(caplog) == ["Redis refused a command"]


async def test_scripts_are_loaded_again_after_redis_lost_them(redis: RedisServer) -> None:
    async with opened(redis.url, "bridge") as store:
        one = store.script("return 1")
        await one([], [])
        redis.command("SCRIPT", "FLUSH")
        assert await one([], []) == 1


@pytest.mark.parametrize("url", ["http://localhost", "redis://localhost:x", "nonsense"])
async def test_an_invalid_url_is_reported_before_connecting(url: str) -> None:
    with pytest.raises(ValueError):
        RedisStore(url, "bridge")


async def test_a_wrong_password_is_a_loss_and_is_not_shown(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    redis.command("CONFIG", "SET", "requirepass", "right")
    async with opened(f"{redis.url}?password=wrong-secret", "bridge") as store:
        await fails(store)
        assert not store.is_up
    assert "wrong-secret" not in caplog.text
    async with opened(f"{redis.url}?password=right", "bridge") as store:
        await ping(store)
