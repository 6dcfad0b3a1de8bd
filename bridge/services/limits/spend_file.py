"""SQLite file that keeps the spent amount of each budget and window. For use by one thread.

It is separate from the request log: budgets survive a restart even if events have no rows there. Several processes may
write to one file.
"""

import logging
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from bridge.services.limits.windows import MAX_WINDOWS, WindowKey
from bridge.services.sqlite import connect, create_file

log = logging.getLogger("bridge.budgets")

BUSY_TIMEOUT_S: Final = 5.0
"""SQLite's busy timeout: the wait for another process's write."""
MAX_WAL_BYTES: Final = 4 << 20
"""Size to which the write-ahead log is truncated after it grew."""

_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS spent (
        budget TEXT NOT NULL, window INTEGER NOT NULL, expires_at REAL NOT NULL, usd REAL NOT NULL,
        PRIMARY KEY (budget, window)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS spent_by_expiry ON spent (expires_at);
"""
_ADD: Final = """
    INSERT INTO spent (budget, window, expires_at, usd) VALUES (?, ?, ?, ?)
    ON CONFLICT (budget, window) DO UPDATE SET usd = usd + excluded.usd
"""
_PURGE: Final = "DELETE FROM spent WHERE expires_at <= ?"
_LOAD: Final = "SELECT budget, window, usd FROM spent WHERE expires_at > ? ORDER BY usd DESC LIMIT ?"


class Spent(NamedTuple):
    """An amount in US dollars to add to one window."""

    window: WindowKey
    window_s: int
    usd: float


class SpendFile:
    """Connect on first use, and again after a fault.

    Failed operations raise sqlite3.Error or OSError and may be retried. A damaged file is renamed and replaced by a new
    one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def create(self) -> None:
        """Create the file with mode 0600 if it does not exist. Raises OSError."""
        create_file(self._path)

    def load(self, now_s: float) -> list[tuple[WindowKey, float]]:
        """Return the windows that still count, with US dollars; the largest amount last."""
        if not self._path.exists():
            return []
        try:
            rows = self._opened().execute(_LOAD, (now_s, MAX_WINDOWS)).fetchall()
        except sqlite3.Error as error:
            if not self._is_replaced(error):
                raise
            return []
        return [((budget, number), usd) for budget, number, usd in reversed(rows)]

    def add(self, spent: Iterable[Spent], now_s: float) -> None:
        """Add all amounts in one transaction."""
        # A sliding window also counts the previous one.
        rows = [(*entry.window, float((entry.window[1] + 2) * entry.window_s), entry.usd) for entry in spent]
        try:
            self._add(rows, now_s)
        except sqlite3.Error as error:
            if not self._is_replaced(error):
                raise
            self._add(rows, now_s)

    def _add(self, rows: list[tuple[str, int, float, float]], now_s: float) -> None:
        connection = self._opened()
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(_PURGE, (now_s,))
            connection.executemany(_ADD, rows)
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _is_replaced(self, error: sqlite3.Error) -> bool:
        """Close the file after `error`; return True if it was damaged and has been renamed."""
        self.close()
        return _is_damage(error) and self._set_aside(str(error))

    def _set_aside(self, reason: str) -> bool:
        aside = self._path.with_name(f"{self._path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        try:
            self._path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            log.error("damaged budget file cannot be renamed", extra={"fields": {"reason": str(error)}})
            return False
        log.error(
            "budget file damaged; recorded spending is lost and a new file is used",
            extra={"fields": {"file": str(self._path), "set_aside_as": aside.name, "reason": reason}},
        )
        return True

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self.create()
            self._connection = connect(self._path, _SCHEMA, busy_timeout_s=BUSY_TIMEOUT_S, max_wal_bytes=MAX_WAL_BYTES)
        return self._connection


def _is_damage(error: sqlite3.Error) -> bool:
    """Return True if SQLite reports a corrupt file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
