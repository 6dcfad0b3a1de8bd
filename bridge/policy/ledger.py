"""What was spent, and what is reserved for events in flight, window by window."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from bridge.config.limits import SpendRule
from bridge.policy.spending import Drawn, Purse, is_used_up, refusal
from bridge.policy.windows import number_of, weight_of

MAX_PAGES: Final = 65_536
"""A purse that nobody drew on for so many others is forgotten: clients may make up any number of them."""

PageKey: TypeAlias = tuple[str, int]
"""A purse's key, and the number of a window."""


@dataclass(slots=True)
class Page:
    """US dollars, in one window of one purse."""

    spent: float = 0.0
    reserved: float = 0.0


class Posting(NamedTuple):
    """What one event has reserved on one page."""

    page: PageKey
    window_s: int
    usd: float


class Ledger:
    """In memory. `now_s` is here and below the wall clock."""

    def __init__(self, most: int = MAX_PAGES) -> None:
        self._most = most
        self._pages: dict[PageKey, Page] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def reserve(self, purses: Sequence[Purse], usd: float, now_s: float) -> list[Posting]:
        """On each of them, or on none. Raises SpendLimit for the first that is used up."""
        postings = []
        for purse in purses:
            now, before = pages_of(purse, now_s)
            drawn = drawn_on(purse.rule, self.page(now), self.page(before), now_s)
            if is_used_up(purse, drawn):
                raise refusal(purse, drawn)
            postings.append(Posting(now, purse.rule.window_s, usd))
        for posting in postings:
            self.add(posting.page, 0.0, usd)
        return postings

    def settle(self, postings: Iterable[tuple[Posting, float]]) -> None:
        """Each with what was spent; what was reserved is free again."""
        for posting, spent in postings:
            self.add(posting.page, spent, -posting.usd)

    def page(self, key: PageKey) -> Page:
        """To be looked at."""
        return self._pages.get(key) or Page()

    def add(self, key: PageKey, spent: float, reserved: float) -> None:
        page = self._pages.pop(key, None) or Page()
        page.spent += spent
        page.reserved = max(0.0, page.reserved + reserved)
        self._put(key, page)

    def learn(self, key: PageKey, spent: float) -> None:
        """What was spent in truth, others having spent too."""
        page = self._pages.pop(key, None) or Page()
        page.spent = spent
        self._put(key, page)

    def _put(self, key: PageKey, page: Page) -> None:
        """It is the one that will be forgotten last. One that says nothing takes nobody's place: calls that fail are
        free, and could be made for any number of purses.
        """
        if page.spent or page.reserved:
            self._pages[key] = page
        if len(self._pages) > self._most:
            del self._pages[next(iter(self._pages))]


def pages_of(purse: Purse, now_s: float) -> tuple[PageKey, PageKey]:
    """Of the window of now, and of the one before."""
    number = number_of(now_s, purse.rule.window_s)
    return (purse.key, number), (purse.key, number - 1)


def postings_of(purses: Iterable[Purse], usd: float, now_s: float) -> list[Posting]:
    return [Posting(pages_of(purse, now_s)[0], purse.rule.window_s, usd) for purse in purses]


def drawn_on(rule: SpendRule, page: Page, before: Page, now_s: float) -> Drawn:
    into_s = now_s % rule.window_s
    weight = weight_of(rule.technique, into_s, rule.window_s)
    reserved = page.reserved + before.reserved * weight
    return Drawn(page.spent, reserved, before.spent, weight, rule.window_s - into_s)
