"""A cache store in a SQLite file, which several processes may share and which outlives them.

One thread reads and writes. No event waits for the file longer than `READ_TIMEOUT_S`: a file that is locked, full,
damaged or slow counts as an empty cache, and after a fault it is not used for `PAUSE_AFTER_FAULT_S`.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from bridge.services.cache.stored import FORMAT_VERSION, StoredAnswer, decode, encode, wall_clock
from bridge.services.sqlite import connect, create_file
from bridge.tasks import Tasks

MAX_BATCH: Final = 64
"""Jobs handed to the thread together. The results of a batch are returned together, so this bounds their delay."""

T = TypeVar("T")
Job = tuple[Callable[[], object], asyncio.Future[Any]]
JobResult = tuple[asyncio.Future[Any], object, Exception | None]


class WorkThread:
    """Runs jobs one after the other in one thread. Jobs submitted in one iteration of the loop, or while the thread is
    busy, are handed over as one batch, which saves a wake-up for each."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._waiting: list[Job] = []
        self._is_busy = False

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Return a future of the result of `work`. A cancelled job may still run."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((work, future))
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._submit_batch)
        return future

    def shutdown(self) -> None:
        """Discard the jobs that have not started."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _submit_batch(self) -> None:
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        self._thread.submit(self._run_batch, batch)

    def _finish(self, done: Sequence[JobResult]) -> None:
        if self._waiting:
            self._submit_batch()
        else:
            self._is_busy = False
        for future, result, error in done:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _run_batch(self, batch: Sequence[Job]) -> None:
        """Run the jobs in the thread, and return their results to the loop."""
        done = [_outcome(work, future) for work, future in batch]
        with suppress(RuntimeError):  # the loop is closed, so nothing waits for the results
            self._loop.call_soon_threadsafe(self._finish, done)


def _outcome(work: Callable[[], object], future: asyncio.Future[Any]) -> JobResult:
    try:
        return future, work(), None
    except Exception as error:
        return future, None, error


BUSY_TIMEOUT_S: Final = 0.2
"""SQLite's busy timeout: the wait for another process's write."""
MAX_WAL_BYTES: Final = 16 << 20
"""Size to which SQLite truncates the write-ahead log after it has grown."""
CHECK_FRACTION: Final = 1 / 64
"""Fraction of the size limit that may be written before the file's size is checked again."""
EVICTION_TARGET: Final = 7 / 8
"""Fraction of the size limit to which an eviction shrinks the file, so that not every write evicts."""

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
"""Evict the answers stored first. Use is not tracked here: the memory store in front serves most reads."""
_COUNTS: Final = ("page_count", "freelist_count", "page_size")
_KEY_PREFIX: Final = bytes([FORMAT_VERSION])


