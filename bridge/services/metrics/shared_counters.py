"""Numbers that one process adds to and any process of the same bridge can read, whether or not the first still lives.

A tally is rows of doubles, each under a key, in memory that is mapped: nobody's in a process alone, a file's where
there are workers. To add is a store to memory; no lock, no call. What a worker had counted when it was killed is
there for its siblings, and for the one that takes its place and goes on counting in the same file: so a sum over all
files never goes down, and there are never more of them than there were workers at a time.

A file: eight bytes that say how much of it is used, then records. A record is two numbers of four bytes, of its key's
bytes and its doubles; the key as JSON, padded with spaces; the doubles. All in the machine's order, at multiples of
eight, which is why a store is seen whole or not at all.
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
"""Of one process."""

_CAPACITY: Final = 16 << 20
"""More than so many rows take. Nothing of it is there until it is used."""

_HEAD: Final = 8
_RECORD: Final = struct.Struct("II")
_SUFFIX: Final = ".tally"

Key = tuple[str, ...]
Row: TypeAlias = "memoryview[float]"


class CountersFull(Exception):
    """There is no room for another row."""


class SharedCounters:
    """One process's rows. They live as long as somebody holds them."""

    def __init__(self, folder: Path | None = None, *, max_rows: int = MAX_ROWS) -> None:
        """In `folder`, which workers share, the first file that is nobody's; else in memory. Raises OSError.

        Who starts the workers makes the folder, empty, and removes it.
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
        self._rows = dict(self._found())

    def row(self, key: Key, width: int) -> Row:
        """The row of that key, made of zeros if there is none. Raises TallyFull."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._added(key, width)
        return row

    def rows(self) -> Iterator[tuple[Key, Row]]:
        yield from list(self._rows.items())

    def others(self) -> Iterator[tuple[Key, Row, bool]]:
        """The other processes' rows, and whether their process lives. Reads files."""
        for path in self._folder.glob(f"*{_SUFFIX}") if self._folder else ():
            if path != self._path:
                data, is_alive = _read(path)
                yield from ((key, row, is_alive) for key, row in _records(data))

    def close(self) -> None:
        """What was counted stays; from now on others see that nobody counts on."""
        if self._lock != -1:
            _unlock(self._lock)  # the mapping holds the file open, and would hold the lock
            os.close(self._lock)
            self._lock = -1

    def _found(self) -> Iterator[tuple[Key, Row]]:
        return _records(self._memory[: self._used[0]])

    def _added(self, key: Key, width: int) -> Row:
        text = _padded(key)
        at = self._used[0]
        begins = at + _RECORD.size + len(text)
        ends = begins + 8 * width
        if len(self._rows) >= self._max_rows or ends > len(self._memory):
            raise CountersFull(f"{len(self._rows)} rows are as many as there may be")
        self._memory[at : at + _RECORD.size] = _RECORD.pack(len(text), width)
        self._memory[at + _RECORD.size : begins] = text
        self._memory[begins:ends] = bytes(ends - begins)  # one who was killed here may have left something
        self._used[0] = ends  # last: before that it is not there for anybody
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
    """The lock on a file is its process's life: it goes with it, however it ends."""
    for number in count():
        path = folder / f"{number}{_SUFFIX}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _locks(file, shared=False):
            os.truncate(file, _CAPACITY)
            return path, file
        os.close(file)
    raise AssertionError("numbers have no end")


def _read(path: Path) -> tuple[memoryview, bool]:
    with path.open("rb") as file:
        is_alive = not _locks(file.fileno(), shared=True)
        used = int.from_bytes(file.read(_HEAD).ljust(_HEAD, b"\0"), sys.byteorder)
        file.seek(0)
        return memoryview(file.read(used)), is_alive


def _locks(file: int, *, shared: bool) -> bool:
    """Whether it could be locked, as several may share it or for one alone."""
    import fcntl  # which is not there on Windows; nor are workers

    with suppress(BlockingIOError):
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    return False


def _unlock(file: int) -> None:
    import fcntl

    fcntl.flock(file, fcntl.LOCK_UN)
