"""Selects the tape that answers a request of a replay, and applies faults to it."""

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
"""Duration of a replay: as recorded, instant, or a factor of the recorded time."""

Exhausted = Literal["repeat", "miss"]
"""Behaviour when all tapes of a request have played: repeat the last one, or report a miss."""

_STRETCH: Final = {"recorded": 1.0, "instant": 0.0}


class Miss(Exception):
    """No tape matches a request. The message describes the nearest tape and contains no secret."""


@dataclass(slots=True)
class _TapeQueue:
    """Tapes of equal requests in the order in which they play."""

    tapes: list[tuple[str, Tape | SocketTape]] = field(default_factory=list)
    played: int = 0


class TapeSession(NamedTuple):
    """A tape of a realtime session and the options of its replay."""

    name: str
    tape: SocketTape
    stretch: float
    matching: Matching
    """Rules for comparing the client's messages."""


class Library:
    """Tapes of one or more folders; a path may also be a single tape.

    Tapes with equal requests play in the order of their paths. All are read at once. Raises TapeError for the first
    invalid tape, and if there is none.
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
        self._queues: defaultdict[MatchKey, _TapeQueue] = defaultdict(_TapeQueue)
        self._taped: list[tuple[str, ReplayRequest]] = []
        for path in _paths([folders] if isinstance(folders, Path) else folders):
            self._add(path)
        self.hosts: Sequence[str] = sorted({request.host for _, request in self._taped})
        """Hosts of all tapes, with the ports that their URLs contain."""
        self.hint = ""
        """Advice in a miss when no tape has the requested host and path."""
        self.on_miss: Callable[[str], object] = _nothing
        """Called with the message of each miss."""

    def take(self, request: ReplayRequest) -> Tape:
        """Return the tape that answers, with its faults and times. Raises Miss; InvalidFault for a bad fault header.

        A tape that a fault cuts off does not count as played: a retry gets it again.
        """
        own = parse_faults(request.headers.get(HEADER, ""))
        key = self._key(request)
        queue = self._queues[key]
        _, tape = self._next(request, queue)
        assert isinstance(tape, Tape)  # the match key separates exchanges from sessions
        faults = self._faults.due(own, key)
        left = cut(tape, faults)
        if left is tape:
            queue.played += 1
        return paced(left, self._stretch, faults)

    def take_socket(self, request: ReplayRequest) -> TapeSession:
        """Return the tape that answers a WebSocket handshake. Raises Miss. Faults apply only to HTTP."""
        queue = self._queues[self._key(request)]
        name, tape = self._next(request, queue)
        assert isinstance(tape, SocketTape)
        queue.played += 1
        return TapeSession(name, tape, self._stretch, self._matching)

    def _add(self, path: Path) -> None:
        tape = read_any(path)
        request, name = tape.request, f"{path.parent.name}/{path.name}"
        taped = ReplayRequest.of(request.method, request.url, request.body, pairs(request.headers))
        self._queues[self._matching.key(taped)].tapes.append((name, tape))
        self._taped.append((name, taped))

    def _key(self, request: ReplayRequest) -> MatchKey:
        """Return the key of the queue that answers. Raises Miss."""
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
        """Return the keys of matching queues; there may be several if the request has no host."""
        key = self._matching.key(request)
        hosts = self.hosts if request.any_host else [request.host]
        return [each for each in (key._replace(host=host) for host in hosts) if each in self._queues]

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
        raise TapeError(folder, 0, "No tape found: expected a folder with *.jsonl files, or one such file")
    return found
