"""Requests per window, counted in Redis for all processes by the package `limits`."""

import time

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter
from redis.asyncio import Redis

from bridge.config.limits import RateLimit
from bridge.services.limits.local import LocalRates
from bridge.services.limits.windows import number_of, wait_ms
from bridge.services.redis import RedisDown, RedisStore


class WindowRate(RateLimitItemPerSecond):
    """A rate whose counts survive a change of its limit; `limits` would start from 0."""

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return "/".join(map(str, (*identifiers, self.multiples)))


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
            await fixed.hit(item, name, window, cost=-1)  # a refused call must not count: a reload may raise the limit
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


def window_name(rate: RateLimit, now_s: float) -> str:
    """Return the number of the current clock window for a rate's key.

    `limits` itself starts a fixed window with its first hit.
    """
    return str(number_of(now_s, rate.interval_s))


def fixed_wait_ms(rate: RateLimit, now_s: float) -> int | None:
    """Return the milliseconds until a full fixed window ends."""
    return wait_ms("fixed", rate.limit, rate.interval_s, rate.interval_s - now_s % rate.interval_s, 0, rate.limit)


def sliding_wait_ms(rate: RateLimit, window: tuple[int, float, int, float]) -> int | None:
    """Return the milliseconds until a full sliding window has room.

    `window` is the result of `get_sliding_window`: count and remaining seconds of the previous window, then of the
    current one, which is kept for one more length.
    """
    before, _, current, kept_s = window
    left_s = max(0.0, kept_s - rate.interval_s)
    return wait_ms("sliding", rate.limit, rate.interval_s, left_s, before, current)
