"""The cache in a SQLite file, which several processes may share, and which outlives them.

A thread of its own reads and writes. Whatever the file does, no event waits for it longer than a moment: a file that is
locked, full, broken or slow is a cache that holds nothing, and after a fault it is left alone for a while.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from bridge.storage.cache_answer import Stored, wall_clock
from bridge.storage.cache_table import CacheTable
from bridge.storage.cache_thread import WorkThread
from bridge.tasks import Tasks

log = logging.getLogger("bridge.cache")

PATIENCE_S: Final = 0.25
"""How long an event waits for the file."""
MAX_READS: Final = 256
"""That may stand in line; one more finds nothing."""
MAX_UNWRITTEN_BYTES: Final = 64 << 20
PAUSE_S: Final = 1.0
"""How long the file is left alone after a fault."""
PURGE_S: Final = 60.0
CLOSE_S: Final = 5.0
"""How long what is still to be written may take at the end."""


class FileStore:
    """A `Store`. `opened` makes one."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._table = CacheTable(path, most_bytes)
        self._now = wall_clock()
        self._loop = asyncio.get_running_loop()
        self._thread = WorkThread("cache")
        self._tasks = Tasks()
        self._reads = 0
        self._unwritten_bytes = 0
        self._away_until = 0.0
        self._told: set[str] = set()
        self.faults = 0

    @property
    def evictions(self) -> int:
        return self._table.evictions

    async def get(self, key: bytes) -> Stored | None:
        if self._is_away or self._reads >= MAX_READS:
            self.faults += 1
            return None
        self._reads += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._thread.do(partial(self._table.get, key))
        except (sqlite3.Error, ValueError, TimeoutError) as error:
            self._failed(error)
            return None
        finally:
            self._reads -= 1

    def put(self, key: bytes, stored: Stored) -> None:
        size = stored.size_bytes
        if self._is_away or self._unwritten_bytes + size > MAX_UNWRITTEN_BYTES:
            self.faults += 1
            return
        self._unwritten_bytes += size
        self._thread.do(partial(self._table.put, key, stored)).add_done_callback(partial(self._written, size))

    async def open(self) -> None:
        """Raises OSError when there can be no such file."""
        await self._thread.do(self._table.touch)
        self._tasks.start(self._purge_on_and_on(), "cache purge")

    async def close(self) -> None:
        """Returns when all that was put is written, if that does not take too long."""
        await self._tasks.end_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._thread.do(self._table.close)
        self._thread.end()

    @property
    def _is_away(self) -> bool:
        return self._loop.time() < self._away_until

    def _written(self, size: int, future: asyncio.Future[None]) -> None:
        self._unwritten_bytes -= size
        if not future.cancelled() and (error := future.exception()) is not None:
            self._failed(error)

    async def _purge_on_and_on(self) -> None:
        while True:
            if not self._is_away:
                try:
                    await self._thread.do(partial(self._table.purge, self._now()))
                except sqlite3.Error as error:
                    self._failed(error)
            await asyncio.sleep(PURGE_S)

    def _failed(self, error: BaseException) -> None:
        self.faults += 1
        self._away_until = self._loop.time() + PAUSE_S
        reason = f"no answer within {PATIENCE_S:g} s" if isinstance(error, TimeoutError) else str(error)
        if reason not in self._told:
            self._told.add(reason)
            log.warning("the cache's file is of no use: only memory is", extra={"fields": {"reason": reason}})


@asynccontextmanager
async def opened(path: Path, most_bytes: int) -> AsyncIterator[FileStore]:
    """Raises OSError when there can be no such file."""
    store = FileStore(path, most_bytes)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
