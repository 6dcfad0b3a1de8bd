"""The table of the cache's SQLite file. For one thread; what fails raises sqlite3.Error and may be tried again."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from bridge.storage.cache_answer import FORM, Stored, decode, encode

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

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path = path
        self._most_bytes = most_bytes
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
        if self._unchecked_bytes > self._most_bytes * UNCHECKED:
            self._unchecked_bytes = 0
            if self._used_bytes() > self._most_bytes:
                self._make_room()

    def purge(self, now: float) -> None:
        self._run(_PURGE, (now,))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _make_room(self) -> None:
        while self._used_bytes() > ROOM * self._most_bytes:
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
