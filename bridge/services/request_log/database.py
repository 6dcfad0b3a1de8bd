"""Opens the SQLite file of a request log, to write to it or to read it."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bridge.services.request_log.damage import LogUnusable, from_os_error, from_sqlite_error
from bridge.services.request_log.schema import APPLICATION_ID, MIGRATIONS, VERSION

BUSY_S: Final = 5.0
"""How long a writer waits for another process to have written."""
PAGE_BYTES: Final = 16_384
"""A row with its bodies is some KiB: in pages of the usual size it would leave a part of its last one empty."""
WAL_PAGES: Final = 1000
"""After how many the log of the file is worked into the file."""
MAX_WAL_BYTES: Final = 64 << 20
"""To which it is cut down, when it had grown while somebody read."""


def open_to_write(path: Path) -> sqlite3.Connection:
    """The file, made if it is not there, for its owner's eyes alone; its tables are today's.

    Transactions are begun and ended by hand. Raises LogUnusable, LogFaulty and LogDamaged.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise from_os_error(path, error) from None
    try:
        return _prepared(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False), path)
    except sqlite3.Error as error:
        raise from_sqlite_error(path, error) from None


def open_to_read(path: Path) -> sqlite3.Connection:
    """Leaves the file as it is, whoever writes to it meanwhile. Raises LogUnusable."""
    return _opened(path, _opened_to_read)


def open_to_update(path: Path) -> sqlite3.Connection:
    """For changes to rows that are there. Raises LogUnusable."""
    return _opened(path, partial(_checked, how="mode=rw"))


def _prepared(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    try:
        if _is_empty(connection):
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        else:
            _check(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {MAX_WAL_BYTES}")
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
            _check(connection, path)  # another process may have been here while the lock was waited for
        for migration in MIGRATIONS[_pragma(connection, "user_version") :]:
            for statement in filter(str.strip, migration.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _opened(path: Path, opening: Callable[[Path], sqlite3.Connection]) -> sqlite3.Connection:
    if not path.is_file():
        raise LogUnusable(f"{path}: no such file")
    try:
        return opening(path)
    except sqlite3.Error as error:
        raise LogUnusable(f"{path}: {error}") from None


def _opened_to_read(path: Path) -> sqlite3.Connection:
    try:
        return _checked(path, "mode=ro")
    except sqlite3.OperationalError as error:
        if not _may_not_write(error):
            raise
        # Nobody has it open, and the folder lets us make none of the files by which readers and writers meet.
        return _checked(path, "immutable=1")


def _may_not_write(error: sqlite3.OperationalError) -> bool:
    return "unable to open" in str(error) or "readonly" in str(error)


def _checked(path: Path, how: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?{how}"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_S, isolation_level=None)
    try:
        _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises LogUnusable unless it is a request log that this version knows."""
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise LogUnusable(f"{path}: is a database, but no request log")
    version = _pragma(connection, "user_version")
    if version > VERSION:
        raise LogUnusable(f"{path}: was written by a newer bridge (schema {version}; this one knows {VERSION})")


def _is_empty(connection: sqlite3.Connection) -> bool:
    return _pragma(connection, "schema_version") == 0


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    with closing(connection.execute(f"PRAGMA {name}")) as cursor:
        number: int = cursor.fetchone()[0]
    return number
