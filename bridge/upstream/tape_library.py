"""The tapes of a replay, on their shelves: which one answers next, and what faults befall it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, Literal, NamedTuple

from bridge.upstream.faults import HEADER, Fault, Faults, cut, paced, parse_faults
from bridge.upstream.socket_tape import SocketTape, read_any
from bridge.upstream.tape_file import Tape, TapeError, pairs
from bridge.upstream.tape_match import STRICT, Asked, Key, Matching
from bridge.upstream.tape_miss import ambiguous, exhausted, miss

Pace = Literal["recorded", "instant"] | float
"""How long a replay takes: as recorded, no time at all, or that many times what was recorded."""

Exhausted = Literal["repeat", "miss"]
"""What becomes of a request when all its tapes have played: the last one answers again, or none does."""

_STRETCH: Final = {"recorded": 1.0, "instant": 0.0}


class Miss(Exception):
    """No tape answers a request. The message says which one nearly does, and holds no secret."""


@dataclass(slots=True)
class _Shelf:
    """The tapes of alike requests, in the order in which they play."""

    tapes: list[tuple[str, Tape | SocketTape]] = field(default_factory=list)
    played: int = 0


class Cue(NamedTuple):
    """A realtime session's tape that is to be played, and how."""

    name: str
    tape: SocketTape
    stretch: float
    matching: Matching
    """What counts of the client's messages."""


class Library:
    """A folder of tapes, or several; a path may also be one tape.

    Tapes whose requests are alike play in the order of their paths. All are read at once: raises TapeError for the
    first that cannot be, and when there is none.
    """

    def __init__(
        self,
        folders: Path | Iterable[Path],
        *,
        pace: Pace = "recorded",
        matching: Matching = STRICT,
        exhausted: Exhausted = "repeat",
        faults: Iterable[Fault] = (),
    ) -> None:
        self._stretch = _STRETCH[pace] if isinstance(pace, str) else pace
        self._matching = matching
        self._repeats = exhausted == "repeat"
        self._faults = Faults(faults)
        self._shelves: defaultdict[Key, _Shelf] = defaultdict(_Shelf)
        self._taped: list[tuple[str, Asked]] = []
        for path in _paths([folders] if isinstance(folders, Path) else folders):
            self._put(path)
        self.hosts: Sequence[str] = sorted({asked.host for _, asked in self._taped})
        """Of all tapes, with their ports where a URL named them."""
        self.hint = ""
        """What a miss says to do where no tape is of the host and path that are asked for."""
        self.on_miss: Callable[[str], object] = _nothing
        """Called with the message of each miss."""

    def take(self, asked: Asked) -> Tape:
        """The tape that answers, as it is to be played now. Raises Miss; BadFault for a fault that `asked` asks for.

        A tape that a fault breaks off does not count as played: it is still there for who asks again.
        """
        own = parse_faults(asked.headers.get(HEADER, ""))
        key = self._key(asked)
        shelf = self._shelves[key]
        _, tape = self._next(asked, shelf)
        assert isinstance(tape, Tape)  # what is asked for in another way stands on another shelf
        faults = self._faults.due(own, key)
        left = cut(tape, faults)
        if left is tape:
            shelf.played += 1
        return paced(left, self._stretch, faults)

    def take_socket(self, asked: Asked) -> Cue:
        """The tape that answers a WebSocket's handshake. Raises Miss. Faults are HTTP's alone."""
        shelf = self._shelves[self._key(asked)]
        name, tape = self._next(asked, shelf)
        assert isinstance(tape, SocketTape)
        shelf.played += 1
        return Cue(name, tape, self._stretch, self._matching)

    def _put(self, path: Path) -> None:
        tape = read_any(path)
        request, name = tape.request, f"{path.parent.name}/{path.name}"
        asked = Asked.of(request.method, request.url, request.body, pairs(request.headers))
        self._shelves[self._matching.key(asked)].tapes.append((name, tape))
        self._taped.append((name, asked))

    def _key(self, asked: Asked) -> Key:
        """Whose shelf it is. Raises Miss."""
        found = self._keys(asked) or self._keys(asked.as_recorded())
        if not found:
            raise self._miss(miss(asked, self._taped, self._matching, self.hint))
        if len(found) > 1:
            raise self._miss(ambiguous(asked, [each.host for each in found]))
        return found[0]

    def _miss(self, message: str) -> Miss:
        self.on_miss(message)
        return Miss(message)

    def _keys(self, asked: Asked) -> list[Key]:
        """Those of the shelves where it finds an answer; several, when it names no host."""
        key = self._matching.key(asked)
        hosts = self.hosts if asked.any_host else [asked.host]
        return [each for each in (key._replace(host=host) for host in hosts) if each in self._shelves]

    def _next(self, asked: Asked, shelf: _Shelf) -> tuple[str, Tape | SocketTape]:
        if shelf.played >= len(shelf.tapes) and not self._repeats:
            last, _ = shelf.tapes[-1]
            raise self._miss(exhausted(asked, last))
        return shelf.tapes[min(shelf.played, len(shelf.tapes) - 1)]


def _nothing(_: str) -> None: ...


def _paths(folders: Iterable[Path]) -> Iterator[Path]:
    return chain.from_iterable(map(_tapes_in, folders))


def _tapes_in(folder: Path) -> list[Path]:
    found = [folder] if folder.is_file() else sorted(folder.rglob("*.jsonl"))
    if not found:
        raise TapeError(folder, 0, "No tape here: a folder of *.jsonl, or one such file, is wanted")
    return found
