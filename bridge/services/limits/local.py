"""Rate counts and budgets in this process's memory: used without Redis, and while Redis is unavailable."""

import time
from collections.abc import Sequence

from limits import RateLimitItemPerSecond
from limits.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

from bridge.config.limits import RateLimit
from bridge.services.limits.budgets import Budget
from bridge.services.limits.counters import RateCounts
from bridge.services.limits.ledger import BudgetReservation, SpendLedger
from bridge.services.limits.windows import number_of, wait_ms


class WindowRate(RateLimitItemPerSecond):
    """A rate whose counts survive a change of its limit; `limits` would start from 0."""

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return "/".join(map(str, (*identifiers, self.multiples)))


class LocalRates:
    """Requests per window, counted in memory."""

    def __init__(self) -> None:
        self._counts = RateCounts()
        self._fixed = FixedWindowRateLimiter(self._counts)
        self._sliding = SlidingWindowCounterRateLimiter(self._counts)

    async def wait_ms(self, rate: RateLimit, name: str) -> int | None:
        item = WindowRate(rate.limit, rate.interval_s)
        if rate.technique == "fixed":
            now_s = time.time()
            window = window_name(rate, now_s)
            if self._fixed.hit(item, name, window):
                return None
            self._fixed.hit(item, name, window, cost=-1)  # a refused call must not count: a reload may raise the limit
            return fixed_wait_ms(rate, now_s)
        if self._sliding.hit(item, name):
            return None
        return sliding_wait_ms(rate, self._counts.get_sliding_window(item.key_for(name), rate.interval_s))


class LocalBudgets:
    """Budgets of one process, kept in a SpendLedger."""

    poll_s: float | None = None

    def __init__(self, ledger: SpendLedger) -> None:
        self._ledger = ledger

    async def reserve(self, budgets: Sequence[Budget], usd: float, now_s: float) -> list[BudgetReservation]:
        return self._ledger.reserve(budgets, usd, now_s)

    def settle(self, settlements: Sequence[tuple[BudgetReservation, float]]) -> None:
        self._ledger.settle(settlements)


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
