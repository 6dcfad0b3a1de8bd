"""The tapes of a replay, on their shelves: which one answers next, and what faults befall it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, Literal, NamedTuple

from bridge.tapes.fault_injection import HEADER, FaultPlan, InjectedFault, cut, paced, parse_faults
from bridge.tapes.file import Tape, TapeError, pairs
from bridge.tapes.matching import STRICT, Matching, MatchKey, ReplayRequest
from bridge.tapes.mismatch import ambiguous, exhausted, explain
from bridge.tapes.socket_file import SocketTape, read_any

Pace = Literal["recorded", "instant"] | float
"""How long a replay takes: as recorded, no time at all, or that many times what was recorded."""

Exhausted = Literal["repeat", "miss"]
"""What becomes of a request when all its tapes have played: the last one answers again, or none does."""

_STRETCH: Final = {"recorded": 1.0, "instant": 0.0}


class Miss(Exception):
    """No tape answers a request. The message says which one nearly does, and holds no secret."""


@dataclass(slots=True)
class _TapeQueue:
    """The tapes of alike requests, in the order in which they play."""

    tapes: list[tuple[str, Tape | SocketTape]] = field(default_factory=list)
    played: int = 0


class TapeSession(NamedTuple):
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
        faults: Iterable[InjectedFault] = (),
    ) -> None:
        self._stretch = _STRETCH[pace] if isinstance(pace, str) else pace
        self._matching = matching
        self._repeats = exhausted == "repeat"
        self._faults = FaultPlan(faults)
        self._shelves: defaultdict[MatchKey, _TapeQueue] = defaultdict(_TapeQueue)
        self._taped: list[tuple[str, ReplayRequest]] = []
        for path in _paths([folders] if isinstance(folders, Path) else folders):
            self._put(path)
        self.hosts: Sequence[str] = sorted({asked.host for _, asked in self._taped})
        """Of all tapes, with their ports where a URL named them."""
        self.hint = ""
        """What a miss says to do where no tape is of the host and path that are asked for."""
        self.on_miss: Callable[[str], object] = _nothing
        """Called with the message of each miss."""

    def take(self, request: ReplayRequest) -> Tape:
        """The tape that answers, as it is to be played now. Raises Miss; BadFault for a fault that `asked` asks for.

        A tape that a fault breaks off does not count as played: it is still there for who asks again.
        """
        own = parse_faults(request.headers.get(HEADER, ""))
        key = self._key(request)
        queue = self._shelves[key]
        _, tape = self._next(request, queue)
        assert isinstance(tape, Tape)  # what is asked for in another way stands on another shelf
        faults = self._faults.due(own, key)
        left = cut(tape, faults)
        if left is tape:
            queue.played += 1
        return paced(left, self._stretch, faults)

    def take_socket(self, request: ReplayRequest) -> TapeSession:
        """The tape that answers a WebSocket's handshake. Raises Miss. Faults are HTTP's alone."""
        queue = self._shelves[self._key(request)]
        name, tape = self._next(request, queue)
        assert isinstance(tape, SocketTape)
        queue.played += 1
        return TapeSession(name, tape, self._stretch, self._matching)

    def _put(self, path: Path) -> None:
        tape = read_any(path)
        request, name = tape.request, f"{path.parent.name}/{path.name}"
        asked = ReplayRequest.of(request.method, request.url, request.body, pairs(request.headers))
        self._shelves[self._matching.key(asked)].tapes.append((name, tape))
        self._taped.append((name, asked))

    def _key(self, request: ReplayRequest) -> MatchKey:
        """Whose shelf it is. Raises Miss."""
        found = self._keys(request) or self._keys(request.as_recorded())
        if not found:
            raise self._miss(explain(request, self._taped, self._matching, self.hint))
        if len(found) > 1:
            raise self._miss(ambiguous(request, [each.host for each in found]))
        return found[0]

    def _miss(self, message: str) -> Miss:
        self.on_miss(message)
        return Miss(message)

    def _keys(self, request: ReplayRequest) -> list[MatchKey]:
        """Those of the shelves where it finds an answer; several, when it names no host."""
        key = self._matching.key(request)
        hosts = self.hosts if request.any_host else [request.host]
        return [each for each in (key._replace(host=host) for host in hosts) if each in self._shelves]

    def _next(self, request: ReplayRequest, queue: _TapeQueue) -> tuple[str, Tape | SocketTape]:
        if queue.played >= len(queue.tapes) and not self._repeats:
            last, _ = queue.tapes[-1]
            raise self._miss(exhausted(request, last))
        return queue.tapes[min(queue.played, len(queue.tapes) - 1)]


def _nothing(_: str) -> None: ...


def _paths(folders: Iterable[Path]) -> Iterator[Path]:
    return chain.from_iterable(map(_tapes_in, folders))


def _tapes_in(folder: Path) -> list[Path]:
    found = [folder] if folder.is_file() else sorted(folder.rglob("*.jsonl"))
    if not found:
        raise TapeError(folder, 0, "No tape here: a folder of *.jsonl, or one such file, is wanted")
    return found
