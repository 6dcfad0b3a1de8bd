"""Classify faults of a request log's file: a configuration error, a transient fault or damage."""

import errno
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

Identity = tuple[int, int]
"""The device and inode of a file."""

_TRANSIENT: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_SQLITE_TRANSIENT: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM}
)
_PRIMARY_CODE: Final = 0xFF
"""Mask of the primary part of SQLite's error code, which is the same in all its versions."""
_TEXT_BYTES: Final = 4096
"""Bytes of a file that are read to detect text."""


class LogUnusable(Exception):
    """The configuration names a file that cannot be a request log. The message names the file and the reason."""


class LogFaulty(LogUnusable):
    """The file cannot be used now but may be usable later; the disk is full, for instance."""


class LogDamaged(LogFaulty):
    """The database is damaged and has to be replaced by a new file."""


def from_os_error(path: Path, error: OSError) -> LogUnusable:
    kind = LogFaulty if error.errno in _TRANSIENT else LogUnusable
    return kind(f"{path}: {error.strerror}")


def from_sqlite_error(path: Path, error: sqlite3.Error) -> LogUnusable:
    return _kind(path, error)(f"{path}: {error}")


def is_damage(error: Exception) -> bool:
    """Return True if the error reports damage of the file, on opening or in use."""
    return isinstance(error, LogDamaged) or (isinstance(error, sqlite3.Error) and _code(error) in _DAMAGE)


_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def _kind(path: Path, error: sqlite3.Error) -> type[LogUnusable]:
    code = _code(error)
    if code in _DAMAGE:
        # A text file at log_path belongs to something else, such as the configuration, and must not be renamed.
        return LogUnusable if code == sqlite3.SQLITE_NOTADB and _is_text(path) else LogDamaged
    return LogFaulty if code in _SQLITE_TRANSIENT else LogUnusable


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)  # errors of the Python module have none
    return code & _PRIMARY_CODE


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_TEXT_BYTES)
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return False
        text = head[: error.start].decode()
    except OSError:
        return False
    return all(char.isprintable() or char.isspace() for char in text)


def identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def set_aside(path: Path, damaged: Identity | None, now: datetime) -> Path | None:
    """Rename the damaged file and its write-ahead log, and return the new name: `….damaged-DATE`.

    Return None if another process has already replaced the damaged file. Raises OSError.
    """
    if damaged is None or identity(path) != damaged:
        return None
    new = path.with_name(f"{path.name}.damaged-{now.astimezone(UTC):%Y-%m-%dT%H%M%S.%fZ}")
    path.rename(new)
    wal, shm = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    if wal.exists():
        wal.rename(new.with_name(new.name + "-wal"))
    shm.unlink(missing_ok=True)
    return new
