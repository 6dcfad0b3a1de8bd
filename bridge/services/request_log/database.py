"""Open the SQLite file of a request log for writing, reading or updating rows."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bridge.services.request_log.damage import LogUnusable, from_os_error, from_sqlite_error
from bridge.services.request_log.schema import APPLICATION_ID, MIGRATIONS, VERSION
from bridge.services.sqlite import create_file, use_wal

BUSY_S: Final = 5.0
"""SQLite's busy timeout: the wait for another process's write."""
PAGE_BYTES: Final = 16_384
"""A row with its bodies takes some KiB; with the default page size, more of its last page would stay empty."""
WAL_PAGES: Final = 1000
"""Pages of the write-ahead log after which SQLite checkpoints it into the file."""
MAX_WAL_BYTES: Final = 64 << 20
"""Size to which the write-ahead log is truncated after a reader made it grow."""


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open the file, created with mode 0600 if missing, and migrate its tables to the current schema.

    The caller begins and ends transactions. Raises LogUnusable, LogFaulty and LogDamaged.
    """
    try:
        create_file(path)
    except OSError as error:
        raise from_os_error(path, error) from None
    try:
        return _prepare(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False), path)
    except sqlite3.Error as error:
        raise from_sqlite_error(path, error) from None


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open the file read-only; other processes may write to it at the same time. Raises LogUnusable."""
    return _open_existing(path, _connect_to_read)


def open_to_update(path: Path) -> sqlite3.Connection:
    """Open the file for changes to existing rows. Raises LogUnusable."""
    return _open_existing(path, partial(_connect_checked, query="mode=rw"))


def _prepare(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    try:
        if _is_empty(connection):
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        else:
            _check(connection, path)
        use_wal(connection, MAX_WAL_BYTES)
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if _pragma(connection, "user_version") == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_empty(connection):
            _check(connection, path)  # another process may have created it while this one waited for the lock
        for migration in MIGRATIONS[_pragma(connection, "user_version") :]:
            for statement in filter(str.strip, migration.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _open_existing(path: Path, connect: Callable[[Path], sqlite3.Connection]) -> sqlite3.Connection:
    if not path.is_file():
        raise LogUnusable(f"{path}: no such file")
    try:
        return connect(path)
    except sqlite3.Error as error:
        raise LogUnusable(f"{path}: {error}") from None


def _connect_to_read(path: Path) -> sqlite3.Connection:
    try:
        return _connect_checked(path, "mode=ro")
    except sqlite3.OperationalError as error:
        if not _is_read_only(error):
            raise
        # No process has the file open, and the folder is not writable, so SQLite cannot create its -wal and -shm files.
        return _connect_checked(path, "immutable=1")


def _is_read_only(error: sqlite3.OperationalError) -> bool:
    return "unable to open" in str(error) or "readonly" in str(error)


def _connect_checked(path: Path, query: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?{query}"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_S, isolation_level=None)
    try:
        _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise LogUnusable unless the file is a request log of a supported schema version."""
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise LogUnusable(f"{path}: is a database but not a request log")
    version = _pragma(connection, "user_version")
    if version > VERSION:
        raise LogUnusable(f"{path}: written by a newer bridge (schema {version}; this version supports {VERSION})")


def _is_empty(connection: sqlite3.Connection) -> bool:
    return _pragma(connection, "schema_version") == 0


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    with closing(connection.execute(f"PRAGMA {name}")) as cursor:
        number: int = cursor.fetchone()[0]
    return number
