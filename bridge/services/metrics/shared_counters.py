"""Counters that one process increments and every process of the same bridge can read, even after the first has ended.

The counters are rows of doubles, each under a key, in mapped memory: anonymous for a single process, a file's if there
are workers. An increment is a store to memory, without a lock or a call. The counts of a killed worker stay readable,
and the worker that replaces it continues in the same file. So a sum over all files never decreases, and there are never
more files than workers that ran at the same time.

A file holds eight bytes with its used size, then records. A record is two numbers of four bytes (the length of its key
in bytes and the number of its doubles), the key as JSON padded with spaces, and the doubles. Everything is in native
byte order at multiples of eight bytes, so that a reader never sees half a store.
"""

import mmap
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final, TypeAlias

import orjson

MAX_ROWS: Final = 8192
"""Maximal number of rows of one process."""

_CAPACITY: Final = 16 << 20
"""Size of the mapping, more than `MAX_ROWS` need. Unused pages take no memory."""

_HEAD: Final = 8
_RECORD: Final = struct.Struct("II")
_SUFFIX: Final = ".tally"

Key = tuple[str, ...]
Row: TypeAlias = "memoryview[float]"


class CountersFull(Exception):
    """There is no space for another row."""


class SharedCounters:
    """The rows of one process. They stay valid as long as they are referenced."""

    def __init__(self, folder: Path | None = None, *, max_rows: int = MAX_ROWS) -> None:
        """Use the first file in `folder` that no process has locked; without a folder, use memory. Raises OSError.

        The process that starts the workers creates the folder, empty, and removes it.
        """
        self._folder = folder
        self._max_rows = max_rows
        self._path: Path | None = None
        self._lock = -1
        if folder is not None:
            self._path, self._lock = _free_file(folder)
        self._memory = memoryview(mmap.mmap(self._lock, _CAPACITY))
        self._used = self._memory[:_HEAD].cast("Q")
        self._used[0] = max(self._used[0], _HEAD)
        self._rows = dict(self._existing_rows())

    def row(self, key: Key, width: int) -> Row:
        """Return the row of the key; a new row is all zeros. Raises CountersFull."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._add_row(key, width)
        return row

    def rows(self) -> Iterator[tuple[Key, Row]]:
        yield from list(self._rows.items())

    def others(self) -> Iterator[tuple[Key, Row, bool]]:
        """Yield the rows of the other processes, each with True if its process is alive. Reads files."""
        for path in self._folder.glob(f"*{_SUFFIX}") if self._folder else ():
            if path != self._path:
                data, is_alive = _read(path)
                yield from ((key, row, is_alive) for key, row in _records(data))

    def close(self) -> None:
        """Release the lock, which marks the process as ended. The counts stay readable."""
        if self._lock != -1:
            _unlock(self._lock)  # the mapping keeps the file open, and would keep the lock
            os.close(self._lock)
            self._lock = -1

    def _existing_rows(self) -> Iterator[tuple[Key, Row]]:
        return _records(self._memory[: self._used[0]])

    def _add_row(self, key: Key, width: int) -> Row:
        text = _padded(key)
        at = self._used[0]
        begins = at + _RECORD.size + len(text)
        ends = begins + 8 * width
        if len(self._rows) >= self._max_rows or ends > len(self._memory):
            raise CountersFull(f"the limit of {len(self._rows)} rows is reached")
        self._memory[at : at + _RECORD.size] = _RECORD.pack(len(text), width)
        self._memory[at + _RECORD.size : begins] = text
        self._memory[begins:ends] = bytes(ends - begins)  # a process killed at this point may have left data here
        self._used[0] = ends  # last, because it makes the row visible
        return self._memory[begins:ends].cast("d")


def _padded(key: Key) -> bytes:
    text = orjson.dumps(key)
    return text + b" " * (-len(text) % 8)


def _records(data: memoryview) -> Iterator[tuple[Key, Row]]:
    at = _HEAD
    while at < len(data):
        size, width = _RECORD.unpack_from(data, at)
        begins = at + _RECORD.size + size
        at = begins + 8 * width
        yield tuple(orjson.loads(data[begins - size : begins])), data[begins:at].cast("d")


def _free_file(folder: Path) -> tuple[Path, int]:
    """Return the first unlocked file, locked. The lock marks a process as alive: it ends with the process."""
    for number in count():
        path = folder / f"{number}{_SUFFIX}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _try_lock(file, shared=False):
            os.truncate(file, _CAPACITY)
            return path, file
        os.close(file)
    raise AssertionError("count() is infinite")


def _read(path: Path) -> tuple[memoryview, bool]:
    with path.open("rb") as file:
        is_alive = not _try_lock(file.fileno(), shared=True)
        used = int.from_bytes(file.read(_HEAD).ljust(_HEAD, b"\0"), sys.byteorder)
        file.seek(0)
        return memoryview(file.read(used)), is_alive


def _try_lock(file: int, *, shared: bool) -> bool:
    """Lock the file, shared or exclusive, and return True; return False if another process has locked it."""
    import fcntl  # not available on Windows, where there are no workers

    with suppress(BlockingIOError):
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    return False


def _unlock(file: int) -> None:
    import fcntl

    fcntl.flock(file, fcntl.LOCK_UN)
