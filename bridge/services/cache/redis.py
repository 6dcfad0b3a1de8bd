"""The cache in the Redis that processes and machines share. While it is away the cache holds what memory holds."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Final

from redis.asyncio import Redis

from bridge.services.cache.stored import FORM, Stored, decode, encode
from bridge.services.redis import RedisDown, RedisStore
from bridge.tasks import Tasks

MAX_ANSWER_BYTES: Final = 4 << 20
"""Larger ones stay in the process's memory: to fetch one would take longer than Redis may take for a command."""
MAX_UNWRITTEN_BYTES: Final = 64 << 20
MAX_BATCH: Final = 64
"""Answers that are written together."""

Kept = tuple[bytes, Stored]


class RedisCacheStore:
    """A `Store`. `opened` makes one. How much it holds, and what goes first, is for Redis's own configuration to say:
    `maxmemory` and `maxmemory-policy`."""

    def __init__(self, redis: RedisStore) -> None:
        self._redis = redis
        self._tasks = Tasks()
        self._unwritten: deque[Kept] = deque()
        self._unwritten_bytes = 0
        self.evictions = 0
        self.faults = 0

    async def get(self, key: bytes) -> Stored | None:
        try:
            data = await self._redis.call(lambda redis: redis.get(self._name(key)))
            return decode(data) if isinstance(data, bytes) else None
        except (RedisDown, ValueError):
            self.faults += 1
            return None

    def put(self, key: bytes, stored: Stored) -> None:
        size = stored.size_bytes
        if size > MAX_ANSWER_BYTES:
            return
        if not self._redis.is_up or self._unwritten_bytes + size > MAX_UNWRITTEN_BYTES:
            self.faults += 1
            return
        self._unwritten_bytes += size
        self._unwritten.append((key, stored))
        if len(self._unwritten) == 1:
            # A task, for nobody is to wait: the event is over for its client.
            self._tasks.start(self._write(), "cache write")

    async def close(self) -> None:
        """Returns when all that was put is written, or is not going to be."""
        await self._tasks.wait_all()

    async def _write(self) -> None:
        """All that is to be written, and what comes meanwhile. The first of the line stays in it until it is written:
        so there is one writer."""
        while self._unwritten:
            batch = self._batch()
            try:
                await self._redis.call(partial(self._send, batch))
            except RedisDown:
                self.faults += len(batch)
            for _, stored in batch:
                self._unwritten.popleft()
                self._unwritten_bytes -= stored.size_bytes

    def _batch(self) -> list[Kept]:
        """The first ones of the line, as many as one command's time is enough for."""
        batch: list[Kept] = []
        size = 0
        for kept in islice(self._unwritten, MAX_BATCH):
            size += kept[1].size_bytes
            if batch and size > MAX_ANSWER_BYTES:
                break
            batch.append(kept)
        return batch

    async def _send(self, batch: list[Kept], redis: Redis) -> None:
        async with redis.pipeline(transaction=False) as sending:
            for key, stored in batch:
                sending.set(self._name(key), encode(stored), px=round(stored.kept_s * 1000))
            await sending.execute()

    def _name(self, key: bytes) -> str:
        return self._redis.key("cache", str(FORM), key.hex())


@asynccontextmanager
async def opened(redis: RedisStore) -> AsyncIterator[RedisCacheStore]:
    store = RedisCacheStore(redis)
    try:
        yield store
    finally:
        await store.close()
