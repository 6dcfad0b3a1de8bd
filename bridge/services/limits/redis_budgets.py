"""Budgets that all processes draw on, in Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Final

from bridge.services.limits.budgets import Budget, refusal
from bridge.services.limits.ledger import (
    BudgetReservation,
    PageKey,
    SpendLedger,
    WindowTotals,
    reservations_of,
    usage,
    windows_of,
)
from bridge.services.limits.redis_scripts import Batch, Settled, SpendScripts
from bridge.services.redis import RedisDown, RedisStore
from bridge.tasks import Tasks

MAX_BATCH_PAGES: Final = 500
MAX_OWED_PAGES: Final = 65_536
"""While Redis is down; then the page that was owed first is given up."""
_POLL_S: Final = 0.2
"""How often the first event that waits for money looks for what other processes settled."""
_PAUSE_S: Final = 0.2
"""Before what failed is sent again: a Redis may be up, and yet refuse it."""


class RedisBudgets:
    """Asks Redis, and settles behind the events' backs: in batches, by one task, again and again until it is done.

    A copy in memory knows what Redis told last and what was spent here since. It is asked while Redis is down.
    """

    poll_s: float | None = _POLL_S

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._pages = SpendScripts(store)
        self._copy = SpendLedger()
        self._owed: dict[PageKey, Settled] = {}
        self._has_owed = asyncio.Event()
        self._sent: Batch | None = None
        """Of which nobody knows yet whether it was settled."""
        self._tasks = Tasks()

    async def reserve(self, budgets: Sequence[Budget], usd: float, now_s: float) -> list[BudgetReservation]:
        postings = reservations_of(budgets, usd, now_s)
        try:
            refused, pages = await self._pages.reserve(budgets, usd, now_s)
        except RedisDown:
            return self._copy.reserve(budgets, usd, now_s)
        except asyncio.CancelledError:
            self._queue_settlement((posting, 0.0) for posting in postings)  # it may have been made all the same
            raise
        for budget, known in zip(budgets, pages, strict=True):
            self._learn(budget, known, now_s)
        if refused is not None:
            budget = budgets[refused]
            raise refusal(budget, usage(budget.rule, *pages[refused], now_s))
        for reservation in postings:
            self._copy.add(reservation.page, 0.0, usd)
        return postings

    def settle(self, postings: Sequence[tuple[BudgetReservation, float]]) -> None:
        self._copy.settle(postings)
        self._queue_settlement(postings)

    def start(self) -> None:
        self._tasks.start(self._settle_all(), "settle spending")

    async def stop(self) -> None:
        """Settles what is owed, if Redis is there; else it is lost with the process."""
        await self._tasks.cancel_all()
        with suppress(RedisDown):
            while self._take():
                await self._send()

    def _learn(self, budget: Budget, known: tuple[WindowTotals, WindowTotals], now_s: float) -> None:
        for key, page in zip(windows_of(budget, now_s), known, strict=True):
            owed = self._owed.get(key)
            self._copy.learn(key, page.spent + (owed.spent if owed else 0.0))

    def _queue_settlement(self, postings: Iterable[tuple[BudgetReservation, float]]) -> None:
        for reservation, spent in postings:
            owed = self._owed.setdefault(reservation.page, Settled(reservation.window_s))
            owed.spent += spent
            owed.given_back += reservation.usd
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
            await self._store.wait_available()

    async def _send(self) -> None:
        assert self._sent is not None
        await self._pages.settle(self._sent)
        self._sent = None


@asynccontextmanager
async def redis_budgets(store: RedisStore) -> AsyncIterator[RedisBudgets]:
    spendings = RedisBudgets(store)
    spendings.start()
    try:
        yield spendings
    finally:
        await spendings.stop()
