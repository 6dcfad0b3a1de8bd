"""The SQLite file that keeps what budgets have spent, window by window. For one thread.

It is no part of the request log: budgets must survive a restart whether or not events have rows there. Several
processes may add to one file.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from bridge.services.limits.ledger import MAX_PAGES, PageKey

log = logging.getLogger("bridge.budgets")

LOCKED_S: Final = 5.0
"""How long another process's writing is waited for."""
LOG_BYTES: Final = 4 << 20
"""What the write-ahead log is cut to after it had to grow."""

_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS spent (
        purse TEXT NOT NULL, window INTEGER NOT NULL, expires_at REAL NOT NULL, usd REAL NOT NULL,
        PRIMARY KEY (purse, window)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS spent_by_expiry ON spent (expires_at);
"""
_ADD: Final = """
    INSERT INTO spent (purse, window, expires_at, usd) VALUES (?, ?, ?, ?)
    ON CONFLICT (purse, window) DO UPDATE SET usd = usd + excluded.usd
"""
_PURGE: Final = "DELETE FROM spent WHERE expires_at <= ?"
_LOAD: Final = "SELECT purse, window, usd FROM spent WHERE expires_at > ? ORDER BY usd DESC LIMIT ?"


class Spent(NamedTuple):
    page: PageKey
    window_s: int
    usd: float


class SpendFile:
    """Connects when it is first used, and again after a fault. What fails raises sqlite3.Error or OSError and may be
    tried again; a damaged file is set aside, and a new one begun.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def touch(self) -> None:
        """Makes the file, for its owner's eyes only, if there is none. Raises OSError."""
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def load(self, now_s: float) -> list[tuple[PageKey, float]]:
        """Returns the pages whose windows still count, with US dollars; the largest last."""
        if not self._path.exists():
            return []
        try:
            rows = self._opened().execute(_LOAD, (now_s, MAX_PAGES)).fetchall()
        except sqlite3.Error as error:
            if not self._is_begun_anew(error):
                raise
            return []
        return [((budget, window), usd) for budget, window, usd in reversed(rows)]

    def add(self, spent: Iterable[Spent], now_s: float) -> None:
        """All of it, or nothing."""
        # The window after a window counts it too, where it slides.
        rows = [(*each.page, float((each.page[1] + 2) * each.window_s), each.usd) for each in spent]
        try:
            self._add(rows, now_s)
        except sqlite3.Error as error:
            if not self._is_begun_anew(error):
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

    def _is_begun_anew(self, error: sqlite3.Error) -> bool:
        """Closes the file after `error`; True if it was damaged, and set aside."""
        self.close()
        return _is_damage(error) and self._set_aside(str(error))

    def _set_aside(self, reason: str) -> bool:
        aside = self._path.with_name(f"{self._path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        try:
            self._path.rename(aside)
            for more in ("-wal", "-shm"):
                self._path.with_name(self._path.name + more).unlink(missing_ok=True)
        except OSError as error:
            log.error("the damaged file of the budgets cannot be set aside", extra={"fields": {"reason": str(error)}})
            return False
        log.error(
            "the file of the budgets is damaged: what it held is forgotten",
            extra={"fields": {"file": str(self._path), "set_aside_as": aside.name, "reason": reason}},
        )
        return True

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self.touch()
            self._connection = self._connected()
        return self._connection

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=LOCKED_S, isolation_level=None, check_same_thread=False)
        try:
            # A process that is killed loses nothing that was committed; a machine that loses power may, and no more.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
