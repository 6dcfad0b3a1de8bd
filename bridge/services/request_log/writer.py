"""Makes rows of events and writes them, and deletes old ones. All of it may take its time: it is a thread's work."""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bridge.relay.summary import EventSummary
from bridge.services.request_log.damage import (
    Identity,
    LogDamaged,
    LogFaulty,
    LogUnusable,
    identity,
    is_damage,
    set_aside,
)
from bridge.services.request_log.reader import first_id
from bridge.services.request_log.rows import row_of, storable
from bridge.services.request_log.schema import LogRow
from bridge.services.request_log.table import RequestTable, RowBound

log = logging.getLogger("bridge.requests")

ROWS_PER_SLICE: Final = 16
PAUSE_S: Final = 0.000_02
"""After so many rows. To give the interpreter's lock away for an instant is not enough: the loop, which may wait for
it, needs some microseconds to wake, and to wait for its turn it would take five milliseconds.
"""
RETRY_S: Final = 1.0
"""After a failure."""
PRUNE_INTERVAL_S: Final = 60.0
"""How often it is looked whether rows have become too old."""

_DAY_MS: Final = 86_400_000
_OF_ROWS: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    ValueError,
)
"""What is wrong with a row, and not with the file."""


class RequestLogWriter:
    """Owns the file. Its methods belong to one thread, its attributes may be read by any."""

    def __init__(self, path: Path, keep_days: int = 0) -> None:
        """`keep_days` of 0 keeps rows for ever.

        Raises LogUnusable for a file that can be no log. One that cannot be opened now is opened for a later row.
        """
        self.faults = 0
        """How often the file could not be opened or written, or was damaged."""
        self.lost = 0
        """Rows that could not be made, or not be written."""
        self.is_failing = False
        """The file cannot be written at the moment; it has been said."""
        self.closing = threading.Event()
        """Set by another thread: what fails now is not tried again."""
        self._path = path
        self._keep_ms = keep_days * _DAY_MS
        self._file: RequestTable | None = None
        self._surplus: dict[str, int] = {}  # how many rows the gateways may have that may have more
        self._looks_at = 0.0
        self._stopped: set[str] = set()
        self._sets_aside_at = 0.0
        try:
            self._opened()
        except LogFaulty as error:
            self._fail(error)

    def write(self, entries: Sequence[EventSummary]) -> None:
        """Returns when they are written, however long the file cannot be; when it is closing, after one failure."""
        if self.is_failing and self.closing.is_set():
            self.lost += len(entries)
            return
        rows = list(self._rows(entries))
        bounds = {entry.gateway: _bound(entry) for entry in entries}
        while not self._append(rows, bounds):
            if self.is_failing and self.closing.wait(RETRY_S):  # after damage a new file is there at once
                self.lost += len(rows)
                return
        self._surplus |= {name: bound.rows for name, bound in bounds.items() if bound.rows and not bound.stops}

    def prune(self) -> bool:
        """Delete a few rows that are too many or too old. Whether there may be more of them."""
        if self.is_failing or self._file is None:
            return False
        try:
            self._surplus = {name: most for name, most in self._surplus.items() if self._file.delete_oldest(name, most)}
            return bool(self._surplus) or self._delete_old(self._file)
        except sqlite3.Error as error:
            self._fail(error)
            return False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _rows(self, entries: Iterable[EventSummary]) -> Iterator[LogRow]:
        for number, entry in enumerate(entries):
            if number % ROWS_PER_SLICE == 0:
                time.sleep(PAUSE_S)
            try:
                yield row_of(entry)
            except Exception as error:
                self._lose(error)

    def _append(self, rows: Sequence[LogRow], bounds: Mapping[str, RowBound]) -> bool:
        """Whether they need not be tried again."""
        try:
            self._log_stopped(self._opened().append(rows, bounds), bounds)
        except _OF_ROWS:
            return self._append_each(rows, bounds)
        except (sqlite3.Error, LogUnusable) as error:
            self._fail(error)
            return False
        self._recover()
        return True

    def _append_each(self, rows: Sequence[LogRow], bounds: Mapping[str, RowBound]) -> bool:
        """One of them is in the way of all: they go in one by one, and that one changed or not at all."""
        for row in rows:
            try:
                self._opened().append([storable(row)], bounds)
            except _OF_ROWS as error:
                self._lose(error)
            except (sqlite3.Error, LogUnusable) as error:
                self._fail(error)
                self._lose(error)
        return True

    def _opened(self) -> RequestTable:
        """The file; opened anew after a failure, and when it was moved away: who would find what goes into it?"""
        if self._file is not None and self._file.is_replaced():
            self._file.close()
            self._file = None
        if self._file is None:
            found = identity(self._path)
            try:
                self._file = RequestTable(self._path)
            except LogDamaged as error:
                if not self._set_aside(found, error):
                    raise
                self._file = RequestTable(self._path)
        return self._file

    def _set_aside(self, damaged: Identity | None, error: Exception) -> bool:
        """Make way for a new file, once a minute at most: on a failing disk each new one may be damaged soon. Return
        True if a new file can be begun."""
        if time.monotonic() < self._sets_aside_at:
            return False
        self.faults += 1
        try:
            kept = set_aside(self._path, damaged, datetime.now(UTC))
        except OSError as failure:
            log.error("the damaged request log cannot be renamed: %s", failure)
            return False
        if kept is not None:
            self._sets_aside_at = time.monotonic() + PRUNE_INTERVAL_S
            log.error("the request log is damaged (%s): it is kept as %s, and a new one is begun", error, kept)
        return True

    def _delete_old(self, file: RequestTable) -> bool:
        if not self._keep_ms or time.monotonic() < self._looks_at:
            return False
        if file.delete_before(first_id(time.time_ns() // 1_000_000 - self._keep_ms)):
            return True
        self._looks_at = time.monotonic() + PRUNE_INTERVAL_S
        return False

    # What is said, each once until it changes.

    def _fail(self, error: Exception) -> None:
        damaged = None
        if self._file is not None:
            damaged = self._file.identity
            self._file.close()
            self._file = None
        if damaged is not None and is_damage(error) and self._set_aside(damaged, error):
            return
        self.faults += 1
        if not self.is_failing:
            self.is_failing = True
            log.error("the request log cannot be written, and of events that wait too long no row is kept: %s", error)

    def _recover(self) -> None:
        if self.is_failing:
            self.is_failing = False
            log.warning("the request log is written again")

    def _lose(self, error: Exception) -> None:
        if not self.lost:
            log.error("an event has no row in the request log", exc_info=error)
        self.lost += 1

    def _log_stopped(self, stopped: Mapping[str, int], bounds: Mapping[str, RowBound]) -> None:
        for gateway in stopped.keys() - self._stopped:
            log.warning("no more rows in the request log for gateway %s: it has %s", gateway, bounds[gateway].rows)
        self._stopped = (self._stopped - bounds.keys()) | stopped.keys()


def _bound(summary: EventSummary) -> RowBound:
    return RowBound(summary.log_rows, stops=summary.log_strategy == "STOP_INSERTING", is_shared=summary.log_is_shared)
