"""Rate counts and budgets in this process's memory: used without Redis, and while Redis is unavailable."""

import time
from collections.abc import Sequence
from math import floor

from bridge.config.limits import RateLimit
from bridge.services.limits.budgets import Budget
from bridge.services.limits.ledger import BudgetReservation, SpendLedger
from bridge.services.limits.windows import MAX_WINDOWS, WindowTable, wait_ms, weight_of, windows_at


class LocalRates:
    """Requests per window, counted in memory."""

    def __init__(self, max_windows: int = MAX_WINDOWS) -> None:
        self._counts = WindowTable(0, max_windows)

    async def wait_ms(self, rate: RateLimit, name: str) -> int | None:
        """Implement `RateCounter.wait_ms`. Counts continue when a reload changes the limit."""
        now_s = time.time()
        window, window_before = windows_at(f"{name}/{rate.technique}/{rate.interval_s}", rate.interval_s, now_s)
        count, count_before = self._counts.get(window), self._counts.get(window_before)
        into_s = now_s % rate.interval_s
        weighted = count + count_before * weight_of(rate.technique, into_s, rate.interval_s)
        if floor(weighted) < rate.limit:
            self._counts.put(window, count + 1)
            return None
        return wait_ms(rate.technique, rate.limit, rate.interval_s, rate.interval_s - into_s, count_before, count)


class LocalBudgets:
    """Budgets of one process, kept in a SpendLedger."""

    poll_s: float | None = None

    def __init__(self, ledger: SpendLedger) -> None:
        self._ledger = ledger

    async def reserve(self, budgets: Sequence[Budget], usd: float, now_s: float) -> list[BudgetReservation]:
        return self._ledger.reserve(budgets, usd, now_s)

    def settle(self, settlements: Sequence[tuple[BudgetReservation, float]]) -> None:
        self._ledger.settle(settlements)
