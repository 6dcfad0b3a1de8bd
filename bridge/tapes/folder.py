"""A folder that tapes are written to: FOLDER/HOST/000017-POST-chat-completions.jsonl, in the order of their numbers.

A tape is written under another name, which ends in `.part`, and gets its own when it is whole. So what a crash leaves
is whole tapes, and by their names those that were cut. What redaction does not know stays in a tape: the files are
their owner's alone (mode 600), and so are the folders that are made for them (700).
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
"""Of a new one. One that is there keeps its mode: it may be somebody's for other things too."""

_NUMBER = re.compile(r"(\d+)-")
_VERSION = re.compile(r"(?<![a-z0-9])v\d[a-z0-9]*+/")
_UNSPEAKABLE = re.compile(r"[^A-Za-z0-9._]+")


class TapeFolder:
    """Owned by one thread. Other processes may write to the same folder; numbers go on after those that it holds.

    Raises OSError when the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
        self._numbers: Iterator[int] | None = None
        self._made: set[Path] = set()

    def begin(self, request: TapeRequest) -> Path:
        """Write what is known of a tape at its beginning: where, for `finish` or `drop`. Raises OSError.

        `request` holds no secrets: its path becomes a part of the name.
        """
        return self._create(request, opening(request))

    def finish(self, part: Path, tape: Tape) -> Path:
        """Write the whole of it, and where. Raises OSError; what was begun stays then, as one that was cut."""
        _write(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _TAPE_MODE), bytes_of_tape(tape))
        return self.seal(part)

    def add(self, part: Path, lines: bytes) -> None:
        """Write on, what was begun. Raises OSError; what is there stays then, as one that was cut."""
        with part.open("ab") as file:
            file.write(lines)

    def seal(self, part: Path) -> Path:
        """All is written: where. Raises OSError."""
        return part.replace(_whole(part))

    def drop(self, part: Path) -> None:
        part.unlink(missing_ok=True)

    def keep(self, tape: Tape) -> Path:
        """Write a tape at once. Raises OSError."""
        return self.seal(self._create(tape.request, bytes_of_tape(tape)))

    def _create(self, request: TapeRequest, data: bytes) -> Path:
        """Write `data` to a new file under the next number that no other process has taken.

        Few system calls: after each the thread has to win the interpreter's lock back from a loop that is busy.
        """
        folder = self.path / _host(request)
        if folder not in self._made:
            folder.mkdir(_FOLDER_MODE, exist_ok=True)
            self._made.add(folder)
        name = f"{_speakable(request.what)}-{_place(request)}"
        if self._numbers is None:
            self._numbers = count(1 + max(_numbers_in(self.path), default=0))
        for number in self._numbers:
            part = folder / f"{number:06}-{name}.jsonl{CUT}"
            try:
                file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _TAPE_MODE)
            except FileExistsError:
                continue
            except FileNotFoundError:
                self._made.discard(folder)  # somebody has removed it: the next tape makes it anew
                raise
            _write(file, data)
            # Asked only now: whoever held the same name has either given it up, or made it a tape before.
            if not _whole(part).exists():
                return part
            part.unlink()
        raise AssertionError("numbers do not end")


def _write(file: int, data: bytes) -> None:
    """Write to a file descriptor, and close it."""
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
    finally:
        os.close(file)


def cut_tapes(folder: Path) -> list[Path]:
    """The recordings that never came to their end, or have not yet."""
    return sorted(folder.rglob(f"*{CUT}"))


def _whole(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(CUT))


def _numbers_in(folder: Path) -> Iterator[int]:
    for path in folder.glob("*/*"):
        if number := _NUMBER.match(path.name):
            yield int(number[1])


def _host(request: TapeRequest) -> str:
    return _speakable(httpx.URL(request.url).netloc.decode())


def _place(request: TapeRequest) -> str:
    """The path's words without a version before them; of a long one the end, which tells calls apart."""
    path = _VERSION.sub("", httpx.URL(request.url).path.lstrip("/"), count=1)
    return _speakable(_speakable(path)[-NAME_CHARS:])


def _speakable(text: str) -> str:
    return _UNSPEAKABLE.sub("-", text).strip("-.") or "root"
