"""Budgets shared by all processes, in Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Final

from bridge.services.limits.budgets import Budget, refusal
from bridge.services.limits.ledger import (
    BudgetReservation,
    SpendLedger,
    WindowTotals,
    reservations_of,
    usage,
    windows_of,
)
from bridge.services.limits.redis_scripts import Batch, Settled, SpendScripts
from bridge.services.limits.windows import WindowKey
from bridge.services.redis import RedisDown, RedisStore
from bridge.tasks import Tasks

MAX_BATCH_WINDOWS: Final = 500
MAX_UNSENT_WINDOWS: Final = 65_536
"""Settlements kept while Redis is unavailable; the oldest is dropped first."""
_POLL_S: Final = 0.2
"""Interval at which the first waiting event checks for settlements of other processes."""
_PAUSE_S: Final = 0.2
"""Delay before a failed batch is sent again: Redis may be available and still refuse it."""


class RedisBudgets:
    """Reserve in Redis; settle in batches from one background task, which retries until Redis confirms.

    A local copy holds the totals last received from Redis plus what this process has spent since. It decides while
    Redis is unavailable.
    """

    poll_s: float | None = _POLL_S

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._scripts = SpendScripts(store)
        self._copy = SpendLedger()
        self._unsent: dict[WindowKey, Settled] = {}
        self._has_unsent = asyncio.Event()
        self._sent: Batch | None = None
        """The batch whose settlement is not confirmed yet."""
        self._tasks = Tasks()

    async def reserve(self, budgets: Sequence[Budget], usd: float, now_s: float) -> list[BudgetReservation]:
        reservations = reservations_of(budgets, usd, now_s)
        try:
            refused, totals = await self._scripts.reserve(budgets, usd, now_s)
        except RedisDown:
            return self._copy.reserve(budgets, usd, now_s)
        except asyncio.CancelledError:
            self._queue_settlement(
                (reservation, 0.0) for reservation in reservations
            )  # Redis may have made the reservation
            raise
        for budget, received in zip(budgets, totals, strict=True):
            self._learn(budget, received, now_s)
        if refused is not None:
            budget = budgets[refused]
            raise refusal(budget, usage(budget.rule, *totals[refused], now_s))
        for reservation in reservations:
            self._copy.add(reservation.window, 0.0, usd)
        return reservations

    def settle(self, settlements: Sequence[tuple[BudgetReservation, float]]) -> None:
        self._copy.settle(settlements)
        self._queue_settlement(settlements)

    def start(self) -> None:
        self._tasks.start(self._settle_all(), "settle spending")

    async def stop(self) -> None:
        """Send the remaining settlements if Redis is available; otherwise they are lost with the process."""
        await self._tasks.cancel_all()
        with suppress(RedisDown):
            while self._next_batch():
                await self._send()

    def _learn(self, budget: Budget, received: tuple[WindowTotals, WindowTotals], now_s: float) -> None:
        for key, window_totals in zip(windows_of(budget, now_s), received, strict=True):
            unsent = self._unsent.get(key)
            self._copy.learn(key, window_totals.spent + (unsent.spent if unsent else 0.0))

    def _queue_settlement(self, settlements: Iterable[tuple[BudgetReservation, float]]) -> None:
        for reservation, spent in settlements:
            unsent = self._unsent.setdefault(reservation.window, Settled(reservation.window_s))
            unsent.spent += spent
            unsent.released += reservation.usd
        while len(self._unsent) > MAX_UNSENT_WINDOWS:
            del self._unsent[next(iter(self._unsent))]
        self._has_unsent.set()

    async def _settle_all(self) -> None:
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            while self._next_batch():
                await self._send_until_done()

    def _next_batch(self) -> bool:
        """Return True if there is a batch to send. An unconfirmed batch is sent first."""
        if self._sent is None and self._unsent:
            keys = list(islice(self._unsent, MAX_BATCH_WINDOWS))
            self._sent = Batch({key: self._unsent.pop(key) for key in keys})
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
        await self._scripts.settle(self._sent)
        self._sent = None


@asynccontextmanager
async def redis_budgets(store: RedisStore) -> AsyncIterator[RedisBudgets]:
    """Run the budgets and their settlement task."""
    budgets = RedisBudgets(store)
    budgets.start()
    try:
        yield budgets
    finally:
        await budgets.stop()
