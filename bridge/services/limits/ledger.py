"""Money spent, and money reserved for events in flight, per budget and window. Pure, in memory.

`now_s` is the wall clock in seconds since 1970.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bridge.config.limits import SpendRule
from bridge.services.limits.budgets import Budget, BudgetUsage, is_exhausted, refusal
from bridge.services.limits.windows import MAX_WINDOWS, WindowKey, WindowTable, weight_of, windows_at


class WindowTotals(NamedTuple):
    """US dollars spent and reserved in one window of one budget."""

    spent: float = 0.0
    reserved: float = 0.0


class BudgetReservation(NamedTuple):
    """The amount that one event has reserved in one window."""

    window: WindowKey
    window_s: int
    usd: float


class SpendLedger:
    """Totals by window, bounded in number."""

    def __init__(self, max_windows: int = MAX_WINDOWS) -> None:
        self._windows = WindowTable(WindowTotals(), max_windows)

    def __len__(self) -> int:
        return len(self._windows)

    def reserve(self, budgets: Sequence[Budget], usd: float, now_s: float) -> list[BudgetReservation]:
        """Reserve on all budgets or on none. Raises SpendLimit for the first that is exhausted."""
        reservations = []
        for budget in budgets:
            now, before = windows_of(budget, now_s)
            used = usage(budget.rule, self.totals(now), self.totals(before), now_s)
            if is_exhausted(budget, used):
                raise refusal(budget, used)
            reservations.append(BudgetReservation(now, budget.rule.window_s, usd))
        for reservation in reservations:
            self.add(reservation.window, 0.0, usd)
        return reservations

    def settle(self, settlements: Iterable[tuple[BudgetReservation, float]]) -> None:
        """Release each reservation and add the amount that was spent."""
        for reservation, spent in settlements:
            self.add(reservation.window, spent, -reservation.usd)

    def totals(self, key: WindowKey) -> WindowTotals:
        """Return the totals of a window."""
        return self._windows.get(key)

    def add(self, key: WindowKey, spent: float, reserved: float) -> None:
        """Add to the totals of a window. What was reserved never falls below 0."""
        totals = self._windows.get(key)
        self._windows.put(key, WindowTotals(totals.spent + spent, max(0.0, totals.reserved + reserved)))

    def learn(self, key: WindowKey, spent: float) -> None:
        """Set the spent amount to the authoritative value, which includes other processes."""
        self._windows.put(key, WindowTotals(spent, self._windows.get(key).reserved))


def windows_of(budget: Budget, now_s: float) -> tuple[WindowKey, WindowKey]:
    """Return the keys of the current and the previous window."""
    return windows_at(budget.key, budget.rule.window_s, now_s)


def reservations_of(budgets: Iterable[Budget], usd: float, now_s: float) -> list[BudgetReservation]:
    return [BudgetReservation(windows_of(budget, now_s)[0], budget.rule.window_s, usd) for budget in budgets]


def usage(rule: SpendRule, totals: WindowTotals, before: WindowTotals, now_s: float) -> BudgetUsage:
    into_s = now_s % rule.window_s
    weight = weight_of(rule.technique, into_s, rule.window_s)
    reserved = totals.reserved + before.reserved * weight
    return BudgetUsage(totals.spent, reserved, before.spent, weight, rule.window_s - into_s)
