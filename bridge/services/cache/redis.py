"""A cache store in the Redis that processes and machines share. While Redis is unreachable, only memory is used."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Final

from redis.asyncio import Redis

from bridge.services.cache.stored import FORMAT_VERSION, StoredAnswer, decode, encode
from bridge.services.redis import RedisDown, RedisStore
from bridge.tasks import Tasks

MAX_ANSWER_BYTES: Final = 4 << 20
"""Larger answers stay in the process's memory: reading one would exceed the timeout of a Redis command."""
MAX_UNWRITTEN_BYTES: Final = 64 << 20
MAX_BATCH: Final = 64
"""Answers written in one pipeline."""

KeyedAnswer = tuple[bytes, StoredAnswer]


class RedisCacheStore:
    """Implements `Store`; made by `open_redis_store`. Redis's own `maxmemory` and `maxmemory-policy` bound its size."""

    def __init__(self, redis: RedisStore) -> None:
        self._redis = redis
        self._tasks = Tasks()
        self._unwritten: deque[KeyedAnswer] = deque()
        self._unwritten_bytes = 0
        self.evictions = 0
        self.faults = 0

    async def get(self, key: bytes) -> StoredAnswer | None:
        try:
            data = await self._redis.call(lambda redis: redis.get(self._name(key)))
            return decode(data) if isinstance(data, bytes) else None
        except (RedisDown, ValueError):
            self.faults += 1
            return None

    def put(self, key: bytes, stored: StoredAnswer) -> None:
        size = stored.size_bytes
        if size > MAX_ANSWER_BYTES:
            return
        if not self._redis.is_up or self._unwritten_bytes + size > MAX_UNWRITTEN_BYTES:
            self.faults += 1
            return
        self._unwritten_bytes += size
        self._unwritten.append((key, stored))
        if len(self._unwritten) == 1:
            # The event has ended for its client, so nothing waits for this write.
            self._tasks.start(self._write(), "cache write")

    async def close(self) -> None:
        """Return when every answer that was put is written or has failed."""
        await self._tasks.wait_all()

    async def _write(self) -> None:
        """Write until nothing waits. A batch leaves the queue after its write, so `put` starts no second writer."""
        while self._unwritten:
            batch = self._batch()
            try:
                await self._redis.call(partial(self._send, batch))
            except RedisDown:
                self.faults += len(batch)
            for _, stored in batch:
                self._unwritten.popleft()
                self._unwritten_bytes -= stored.size_bytes

    def _batch(self) -> list[KeyedAnswer]:
        """Return the oldest waiting answers, as many as fit the timeout of one command."""
        batch: list[KeyedAnswer] = []
        size = 0
        for keyed in islice(self._unwritten, MAX_BATCH):
            size += keyed[1].size_bytes
            if batch and size > MAX_ANSWER_BYTES:
                break
            batch.append(keyed)
        return batch

    async def _send(self, batch: list[KeyedAnswer], redis: Redis) -> None:
        async with redis.pipeline(transaction=False) as pipeline:
            for key, stored in batch:
                pipeline.set(self._name(key), encode(stored), px=round(stored.ttl_s * 1000))
            await pipeline.execute()

    def _name(self, key: bytes) -> str:
        return self._redis.key("cache", str(FORMAT_VERSION), key.hex())


@asynccontextmanager
async def open_redis_store(redis: RedisStore) -> AsyncIterator[RedisCacheStore]:
    store = RedisCacheStore(redis)
    try:
        yield store
    finally:
        await store.close()
