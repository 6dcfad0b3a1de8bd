"""Budgets in this process's memory that a file keeps across restarts."""

import asyncio
import errno
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from bridge.services.cache.sqlite import WorkThread
from bridge.services.limits.ledger import BudgetReservation, PageKey, SpendLedger
from bridge.services.limits.local import LocalBudgets
from bridge.services.limits.spend_file import SpendFile, Spent
from bridge.tasks import Tasks

log = logging.getLogger("bridge.budgets")

LINGER_S: Final = 0.2
"""How long what was spent may wait to be written with more: what a process that is killed loses."""
PAUSE_S: Final = 1.0
"""How long the file is left alone after a fault."""
CLOSE_S: Final = 5.0
"""How long the last write may take at the end."""
MAX_OWED_PAGES: Final = 65_536
"""While the file cannot be written; then the page that was owed first is given up."""


class StoredBudgets(LocalBudgets):
    """No event waits for the file: one task writes what was spent since it wrote last."""

    def __init__(self, ledger: SpendLedger, file: SpendFile) -> None:
        super().__init__(ledger)
        self._file = file
        self._thread = WorkThread("budgets")
        self._tasks = Tasks()
        self._owed: dict[PageKey, Spent] = {}
        self._has_owed = asyncio.Event()
        self._closing = asyncio.Event()
        self._is_failing = False

    def settle(self, postings: Sequence[tuple[BudgetReservation, float]]) -> None:
        super().settle(postings)
        self._owe([Spent(reservation.page, reservation.window_s, usd) for reservation, usd in postings if usd])

    async def open(self, *, is_needed: bool) -> None:
        """Reads what was spent before. `is_needed`: raises OSError when there can be no such file."""
        if is_needed:
            await self._thread.do(self._file.touch)
        try:
            pages = await self._thread.do(partial(self._file.load, time.time()))
        except (sqlite3.Error, OSError) as error:
            self._tell(error)
        else:
            for page, usd in pages:
                self._ledger.add(page, usd, 0.0)
        self._tasks.start(self._write_on_and_on(), "write budgets")

    async def close(self) -> None:
        """Returns when all is written, if that does not take too long."""
        self._closing.set()
        self._has_owed.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._tasks.wait_all()
                await self._thread.do(self._file.close)
        if self._owed:
            log.warning("budgets are not all written to their file", extra={"fields": {"pages": len(self._owed)}})
        await self._tasks.cancel_all()
        self._thread.end()

    def _owe(self, spent: Sequence[Spent]) -> None:
        for each in spent:
            owed = self._owed.get(each.page)
            self._owed[each.page] = each if owed is None else owed._replace(usd=owed.usd + each.usd)
        while len(self._owed) > MAX_OWED_PAGES:
            del self._owed[next(iter(self._owed))]
        if self._owed:
            self._has_owed.set()

    async def _write_on_and_on(self) -> None:
        while not (self._closing.is_set() and (self._is_failing or not self._owed)):
            await self._has_owed.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), PAUSE_S if self._is_failing else LINGER_S)
            self._has_owed.clear()
            await self._write()

    async def _write(self) -> None:
        """What is owed; it is owed again if the file does not take it."""
        owed, self._owed = list(self._owed.values()), {}
        if not owed:
            return
        try:
            await self._thread.do(partial(self._file.add, owed, time.time()))
        except (sqlite3.Error, OSError) as error:
            self._owe(owed)
            self._tell(error)
        else:
            self._is_failing = False

    def _tell(self, error: Exception) -> None:
        """Once, until it is written again."""
        if not self._is_failing:
            self._is_failing = True
            log.error(
                "budgets are not written to their file: a restart will forget what was spent",
                extra={"fields": {"reason": str(error)}},
            )


@asynccontextmanager
async def stored_spendings(path: Path, *, is_needed: bool) -> AsyncIterator[StoredBudgets]:
    """`is_needed`: there are budgets already. Raises OSError when there can be no such file; a full disk passes."""
    spendings = StoredBudgets(SpendLedger(), SpendFile(path))
    try:
        try:
            await spendings.open(is_needed=is_needed)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            await spendings.open(is_needed=False)
        yield spendings
    finally:
        await spendings.close()
