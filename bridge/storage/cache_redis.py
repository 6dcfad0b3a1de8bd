"""The cache in the Redis that processes and machines share. While it is away the cache holds what memory holds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bridge.storage.cache_answer import FORM, Stored, decode, encode
from bridge.storage.redis import RedisDown, SharedStore
from bridge.tasks import Tasks

MAX_ANSWER_BYTES: Final = 4 << 20
"""Larger ones stay in the process's memory: to fetch one would take longer than Redis may take for a command."""
MAX_UNWRITTEN_BYTES: Final = 64 << 20


class RedisStore:
    """A `Store`. `opened` makes one. How much it holds, and what goes first, is for Redis's own configuration to say:
    `maxmemory` and `maxmemory-policy`."""

    def __init__(self, redis: SharedStore) -> None:
        self._redis = redis
        self._tasks = Tasks()
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
        # A task, for nobody is to wait: the event is over for its client.
        self._tasks.start(self._put(key, stored, size), "cache put")

    async def close(self) -> None:
        """Returns when all that was put is written, or is not going to be."""
        await self._tasks.wait_all()

    async def _put(self, key: bytes, stored: Stored, size: int) -> None:
        try:
            data, kept_ms = encode(stored), round(stored.kept_s * 1000)
            await self._redis.call(lambda redis: redis.set(self._name(key), data, px=kept_ms))
        except RedisDown:
            self.faults += 1
        finally:
            self._unwritten_bytes -= size

    def _name(self, key: bytes) -> str:
        return self._redis.key("cache", str(FORM), key.hex())


@asynccontextmanager
async def opened(redis: SharedStore) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis)
    try:
        yield store
    finally:
        await store.close()
