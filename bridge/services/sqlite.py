"""Open SQLite files that several processes may share: mode 0600, and a write-ahead log of bounded size."""

import os
import sqlite3
from pathlib import Path


def create_file(path: Path) -> None:
    """Create the file with mode 0600 if it does not exist. Raises OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def connect(path: Path, schema: str, *, busy_timeout_s: float, max_wal_bytes: int) -> sqlite3.Connection:
    """Open the file and run the statements of `schema`. The caller begins and ends transactions.

    `busy_timeout_s` is the longest wait for a write of another process. Only one thread at a time may use the
    connection. Raises sqlite3.Error.
    """
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        use_wal(connection, max_wal_bytes)
        connection.executescript(schema)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def use_wal(connection: sqlite3.Connection, max_wal_bytes: int) -> None:
    """Use a write-ahead log, which SQLite truncates to `max_wal_bytes` after it has grown."""
    # WAL allows readers beside one writer. A killed process loses no committed transaction; a power failure can.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {max_wal_bytes}")