class CacheTable:
    """The table of answers. It connects on first use, and again after a fault."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._unchecked_bytes = 0
        self.evictions = 0

    def get(self, key: bytes) -> StoredAnswer | None:
        """Return the stored answer, which may have expired. Raises ValueError if it cannot be decoded."""
        found = self._run(_GET, (_KEY_PREFIX + key,)).fetchone()
        return None if found is None else decode(found[0])

    def put(self, key: bytes, stored: StoredAnswer) -> None:
        answer = encode(stored)
        self._run(_PUT, (_KEY_PREFIX + key, stored.expires_at, answer))
        self._unchecked_bytes += len(answer)
        if self._unchecked_bytes > self._max_bytes * CHECK_FRACTION:
            self._unchecked_bytes = 0
            if self._used_bytes() > self._max_bytes:
                self._evict()

    def purge(self, now: float) -> None:
        self._run(_PURGE, (now,))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _evict(self) -> None:
        while self._used_bytes() > EVICTION_TARGET * self._max_bytes:
            gone = self._run(_EVICT).rowcount
            if not gone:
                return
            self.evictions += gone

    def _used_bytes(self) -> int:
        """Return the size of the file without its free pages. This is cheap: SQLite keeps these counts."""
        pages, free, size = (self._run(f"PRAGMA {what}").fetchone()[0] for what in _COUNTS)
        return int((pages - free) * size)

    def _run(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection.execute(statement, values)
        except sqlite3.Error:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        return connect(self._path, _SCHEMA, busy_timeout_s=BUSY_TIMEOUT_S, max_wal_bytes=MAX_WAL_BYTES)


log = logging.getLogger("bridge.cache")

READ_TIMEOUT_S: Final = 0.25
"""Time that an event waits for a read from the file."""
MAX_READS: Final = 256
"""Reads that may wait for the thread; a further one counts as a miss."""
MAX_UNWRITTEN_BYTES: Final = 64 << 20
PAUSE_AFTER_FAULT_S: Final = 1.0
"""Time for which the file is not used after a fault."""
PURGE_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 5.0
"""Time that `close` waits for pending writes."""


class SqliteStore:
    """Implements `Store`; made by `open_sqlite_store`."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._table = CacheTable(path, max_bytes)
        self._now = wall_clock()
        self._loop = asyncio.get_running_loop()
        self._thread = WorkThread("cache")
        self._tasks = Tasks()
        self._reads = 0
        self._unwritten_bytes = 0
        self._unavailable_until = 0.0
        self._reported: set[str] = set()
        self.faults = 0

    @property
    def evictions(self) -> int:
        return self._table.evictions

    async def get(self, key: bytes) -> StoredAnswer | None:
        if self._is_unavailable or self._reads >= MAX_READS:
            self.faults += 1
            return None
        self._reads += 1
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await self._thread.run(partial(self._table.get, key))
        except (sqlite3.Error, ValueError, TimeoutError) as error:
            self._record_failure(error)
            return None
        finally:
            self._reads -= 1

    def put(self, key: bytes, stored: StoredAnswer) -> None:
        size = stored.size_bytes
        if self._is_unavailable or self._unwritten_bytes + size > MAX_UNWRITTEN_BYTES:
            self.faults += 1
            return
        self._unwritten_bytes += size
        self._thread.run(partial(self._table.put, key, stored)).add_done_callback(partial(self._on_written, size))

    async def open(self) -> None:
        """Create the file and start the purge of expired answers. Raises OSError if the file cannot be created."""
        await self._thread.run(partial(create_file, self._path))
        self._tasks.start(self._purge_periodically(), "cache purge")

    async def close(self) -> None:
        """Return when every pending write is done, or after `CLOSE_TIMEOUT_S`."""
        await self._tasks.cancel_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._thread.run(self._table.close)
        self._thread.shutdown()

    @property
    def _is_unavailable(self) -> bool:
        return self._loop.time() < self._unavailable_until

    def _on_written(self, size: int, future: asyncio.Future[None]) -> None:
        self._unwritten_bytes -= size
        if not future.cancelled() and (error := future.exception()) is not None:
            self._record_failure(error)

    async def _purge_periodically(self) -> None:
        while True:
            if not self._is_unavailable:
                try:
                    await self._thread.run(partial(self._table.purge, self._now()))
                except sqlite3.Error as error:
                    self._record_failure(error)
            await asyncio.sleep(PURGE_S)

    def _record_failure(self, error: BaseException) -> None:
        self.faults += 1
        self._unavailable_until = self._loop.time() + PAUSE_AFTER_FAULT_S
        reason = f"no answer within {READ_TIMEOUT_S:g} s" if isinstance(error, TimeoutError) else str(error)
        if reason not in self._reported:
            self._reported.add(reason)
            log.warning("cache file unavailable; using memory only", extra={"fields": {"reason": reason}})


@asynccontextmanager
async def open_sqlite_store(path: Path, max_bytes: int) -> AsyncIterator[SqliteStore]:
    """Open the store, and close it at the end. Raises OSError if the file cannot be created."""
    store = SqliteStore(path, max_bytes)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
