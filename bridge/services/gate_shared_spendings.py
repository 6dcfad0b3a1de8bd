"""Budgets that all processes draw on, in Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Final

from bridge.policy.ledger import Ledger, Page, PageKey, Posting, drawn_on, pages_of, postings_of
from bridge.policy.spending import Purse, refusal
from bridge.storage.redis import RedisDown, SharedStore
from bridge.storage.spend_pages import Batch, Settled, SpendPages
from bridge.tasks import Tasks

MAX_BATCH_PAGES: Final = 500
MAX_OWED_PAGES: Final = 65_536
"""While Redis is down; then the page that was owed first is given up."""
_POLL_S: Final = 0.2
"""How often the first event that waits for money looks for what other processes settled."""
_PAUSE_S: Final = 0.2
"""Before what failed is sent again: a Redis may be up, and yet refuse it."""


class SharedSpendings:
    """Asks Redis, and settles behind the events' backs: in batches, by one task, again and again until it is done.

    A copy in memory knows what Redis told last and what was spent here since. It is asked while Redis is down.
    """

    poll_s: float | None = _POLL_S

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self._pages = SpendPages(store)
        self._copy = Ledger()
        self._owed: dict[PageKey, Settled] = {}
        self._has_owed = asyncio.Event()
        self._sent: Batch | None = None
        """Of which nobody knows yet whether it was settled."""
        self._tasks = Tasks()

    async def reserve(self, purses: Sequence[Purse], usd: float, now_s: float) -> list[Posting]:
        postings = postings_of(purses, usd, now_s)
        try:
            refused, pages = await self._pages.reserve(purses, usd, now_s)
        except RedisDown:
            return self._copy.reserve(purses, usd, now_s)
        except asyncio.CancelledError:
            self._owe((posting, 0.0) for posting in postings)  # it may have been made all the same
            raise
        for purse, known in zip(purses, pages, strict=True):
            self._learn(purse, known, now_s)
        if refused is not None:
            purse = purses[refused]
            raise refusal(purse, drawn_on(purse.rule, *pages[refused], now_s))
        for posting in postings:
            self._copy.add(posting.page, 0.0, usd)
        return postings

    def settle(self, postings: Sequence[tuple[Posting, float]]) -> None:
        self._copy.settle(postings)
        self._owe(postings)

    def start(self) -> None:
        self._tasks.start(self._settle_all(), "settle spending")

    async def stop(self) -> None:
        """Settles what is owed, if Redis is there; else it is lost with the process."""
        await self._tasks.end_all()
        with suppress(RedisDown):
            while self._take():
                await self._send()

    def _learn(self, purse: Purse, known: tuple[Page, Page], now_s: float) -> None:
        for key, page in zip(pages_of(purse, now_s), known, strict=True):
            owed = self._owed.get(key)
            self._copy.learn(key, page.spent + (owed.spent if owed else 0.0))

    def _owe(self, postings: Iterable[tuple[Posting, float]]) -> None:
        for posting, spent in postings:
            owed = self._owed.setdefault(posting.page, Settled(posting.window_s))
            owed.spent += spent
            owed.given_back += posting.usd
        while len(self._owed) > MAX_OWED_PAGES:
            del self._owed[next(iter(self._owed))]
        self._has_owed.set()

    async def _settle_all(self) -> None:
        while True:
            await self._has_owed.wait()
            self._has_owed.clear()
            while self._take():
                await self._send_until_done()

    def _take(self) -> bool:
        """Whether there is a batch to send: the one that is doubtful first."""
        if self._sent is None and self._owed:
            keys = list(islice(self._owed, MAX_BATCH_PAGES))
            self._sent = Batch({key: self._owed.pop(key) for key in keys})
        return self._sent is not None

    async def _send_until_done(self) -> None:
        while True:
            with suppress(RedisDown):
                await self._send()
                return
            await asyncio.sleep(_PAUSE_S)
            await self._store.found()

    async def _send(self) -> None:
        assert self._sent is not None
        await self._pages.settle(self._sent)
        self._sent = None


@asynccontextmanager
async def shared_spendings(store: SharedStore) -> AsyncIterator[SharedSpendings]:
    spendings = SharedSpendings(store)
    spendings.start()
    try:
        yield spendings
    finally:
        await spendings.stop()
