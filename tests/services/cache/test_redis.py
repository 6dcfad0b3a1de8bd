"""The Redis store is shared by processes, and counts as empty while Redis is unreachable."""

import pytest

from bridge.services.cache import redis as redis_cache
from bridge.services.cache.redis import MAX_ANSWER_BYTES, MAX_UNWRITTEN_BYTES, RedisCacheStore
from bridge.services.cache.stored import FORMAT_VERSION
from bridge.services.redis import opened as redis_opened
from tests.support.clock import turns, until
from tests.support.redis_server import RedisServer
from tests.support.stored_answers import KEYS, of_size, stored

pytestmark = pytest.mark.needs("redis-server")


def name(key: bytes) -> str:
    return f"bridge:1:cache:{FORMAT_VERSION}:{key.hex()}"


async def test_stores_share_answers_until_they_expire(redis: RedisServer) -> None:
    async with redis_opened(redis.url, "bridge") as one, redis_opened(redis.url, "bridge") as other:
        async with redis_cache.open_redis_store(one) as store:
            assert await store.get(KEYS[0]) is None
            store.put(KEYS[0], stored(b"a", b"bc", ttl_s=60))
        reading = RedisCacheStore(other)
        assert await reading.get(KEYS[0]) == stored(b"a", b"bc", ttl_s=60)
        assert (store.faults, reading.faults) == (0, 0)
        lives_ms = int(redis.command("PTTL", name(KEYS[0]))[1:])
        assert 50_000 < lives_ms <= 60_000


async def test_an_undecodable_answer_is_not_found(redis: RedisServer) -> None:
    async with redis_opened(redis.url, "bridge") as shared, redis_cache.open_redis_store(shared) as store:
        redis.command("SET", name(KEYS[0]), "x")
        assert await store.get(KEYS[0]) is None
        assert store.faults == 1


async def test_a_large_answer_is_not_written_to_redis(redis: RedisServer) -> None:
    async with redis_opened(redis.url, "bridge") as shared, redis_cache.open_redis_store(shared) as store:
        store.put(KEYS[0], of_size(MAX_ANSWER_BYTES))
        await store.close()
        assert await store.get(KEYS[0]) is None
        assert store.faults == 0


async def test_without_redis_reads_miss_and_writes_are_dropped_at_once(redis: RedisServer) -> None:
    async with redis_opened(redis.url, "bridge") as shared, redis_cache.open_redis_store(shared) as store:
        redis.kill()
        assert await store.get(KEYS[0]) is None
        store.put(KEYS[0], stored())
        assert await store.get(KEYS[0]) is None
        assert store.faults == 3
        redis.start()
        await until(lambda: shared.is_up)
        store.put(KEYS[0], stored())
        await store.close()
        assert await store.get(KEYS[0]) == stored()


async def test_unwritten_answers_are_bounded(redis: RedisServer) -> None:
    async with redis_opened(redis.url, "bridge") as shared, redis_cache.open_redis_store(shared) as store:
        answer = of_size(2 << 20)
        fitting = MAX_UNWRITTEN_BYTES // answer.size_bytes
        for key in KEYS[: fitting + 3]:
            store.put(key, answer)
        assert store.faults == 3


async def test_answers_put_during_a_write_are_written(redis: RedisServer) -> None:
    async with redis_opened(redis.url, "bridge") as shared, redis_cache.open_redis_store(shared) as store:
        for key in KEYS[:150]:
            store.put(key, stored(key))
        await turns(5)
        store.put(KEYS[150], stored(KEYS[150]))
        await store.close()
        for key in KEYS[:151]:
            assert await store.get(key) == stored(key)
        store.put(KEYS[151], stored())
        await store.close()
        assert await store.get(KEYS[151]) == stored()
        assert store.faults == 0
