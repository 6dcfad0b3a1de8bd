"""Writes tapes to a folder as FOLDER/HOST/000017-POST-chat-completions.jsonl, numbered in order.

A tape is written under a name that ends in `.part` and renamed when it is complete, so a crash leaves complete tapes
and files that are recognisably cut. Secrets that redaction does not recognise stay in a tape; therefore only the owner
can read the files (mode 600) and the created folders (mode 700).
"""

import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

import httpx

from bridge.tapes.file import Tape, TapeRequest, bytes_of_tape, opening

CUT: Final = ".part"
NAME_CHARS: Final = 64

_TAPE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
"""Mode of a new folder. An existing one keeps its mode, since it may serve other purposes too."""

_NUMBER = re.compile(r"(\d+)-")
_VERSION = re.compile(r"(?<![a-z0-9])v\d[a-z0-9]*+/")
_UNSAFE_CHARS = re.compile(r"[^A-Za-z0-9._]+")


class TapeFolder:
    """Is used by one thread. Other processes may write to the same folder; numbers continue after the existing ones.

    Raises OSError if the folder cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
        self._numbers: Iterator[int] | None = None
        self._made: set[Path] = set()

    def begin(self, request: TapeRequest) -> Path:
        """Write the beginning of a tape and return its path, for `finish` or `drop`. Raises OSError.

        `request` must not contain secrets: its path becomes a part of the name.
        """
        return self._create(request, opening(request))

    def finish(self, part: Path, tape: Tape) -> Path:
        """Write the complete tape and return its path. Raises OSError and then leaves the cut file."""
        _write(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _TAPE_MODE), bytes_of_tape(tape))
        return self.seal(part)

    def add(self, part: Path, lines: bytes) -> None:
        """Append lines to a tape. Raises OSError and then leaves the cut file."""
        with part.open("ab") as file:
            file.write(lines)

    def seal(self, part: Path) -> Path:
        """Give a complete tape its final name and return its path. Raises OSError."""
        return part.replace(_whole(part))

    def drop(self, part: Path) -> None:
        part.unlink(missing_ok=True)

    def keep(self, tape: Tape) -> Path:
        """Write a complete tape and return its path. Raises OSError."""
        return self.seal(self._create(tape.request, bytes_of_tape(tape)))

    def _create(self, request: TapeRequest, data: bytes) -> Path:
        """Write `data` to a new file under the next number that no other process uses.

        It makes few system calls, because after each the thread has to reacquire the GIL from a busy loop.
        """
        folder = self.path / _host(request)
        if folder not in self._made:
            folder.mkdir(_FOLDER_MODE, exist_ok=True)
            self._made.add(folder)
        name = f"{_file_name(request.matched_method)}-{_place(request)}"
        if self._numbers is None:
            self._numbers = count(1 + max(_numbers_in(self.path), default=0))
        for number in self._numbers:
            part = folder / f"{number:06}-{name}.jsonl{CUT}"
            try:
                file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _TAPE_MODE)
            except FileExistsError:
                continue
            except FileNotFoundError:
                self._made.discard(folder)  # it was removed: the next tape creates it again
                raise
            _write(file, data)
            # Checked only now: a process with the same name has either dropped it or completed its tape.
            if not _whole(part).exists():
                return part
            part.unlink()
        raise AssertionError("itertools.count never ends")


def _write(file: int, data: bytes) -> None:
    """Write to a file descriptor, and close it."""
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
    finally:
        os.close(file)


def cut_tapes(folder: Path) -> list[Path]:
    """Return the incomplete recordings, also those still being written."""
    return sorted(folder.rglob(f"*{CUT}"))


def _whole(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(CUT))


def _numbers_in(folder: Path) -> Iterator[int]:
    for path in folder.glob("*/*"):
        if number := _NUMBER.match(path.name):
            yield int(number[1])


def _host(request: TapeRequest) -> str:
    return _file_name(httpx.URL(request.url).netloc.decode())


def _place(request: TapeRequest) -> str:
    """Return the path for the file name, without a version; of a long path the end, which distinguishes calls."""
    path = _VERSION.sub("", httpx.URL(request.url).path.lstrip("/"), count=1)
    return _file_name(_file_name(path)[-NAME_CHARS:])


def _file_name(text: str) -> str:
    return _UNSAFE_CHARS.sub("-", text).strip("-.") or "root"
