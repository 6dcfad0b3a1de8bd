"""What is wrong with the file of a request log: a mistake in the configuration, a fault that may pass, or damage."""

import errno
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

Identity = tuple[int, int]
"""A file's device and inode."""

_MAY_PASS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_SQLITE_MAY_PASS: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM}
)
_PRIMARY: Final = 0xFF
"""The part of SQLite's error code that all its versions agree on."""
_TEXT_BYTES: Final = 4096
"""How much of a file is looked at to see if it is text."""


class LogUnusable(Exception):
    """The configuration names a file that cannot be a request log. The message names the file and the reason."""


class LogFaulty(LogUnusable):
    """The file cannot be used now and may be later: the disk is full, for instance."""


class LogDamaged(LogFaulty):
    """The file is no whole database any more, and has to make way for a new one."""


def from_os_error(path: Path, error: OSError) -> LogUnusable:
    kind = LogFaulty if error.errno in _MAY_PASS else LogUnusable
    return kind(f"{path}: {error.strerror}")


def from_sqlite_error(path: Path, error: sqlite3.Error) -> LogUnusable:
    return _kind(path, error)(f"{path}: {error}")


def is_damage(error: Exception) -> bool:
    """True for what says that the file itself is damaged, whether it was being opened or in use."""
    return isinstance(error, LogDamaged) or (isinstance(error, sqlite3.Error) and _code(error) in _DAMAGE)


_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def _kind(path: Path, error: sqlite3.Error) -> type[LogUnusable]:
    code = _code(error)
    if code in _DAMAGE:
        # A text at log_path is a file of somebody else's, such as the configuration: it is not renamed.
        return LogUnusable if code == sqlite3.SQLITE_NOTADB and _is_text(path) else LogDamaged
    return LogFaulty if code in _SQLITE_MAY_PASS else LogUnusable


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)  # the module's own errors have none
    return code & _PRIMARY


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

    None if the file is another one by now, because another process has set the damaged one aside. Raises OSError.
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
