"""What was spent, and what is reserved for events in flight, window by window."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from bridge.config.limits import SpendRule
from bridge.services.limits.budgets import Budget, BudgetUsage, is_exhausted, refusal
from bridge.services.limits.windows import number_of, weight_of

MAX_PAGES: Final = 65_536
"""A purse that nobody drew on for so many others is forgotten: clients may make up any number of them."""

PageKey: TypeAlias = tuple[str, int]
"""A purse's key, and the number of a window."""


@dataclass(slots=True)
class WindowTotals:
    """US dollars, in one window of one purse."""

    spent: float = 0.0
    reserved: float = 0.0


class BudgetReservation(NamedTuple):
    """What one event has reserved on one page."""

    page: PageKey
    window_s: int
    usd: float


class SpendLedger:
    """In memory. `now_s` is here and below the wall clock."""

    def __init__(self, most: int = MAX_PAGES) -> None:
        self._most = most
        self._pages: dict[PageKey, WindowTotals] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def reserve(self, budgets: Sequence[Budget], usd: float, now_s: float) -> list[BudgetReservation]:
        """On each of them, or on none. Raises SpendLimit for the first that is used up."""
        postings = []
        for budget in budgets:
            now, before = windows_of(budget, now_s)
            drawn = usage(budget.rule, self.totals(now), self.totals(before), now_s)
            if is_exhausted(budget, drawn):
                raise refusal(budget, drawn)
            postings.append(BudgetReservation(now, budget.rule.window_s, usd))
        for reservation in postings:
            self.add(reservation.page, 0.0, usd)
        return postings

    def settle(self, postings: Iterable[tuple[BudgetReservation, float]]) -> None:
        """Each with what was spent; what was reserved is free again."""
        for reservation, spent in postings:
            self.add(reservation.page, spent, -reservation.usd)

    def totals(self, key: PageKey) -> WindowTotals:
        """To be looked at."""
        return self._pages.get(key) or WindowTotals()

    def add(self, key: PageKey, spent: float, reserved: float) -> None:
        page = self._pages.pop(key, None) or WindowTotals()
        page.spent += spent
        page.reserved = max(0.0, page.reserved + reserved)
        self._put(key, page)

    def learn(self, key: PageKey, spent: float) -> None:
        """What was spent in truth, others having spent too."""
        page = self._pages.pop(key, None) or WindowTotals()
        page.spent = spent
        self._put(key, page)

    def _put(self, key: PageKey, totals: WindowTotals) -> None:
        """It is the one that will be forgotten last. One that says nothing takes nobody's place: calls that fail are
        free, and could be made for any number of purses.
        """
        if totals.spent or totals.reserved:
            self._pages[key] = totals
        if len(self._pages) > self._most:
            del self._pages[next(iter(self._pages))]


def windows_of(budget: Budget, now_s: float) -> tuple[PageKey, PageKey]:
    """Of the window of now, and of the one before."""
    number = number_of(now_s, budget.rule.window_s)
    return (budget.key, number), (budget.key, number - 1)


def reservations_of(budgets: Iterable[Budget], usd: float, now_s: float) -> list[BudgetReservation]:
    return [BudgetReservation(windows_of(budget, now_s)[0], budget.rule.window_s, usd) for budget in budgets]


def usage(rule: SpendRule, totals: WindowTotals, before: WindowTotals, now_s: float) -> BudgetUsage:
    into_s = now_s % rule.window_s
    weight = weight_of(rule.technique, into_s, rule.window_s)
    reserved = totals.reserved + before.reserved * weight
    return BudgetUsage(totals.spent, reserved, before.spent, weight, rule.window_s - into_s)
