"""Money spent, and money reserved for events in flight, per budget and window. Pure, in memory.

`now_s` is the wall clock in seconds since 1970.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from bridge.config.limits import SpendRule
from bridge.services.limits.budgets import Budget, BudgetUsage, is_exhausted, refusal
from bridge.services.limits.windows import number_of, weight_of

MAX_WINDOWS: Final = 65_536
"""Windows kept. The least recently used is evicted, because clients can create any number of budgets."""

WindowKey: TypeAlias = tuple[str, int]
"""A budget's key, and the number of a window."""


@dataclass(slots=True)
class WindowTotals:
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
        self._max_windows = max_windows
        self._windows: dict[WindowKey, WindowTotals] = {}

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
        """Return the totals of a window, for reading only."""
        return self._windows.get(key) or WindowTotals()

    def add(self, key: WindowKey, spent: float, reserved: float) -> None:
        window = self._windows.pop(key, None) or WindowTotals()
        window.spent += spent
        window.reserved = max(0.0, window.reserved + reserved)
        self._put(key, window)

    def learn(self, key: WindowKey, spent: float) -> None:
        """Set the spent amount to the authoritative value, which includes other processes."""
        window = self._windows.pop(key, None) or WindowTotals()
        window.spent = spent
        self._put(key, window)

    def _put(self, key: WindowKey, totals: WindowTotals) -> None:
        """Store totals as the most recently used.

        Empty totals are not stored: failed calls cost nothing and could otherwise evict the totals of others.
        """
        if totals.spent or totals.reserved:
            self._windows[key] = totals
        if len(self._windows) > self._max_windows:
            del self._windows[next(iter(self._windows))]


def windows_of(budget: Budget, now_s: float) -> tuple[WindowKey, WindowKey]:
    """Return the keys of the current and the previous window."""
    number = number_of(now_s, budget.rule.window_s)
    return (budget.key, number), (budget.key, number - 1)


def reservations_of(budgets: Iterable[Budget], usd: float, now_s: float) -> list[BudgetReservation]:
    return [BudgetReservation(windows_of(budget, now_s)[0], budget.rule.window_s, usd) for budget in budgets]


def usage(rule: SpendRule, totals: WindowTotals, before: WindowTotals, now_s: float) -> BudgetUsage:
    into_s = now_s % rule.window_s
    weight = weight_of(rule.technique, into_s, rule.window_s)
    reserved = totals.reserved + before.reserved * weight
    return BudgetUsage(totals.spent, reserved, before.spent, weight, rule.window_s - into_s)
