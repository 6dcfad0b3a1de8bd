"""Convert events to rows, write them and delete old rows. All of it may block and belongs to the writer thread."""

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
"""Pause after `ROWS_PER_SLICE` rows. Releasing the GIL for an instant is not enough: the event loop needs some
microseconds to wake up, and without a pause it would wait for the switch interval of five milliseconds.
"""
RETRY_S: Final = 1.0
"""Delay before a failed write is retried."""
PRUNE_INTERVAL_S: Final = 60.0
"""Interval of the search for rows that are too old."""

_DAY_MS: Final = 86_400_000
_ROW_ERRORS: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    ValueError,
)
"""Errors that concern a row and not the file."""


class RequestLogWriter:
    """Owns the file. One thread calls its methods; any thread may read its attributes."""

    def __init__(self, path: Path, keep_days: int = 0) -> None:
        """Open the file; with `keep_days` of 0 rows are kept for ever.

        Raises LogUnusable if the file can never be a request log. A file with a transient fault is opened later.
        """
        self.faults = 0
        """The number of failures to open or write the file, and of damaged files."""
        self.lost = 0
        """The number of rows that could not be made or written."""
        self.is_failing = False
        """True while the file cannot be written; the failure has been logged."""
        self.closing = threading.Event()
        """Set by another thread: from then on a failed write is not retried."""
        self._path = path
        self._keep_ms = keep_days * _DAY_MS
        self._file: RequestTable | None = None
        self._surplus: dict[str, int] = {}  # the row limits of gateways that may have too many rows
        self._prune_old_at = 0.0
        self._stopped: set[str] = set()
        self._next_set_aside_at = 0.0
        try:
            self._open_file()
        except LogFaulty as error:
            self._fail(error)

    def write(self, summaries: Sequence[EventSummary], *, is_behind: bool = False) -> None:
        """Write rows of the events, and retry until the file accepts them; while closing, give up after a failure.

        A writer that `is_behind` does not pause for the event loop: with pauses it would fall back further.
        """
        if self.is_failing and self.closing.is_set():
            self.lost += len(summaries)
            return
        rows = list(self._rows(summaries, pauses=not is_behind))
        bounds = {summary.gateway: _bound(summary) for summary in summaries}
        while not self._append(rows, bounds):
            if self.is_failing and self.closing.wait(RETRY_S):  # after damage, a new file is available at once
                if not self._append(rows, bounds):  # the file may be free since the last attempt
                    self.lost += len(rows)
                return
        self._surplus |= {name: bound.rows for name, bound in bounds.items() if bound.rows and not bound.stops}

    def prune(self) -> bool:
        """Delete some rows that are too many or too old. Return True if there may be more."""
        if self.is_failing or self._file is None:
            return False
        try:
            self._surplus = {
                name: max_rows for name, max_rows in self._surplus.items() if self._file.delete_oldest(name, max_rows)
            }
            return bool(self._surplus) or self._delete_old(self._file)
        except sqlite3.Error as error:
            self._fail(error)
            return False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _rows(self, summaries: Iterable[EventSummary], *, pauses: bool) -> Iterator[LogRow]:
        for number, summary in enumerate(summaries):
            if pauses and number % ROWS_PER_SLICE == 0:
                time.sleep(PAUSE_S)
            try:
                yield row_of(summary)
            except Exception as error:
                self._drop_row(error)

    def _append(self, rows: Sequence[LogRow], bounds: Mapping[str, RowBound]) -> bool:
        """Insert the rows. Return False if they have to be retried."""
        try:
            self._log_stopped(self._open_file().append(rows, bounds), bounds)
        except _ROW_ERRORS:
            return self._append_each(rows, bounds)
        except (sqlite3.Error, LogUnusable) as error:
            self._fail(error)
            return False
        self._recover()
        return True

    def _append_each(self, rows: Sequence[LogRow], bounds: Mapping[str, RowBound]) -> bool:
        """Insert the rows one by one, because one of them is invalid. That one is corrected or dropped."""
        for row in rows:
            try:
                self._open_file().append([storable(row)], bounds)
            except _ROW_ERRORS as error:
                self._drop_row(error)
            except (sqlite3.Error, LogUnusable) as error:
                self._fail(error)
                self._drop_row(error)
        return True

    def _open_file(self) -> RequestTable:
        """Return the table; reopen the file after a failure, or if it was moved away."""
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
        """Rename the damaged file, at most once a minute, because a failing disk may damage each new file. Return True
        if a new file can be created."""
        if time.monotonic() < self._next_set_aside_at:
            return False
        self.faults += 1
        try:
            kept = set_aside(self._path, damaged, datetime.now(UTC))
        except OSError as failure:
            log.error("damaged request log cannot be renamed: %s", failure)
            return False
        if kept is not None:
            self._next_set_aside_at = time.monotonic() + PRUNE_INTERVAL_S
            log.error("request log damaged (%s); it is kept as %s, and a new one is started", error, kept)
        return True

    def _delete_old(self, file: RequestTable) -> bool:
        if not self._keep_ms or time.monotonic() < self._prune_old_at:
            return False
        if file.delete_before(first_id(time.time_ns() // 1_000_000 - self._keep_ms)):
            return True
        self._prune_old_at = time.monotonic() + PRUNE_INTERVAL_S
        return False

    # Each message is logged once, until the state changes.

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
            log.error("request log cannot be written; events beyond the queue's bound get no row: %s", error)

    def _recover(self) -> None:
        if self.is_failing:
            self.is_failing = False
            log.warning("request log is written again")

    def _drop_row(self, error: Exception) -> None:
        if not self.lost:
            log.error("an event gets no row in the request log", exc_info=error)
        self.lost += 1

    def _log_stopped(self, stopped: Mapping[str, int], bounds: Mapping[str, RowBound]) -> None:
        for gateway in stopped.keys() - self._stopped:
            log.warning("request log of gateway %s is full (%s rows); no row is added", gateway, bounds[gateway].rows)
        self._stopped = (self._stopped - bounds.keys()) | stopped.keys()


def _bound(summary: EventSummary) -> RowBound:
    return RowBound(summary.log_rows, stops=summary.log_strategy == "STOP_INSERTING", is_shared=summary.log_is_shared)
