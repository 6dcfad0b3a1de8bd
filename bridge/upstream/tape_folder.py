"""A folder that tapes are written to: FOLDER/HOST/000017-POST-chat-completions.jsonl, in the order of their numbers.

A tape is written under another name, which ends in `.part`, and gets its own when it is whole. So what a crash leaves
is whole tapes, and by their names those that were cut.
"""

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

import httpx

from bridge.upstream.tape_file import Request, Tape, opening, write_tape

CUT: Final = ".part"
NAME_CHARS: Final = 64

_NUMBER = re.compile(r"(\d+)-")
_VERSION = re.compile(r"(?<![a-z0-9])v\d[a-z0-9]*+/")
_UNSPEAKABLE = re.compile(r"[^A-Za-z0-9._]+")


class TapeFolder:
    """Owned by one thread. Other processes may write to the same folder; numbers go on after those that it holds.

    Raises OSError when the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._numbers: Iterator[int] | None = None

    def begin(self, request: Request) -> Path:
        """Write what is known of a tape at its beginning: where, for `finish` or `drop`. Raises OSError.

        `request` holds no secrets: its path becomes a part of the name.
        """
        folder = self.path / _host(request)
        folder.mkdir(exist_ok=True)
        part = self._claimed(folder, f"{_speakable(request.what)}-{_place(request)}")
        part.write_bytes(opening(request))
        return part

    def finish(self, part: Path, tape: Tape) -> Path:
        """Write the whole of it, and where. Raises OSError; what was begun stays then, as one that was cut."""
        write_tape(part, tape)
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
        return self.finish(self.begin(tape.request), tape)

    def _claimed(self, folder: Path, name: str) -> Path:
        """A new file under the next number that no other process has taken."""
        if self._numbers is None:
            self._numbers = count(1 + max(_numbers_in(self.path), default=0))
        for number in self._numbers:
            part = folder / f"{number:06}-{name}.jsonl{CUT}"
            try:
                part.touch(exist_ok=False)
            except FileExistsError:
                continue
            # Asked only now: whoever held the same name has either given it up, or made it a tape before.
            if not _whole(part).exists():
                return part
            part.unlink()
        raise AssertionError("numbers do not end")


def cut_tapes(folder: Path) -> list[Path]:
    """The recordings that never came to their end, or have not yet."""
    return sorted(folder.rglob(f"*{CUT}"))


def _whole(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(CUT))


def _numbers_in(folder: Path) -> Iterator[int]:
    for path in folder.glob("*/*"):
        if number := _NUMBER.match(path.name):
            yield int(number[1])


def _host(request: Request) -> str:
    return _speakable(httpx.URL(request.url).netloc.decode())


def _place(request: Request) -> str:
    """The path's words without a version before them; of a long one the end, which tells calls apart."""
    path = _VERSION.sub("", httpx.URL(request.url).path.lstrip("/"), count=1)
    return _speakable(_speakable(path)[-NAME_CHARS:])


def _speakable(text: str) -> str:
    return _UNSPEAKABLE.sub("-", text).strip("-.") or "root"
