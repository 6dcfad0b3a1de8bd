"""The cache in a SQLite file, which several processes may share, and which outlives them.

A thread of its own reads and writes. Whatever the file does, no event waits for it longer than a moment: a file that is
locked, full, broken or slow is a cache that holds nothing, and after a fault it is left alone for a while.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from bridge.services.cache.stored import FORM, Stored, decode, encode, wall_clock
from bridge.tasks import Tasks

MAX_BATCH: Final = 64
"""Who is in a batch waits for all of it."""

T = TypeVar("T")
Job = tuple[Callable[[], object], asyncio.Future[Any]]
Done = tuple[asyncio.Future[Any], object, Exception | None]


class WorkThread:
    """Does one thing after the other, in their order. What one turn of the loop asks for, and what is asked for while
    it works, goes over together."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._waiting: list[Job] = []
        self._is_busy = False

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """What `work` returns or raises, in the thread. Cancelled, it may be done all the same."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((work, future))
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._hand_over)
        return future

    def end(self) -> None:
        """What was not begun is not done any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _hand_over(self) -> None:
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        self._thread.submit(self._work, batch)

    def _finish(self, done: Sequence[Done]) -> None:
        if self._waiting:
            self._hand_over()
        else:
            self._is_busy = False
        for future, result, error in done:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _work(self, batch: Sequence[Job]) -> None:
        """In the thread."""
        done = [_outcome(work, future) for work, future in batch]
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._finish, done)


def _outcome(work: Callable[[], object], future: asyncio.Future[Any]) -> Done:
    try:
        return future, work(), None
    except Exception as error:
        return future, None, error


LOCKED_S: Final = 0.2
"""How long another process's writing is waited for."""
LOG_BYTES: Final = 16 << 20
"""What the write-ahead log is cut to after it had to grow."""
UNCHECKED: Final = 1 / 64
"""Of the bound: by so much the file may be larger before that is seen."""
ROOM: Final = 7 / 8
"""Of the bound: what is left when it is reached, so that not every answer evicts."""

_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS cached_answers (
        id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, expires_at REAL NOT NULL, answer BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS cached_answers_by_expiry ON cached_answers (expires_at);
"""
_GET: Final = "SELECT answer FROM cached_answers WHERE key = ?"
_PUT: Final = "INSERT OR REPLACE INTO cached_answers (key, expires_at, answer) VALUES (?, ?, ?)"
_PURGE: Final = "DELETE FROM cached_answers WHERE expires_at <= ?"
_EVICT: Final = """
    DELETE FROM cached_answers WHERE id IN (
        SELECT id FROM cached_answers ORDER BY id LIMIT max(1, (SELECT count(*) / 64 FROM cached_answers))
    )
"""
"""Those stored longest ago: which are in use, the memory in front of the file knows better."""
_COUNTS: Final = ("page_count", "freelist_count", "page_size")
_KEYED: Final = bytes([FORM])


class CacheTable:
    """Connects when it is first used, and again after a fault."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._unchecked_bytes = 0
        self.evictions = 0

    def touch(self) -> None:
        """Makes the file, for its owner's eyes only, if there is none. Raises OSError."""
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def get(self, key: bytes) -> Stored | None:
        """Raises ValueError for what cannot be read as an answer."""
        found = self._run(_GET, (_KEYED + key,)).fetchone()
        return None if found is None else decode(found[0])

    def put(self, key: bytes, stored: Stored) -> None:
        answer = encode(stored)
        self._run(_PUT, (_KEYED + key, stored.expires_at, answer))
        self._unchecked_bytes += len(answer)
        if self._unchecked_bytes > self._max_bytes * UNCHECKED:
            self._unchecked_bytes = 0
            if self._used_bytes() > self._max_bytes:
                self._make_room()

    def purge(self, now: float) -> None:
        self._run(_PURGE, (now,))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _make_room(self) -> None:
        while self._used_bytes() > ROOM * self._max_bytes:
            gone = self._run(_EVICT).rowcount
            if not gone:
                return
            self.evictions += gone

    def _used_bytes(self) -> int:
        """Of the file, without the pages that are free to be written again. Costs nothing: SQLite keeps count."""
        pages, free, size = (self._run(f"PRAGMA {what}").fetchone()[0] for what in _COUNTS)
        return int((pages - free) * size)

    def _run(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            if self._connection is None:
                self._connection = self._connected()
            return self._connection.execute(statement, values)
        except sqlite3.Error:
            self.close()
            raise

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=LOCKED_S, isolation_level=None)
        try:
            # Readers and one writer at once; a kill at any moment loses at most what was written last.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection


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


class SqliteStore:
    """A `Store`. `opened` makes one."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._table = CacheTable(path, max_bytes)
        self._now = wall_clock()
        self._loop = asyncio.get_running_loop()
        self._thread = WorkThread("cache")
        self._tasks = Tasks()
        self._reads = 0
        self._unwritten_bytes = 0
        self._unavailable_until = 0.0
        self._is_reported: set[str] = set()
        self.faults = 0

    @property
    def evictions(self) -> int:
        return self._table.evictions

    async def get(self, key: bytes) -> Stored | None:
        if self._is_unavailable or self._reads >= MAX_READS:
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
        if self._is_unavailable or self._unwritten_bytes + size > MAX_UNWRITTEN_BYTES:
            self.faults += 1
            return
        self._unwritten_bytes += size
        self._thread.do(partial(self._table.put, key, stored)).add_done_callback(partial(self._written, size))

    async def open(self) -> None:
        """Raises OSError when there can be no such file."""
        await self._thread.do(self._table.touch)
        self._tasks.start(self._purge_periodically(), "cache purge")

    async def close(self) -> None:
        """Returns when all that was put is written, if that does not take too long."""
        await self._tasks.cancel_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._thread.do(self._table.close)
        self._thread.end()

    @property
    def _is_unavailable(self) -> bool:
        return self._loop.time() < self._unavailable_until

    def _written(self, size: int, future: asyncio.Future[None]) -> None:
        self._unwritten_bytes -= size
        if not future.cancelled() and (error := future.exception()) is not None:
            self._failed(error)

    async def _purge_periodically(self) -> None:
        while True:
            if not self._is_unavailable:
                try:
                    await self._thread.do(partial(self._table.purge, self._now()))
                except sqlite3.Error as error:
                    self._failed(error)
            await asyncio.sleep(PURGE_S)

    def _failed(self, error: BaseException) -> None:
        self.faults += 1
        self._unavailable_until = self._loop.time() + PAUSE_S
        reason = f"no answer within {PATIENCE_S:g} s" if isinstance(error, TimeoutError) else str(error)
        if reason not in self._is_reported:
            self._is_reported.add(reason)
            log.warning("the cache's file is of no use: only memory is", extra={"fields": {"reason": reason}})


@asynccontextmanager
async def opened(path: Path, max_bytes: int) -> AsyncIterator[SqliteStore]:
    """Raises OSError when there can be no such file."""
    store = SqliteStore(path, max_bytes)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
