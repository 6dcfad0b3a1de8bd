"""Requests per window, counted in Redis for all processes by the package `limits`."""

import time

from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter
from redis.asyncio import Redis

from bridge.config.limits import RateLimit
from bridge.services.limits.local import LocalRates, WindowRate, fixed_wait_ms, sliding_wait_ms, window_name
from bridge.services.redis import RedisDown, RedisStore


class RedisRates:
    """Count in Redis; while it is unavailable, each process counts on its own, starting from 0."""

    def __init__(self, store: RedisStore, local: LocalRates) -> None:
        self._store = store
        self._local = local
        self._storage: RedisStorage | None = None

    async def wait_ms(self, rate: RateLimit, name: str) -> int | None:
        try:
            return await self._store.call(lambda redis: self._wait_ms(self._storage_on(redis), rate, name))
        except RedisDown:
            return await self._local.wait_ms(rate, name)

    async def _wait_ms(self, storage: RedisStorage, rate: RateLimit, name: str) -> int | None:
        item = WindowRate(rate.limit, rate.interval_s)
        if rate.technique == "fixed":
            now_s = time.time()
            fixed, window = FixedWindowRateLimiter(storage), window_name(rate, now_s)
            if await fixed.hit(item, name, window):
                return None
            await fixed.hit(item, name, window, cost=-1)  # as in LocalRates
            return fixed_wait_ms(rate, now_s)
        if await SlidingWindowCounterRateLimiter(storage).hit(item, name):
            return None
        return sliding_wait_ms(rate, await storage.get_sliding_window(item.key_for(name), rate.interval_s))

    def _storage_on(self, redis: Redis) -> RedisStorage:
        """Create the storage on the connection pool of the store, which bounds and watches all connections."""
        if self._storage is None:
            self._storage = RedisStorage(
                "async+redis://",
                implementation="redispy",
                key_prefix=self._store.key("rate"),
                connection_pool=redis.connection_pool,  # type: ignore[arg-type]  # documented, not annotated
            )
        return self._storage
