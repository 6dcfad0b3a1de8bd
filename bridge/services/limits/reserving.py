"""Reserve money for events. An event waits while only the reservations of others exhaust its budget."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from bridge.errors import SpendLimit
from bridge.services.limits.budgets import Budget
from bridge.services.limits.ledger import BudgetReservation

WAIT_S: Final = 5.0
"""The longest time an event waits, for all of its budgets together."""
MAX_WAITING: Final = 1024
"""Events in one queue; more are refused at once."""


class BudgetStore(Protocol):
    @property
    def poll_s(self) -> float | None:
        """Interval at which to check for settlements of other processes; None if there are no other processes."""

    async def reserve(self, budgets: Sequence[Budget], usd: float, now_s: float) -> list[BudgetReservation]:
        """Reserve on all budgets or on none. Raises SpendLimit for the first that is exhausted."""

    def settle(self, settlements: Sequence[tuple[BudgetReservation, float]]) -> None:
        """Release each reservation and add the US dollars that were spent. Does not block."""


class _WaitQueue:
    """Events that wait for one budget. The first one tries again after each settlement."""

    def __init__(self) -> None:
        self.head = asyncio.Lock()  # asyncio.Lock is fair: first come, first served
        self.settled = asyncio.Event()
        self.length = 0


class Reservations:
    """Reserve in a budget store, with a wait queue for each budget."""

    def __init__(self, budgets: BudgetStore) -> None:
        self._budgets = budgets
        self._queues: dict[str, _WaitQueue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    async def reserve(self, budgets: Sequence[Budget], usd: float) -> list[BudgetReservation]:
        """Reserve on all budgets or on none.

        Raises SpendLimit: at once if the money is spent, after `WAIT_S` if it is only reserved.
        """
        try:
            return await self._budgets.reserve(budgets, usd, time.time())
        except SpendLimit as error:
            refused = error
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while refused.pending_budget:
                    result = await self._wait(refused, budgets, usd)
                    if not isinstance(result, SpendLimit):
                        return result
                    refused = result
        raise refused.without_traceback()

    def settle(self, settlements: Sequence[tuple[BudgetReservation, float]]) -> None:
        self._budgets.settle(settlements)
        self._wake(reservation.window[0] for reservation, _ in settlements)

    def _wake(self, keys: Iterable[str]) -> None:
        for key in keys:
            if (queue := self._queues.get(key)) is not None:
                queue.settled.set()

    async def _wait(
        self, refused: SpendLimit, budgets: Sequence[Budget], usd: float
    ) -> list[BudgetReservation] | SpendLimit:
        """Return the reservations, or the refusal of another budget or of one whose money is spent.

        Raises SpendLimit if the queue is full.
        """
        key = refused.pending_budget
        queue = self._queues.setdefault(key, _WaitQueue())
        if queue.length >= MAX_WAITING:
            raise refused.without_traceback()
        queue.length += 1
        try:
            async with queue.head:
                return await self._at_head(queue, key, budgets, usd)
        finally:
            queue.length -= 1
            if not queue.length:
                del self._queues[key]

    async def _at_head(
        self, queue: _WaitQueue, key: str, budgets: Sequence[Budget], usd: float
    ) -> list[BudgetReservation] | SpendLimit:
        while True:
            queue.settled.clear()
            try:
                return await self._budgets.reserve(budgets, usd, time.time())
            except SpendLimit as error:
                if error.pending_budget != key:
                    return error
            with suppress(TimeoutError):
                await asyncio.wait_for(queue.settled.wait(), self._budgets.poll_s)
