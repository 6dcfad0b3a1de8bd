"""Budgets in this process's memory, kept in a file across restarts."""

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
from bridge.services.limits.ledger import BudgetReservation, SpendLedger
from bridge.services.limits.local import LocalBudgets
from bridge.services.limits.spend_file import SpendFile, Spent
from bridge.services.limits.windows import WindowKey
from bridge.tasks import Tasks

log = logging.getLogger("bridge.budgets")

LINGER_S: Final = 0.2
"""Spent amounts are collected for this long before a write; a killed process loses up to this much."""
PAUSE_S: Final = 1.0
"""Delay before the file is used again after a fault."""
CLOSE_S: Final = 5.0
"""The longest time for the last write at shutdown."""
MAX_UNWRITTEN_WINDOWS: Final = 65_536
"""Windows kept while the file cannot be written; the oldest is dropped first."""


class StoredBudgets(LocalBudgets):
    """Budgets whose spending one background task writes to a file. No event waits for the file."""

    def __init__(self, ledger: SpendLedger, file: SpendFile) -> None:
        super().__init__(ledger)
        self._file = file
        self._thread = WorkThread("budgets")
        self._tasks = Tasks()
        self._unwritten: dict[WindowKey, Spent] = {}
        self._has_unwritten = asyncio.Event()
        self._closing = asyncio.Event()
        self._is_failing = False

    def settle(self, settlements: Sequence[tuple[BudgetReservation, float]]) -> None:
        super().settle(settlements)
        self._queue([Spent(reservation.window, reservation.window_s, usd) for reservation, usd in settlements if usd])

    async def open(self, *, is_needed: bool) -> None:
        """Load the spent amounts. With `is_needed`, raises OSError if the file cannot be created."""
        if is_needed:
            await self._thread.run(self._file.create)
        try:
            stored = await self._thread.run(partial(self._file.load, time.time()))
        except (sqlite3.Error, OSError) as error:
            self._log_failure(error)
        else:
            for window, usd in stored:
                self._ledger.add(window, usd, 0.0)
        self._tasks.start(self._write_loop(), "write budgets")

    async def close(self) -> None:
        """Write what is left, for at most `CLOSE_S`."""
        self._closing.set()
        self._has_unwritten.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._tasks.wait_all()
                await self._thread.run(self._file.close)
        if self._unwritten:
            log.warning(
                "budget file incomplete; spending since the last write is lost",
                extra={"fields": {"windows": len(self._unwritten)}},
            )
        await self._tasks.cancel_all()
        self._thread.shutdown()

    def _queue(self, spent: Sequence[Spent]) -> None:
        for entry in spent:
            queued = self._unwritten.get(entry.window)
            self._unwritten[entry.window] = entry if queued is None else queued._replace(usd=queued.usd + entry.usd)
        while len(self._unwritten) > MAX_UNWRITTEN_WINDOWS:
            del self._unwritten[next(iter(self._unwritten))]
        if self._unwritten:
            self._has_unwritten.set()

    async def _write_loop(self) -> None:
        while not (self._closing.is_set() and (self._is_failing or not self._unwritten)):
            await self._has_unwritten.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), PAUSE_S if self._is_failing else LINGER_S)
            self._has_unwritten.clear()
            await self._write()

    async def _write(self) -> None:
        """Write the pending amounts; queue them again if the write fails."""
        unwritten, self._unwritten = list(self._unwritten.values()), {}
        if not unwritten:
            return
        try:
            await self._thread.run(partial(self._file.add, unwritten, time.time()))
        except (sqlite3.Error, OSError) as error:
            self._queue(unwritten)
            self._log_failure(error)
        else:
            self._is_failing = False

    def _log_failure(self, error: Exception) -> None:
        """Log the error once, until a write succeeds again."""
        if not self._is_failing:
            self._is_failing = True
            log.error(
                "budget file cannot be written; a restart loses the spending since the last write",
                extra={"fields": {"reason": str(error)}},
            )


@asynccontextmanager
async def stored_budgets(path: Path, *, is_needed: bool) -> AsyncIterator[StoredBudgets]:
    """Run budgets with a file.

    `is_needed`: budgets are configured. Raises OSError if the file cannot be created, except on a full disk.
    """
    budgets = StoredBudgets(SpendLedger(), SpendFile(path))
    try:
        try:
            await budgets.open(is_needed=is_needed)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            await budgets.open(is_needed=False)
        yield budgets
    finally:
        await budgets.close()
