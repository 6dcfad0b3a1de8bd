"""Reserves money for events; an event that the reservations of others keep out waits for them to be settled."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from bridge.errors import SpendLimit
from bridge.services.limits.budgets import Budget
from bridge.services.limits.ledger import BudgetReservation

WAIT_S: Final = 5.0
"""How long an event waits at most, for all of its budgets together."""
MAX_WAITING: Final = 1024
"""Events in one line; one more is refused at once."""


class BudgetStore(Protocol):
    @property
    def poll_s(self) -> float | None:
        """How often to look for what other processes settled; None where there are none."""

    async def reserve(self, drawn_on: Sequence[Budget], usd: float, now_s: float) -> list[BudgetReservation]:
        """On each of them, or none. Raises SpendLimit for the first that is used up."""

    def settle(self, postings: Sequence[tuple[BudgetReservation, float]]) -> None:
        """Each with the US dollars that were spent; what was reserved is free again. Cannot block."""


class _Line:
    """Events that wait for one purse. The one at its head looks again whenever something was settled."""

    def __init__(self) -> None:
        self.head = asyncio.Lock()  # which is fair: first come, first served
        self.settled = asyncio.Event()
        self.length = 0


class Reservations:
    def __init__(self, spendings: BudgetStore) -> None:
        self._spendings = spendings
        self._lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    async def reserve(self, budgets: Sequence[Budget], usd: float) -> list[BudgetReservation]:
        """On each of them, or none. Raises SpendLimit: at once where money is spent, else after `WAIT_S`."""
        try:
            return await self._spendings.reserve(budgets, usd, time.time())
        except SpendLimit as error:
            refused = error
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while refused.pending_budget:
                    found = await self._wait(refused, budgets, usd)
                    if not isinstance(found, SpendLimit):
                        return found
                    refused = found
        raise refused.without_traceback()

    def settle(self, postings: Sequence[tuple[BudgetReservation, float]]) -> None:
        self._spendings.settle(postings)
        self._wake(reservation.page[0] for reservation, _ in postings)

    def _wake(self, keys: Iterable[str]) -> None:
        for key in keys:
            if (line := self._lines.get(key)) is not None:
                line.settled.set()

    async def _wait(
        self, refused: SpendLimit, budgets: Sequence[Budget], usd: float
    ) -> list[BudgetReservation] | SpendLimit:
        """Returns what was reserved, or the refusal of another purse or of one that is spent.

        Raises SpendLimit if the line is full.
        """
        key = refused.pending_budget
        line = self._lines.setdefault(key, _Line())
        if line.length >= MAX_WAITING:
            raise refused.without_traceback()
        line.length += 1
        try:
            async with line.head:
                return await self._at_head(line, key, budgets, usd)
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[key]

    async def _at_head(
        self, line: _Line, key: str, budgets: Sequence[Budget], usd: float
    ) -> list[BudgetReservation] | SpendLimit:
        while True:
            line.settled.clear()
            try:
                return await self._spendings.reserve(budgets, usd, time.time())
            except SpendLimit as error:
                if error.pending_budget != key:
                    return error
            with suppress(TimeoutError):
                await asyncio.wait_for(line.settled.wait(), self._spendings.poll_s)
