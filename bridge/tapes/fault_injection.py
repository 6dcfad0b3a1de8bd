"""Injects faults into answers, to test the resilience of a client. Pure and deterministic.

    reset@PLACE             reset the connection at that place
    stall@PLACE             send nothing more from there on
    stall@PLACE:TIME        pause for this time, then continue
    status:CODE             replace the answer with an HTTP error, 400 to 599
    slow:FACTORx            take this many times as long as recorded, regardless of the pace

A PLACE is `head` (before the response's head), `chunk:N` (after N chunks) or `end` (after the last one); a TIME is
`20s` or `500ms`. A fault may end in `:first:N`: it then applies only to the first N requests. A fault whose place is
after the end of an answer does not change it.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from msgspec.structs import replace

from bridge.tapes.file import StreamEnd, Tape, TapeChunk, TapeEnding, TapeHead

HEADER: Final = "x-bridge-fault"
"""Header of a replayed request that requests faults, separated by commas."""

Place = int
"""Number of chunks before the place."""
AT_HEAD: Final[Place] = -1
AT_END: Final[Place] = 2**63


class InvalidFault(ValueError):
    """The text is not a valid fault; the message gives the valid forms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedFault:
    """Base of the faults. A method returns the same tape object if the fault does not change it."""

    first: int | None = None
    """Number of requests to which the fault applies; None means all."""

    def cut(self, tape: Tape) -> Tape:
        """Return the part of the tape that is played."""
        return tape

    def delay(self, tape: Tape) -> Tape:
        """Return the tape with delayed times."""
        return tape


@dataclass(frozen=True, slots=True)
class Reset(InjectedFault):
    place: Place

    def cut(self, tape: Tape) -> Tape:
        return _truncated(tape, self.place, StreamEnd.RESET)


@dataclass(frozen=True, slots=True)
class Stall(InjectedFault):
    place: Place
    ms: int | None
    """Duration of the pause; None means forever."""

    def cut(self, tape: Tape) -> Tape:
        return tape if self.ms is not None else _truncated(tape, self.place, StreamEnd.STALL)

    def delay(self, tape: Tape) -> Tape:
        return tape if self.ms is None else _delayed(tape, self.place, self.ms)


@dataclass(frozen=True, slots=True)
class Status(InjectedFault):
    code: int

    def cut(self, tape: Tape) -> Tape:
        error = {"message": f"HTTP {self.code}, as a fault on demand", "type": "fault_on_demand"}
        body = TapeChunk.of(0, orjson.dumps({"error": error}))
        head = TapeHead(status=self.code, headers={"content-type": "application/json"}, ms=0)
        return Tape(tape.request, head, (body,), TapeEnding(end=StreamEnd.EOF))


@dataclass(frozen=True, slots=True)
class Slow(InjectedFault):
    factor: float


def cut(tape: Tape, faults: Sequence[InjectedFault]) -> Tape:
    """Return the part of the tape that is played under these faults, or the same object if all of it is.

    The first of several status faults applies.
    """
    status = next((fault for fault in faults if isinstance(fault, Status)), None)
    left = tape if status is None else status.cut(tape)
    for fault in faults:
        left = left if isinstance(fault, Status) else fault.cut(left)
    return left


def paced(tape: Tape, stretch: float, faults: Sequence[InjectedFault]) -> Tape:
    """Return the tape with the times of the replay: the recorded ones, scaled, plus the delays of the faults."""
    slow = [fault.factor for fault in faults if isinstance(fault, Slow)]
    delayed = _stretched(tape, max(slow, default=stretch))
    for fault in faults:
        delayed = fault.delay(delayed)
    return delayed


class FaultPlan:
    """Faults for all requests of a replay. It counts the uses of faults that are limited to the first requests."""

    def __init__(self, for_all: Iterable[InjectedFault]) -> None:
        self._for_all = tuple(for_all)
        self._met: Counter[Hashable] = Counter()

    def due(self, own: Sequence[InjectedFault], key: Hashable) -> list[InjectedFault]:
        """Return the faults for the next request. Its own faults are counted per key."""
        return [fault for fault in self._for_all if self._is_due(fault, None)] + [
            fault for fault in own if self._is_due(fault, key)
        ]

    def _is_due(self, fault: InjectedFault, key: Hashable) -> bool:
        if fault.first is None:
            return True
        self._met[fault, key] += 1
        return self._met[fault, key] <= fault.first


# The grammar.

_PLACE: Final = r"(head|end|chunk:(\d{1,9}))"
_TIME: Final = r"(\d{1,9}(?:\.\d{1,9})?)(m?s)"
_FIRST: Final = re.compile(r"(?P<fault>.*):first:(?P<count>\d{1,9})", re.ASCII)

_Maker = Callable[[re.Match[str], int | None], InjectedFault]

_KINDS: Final[dict[str, tuple[str, str, _Maker]]] = {
    "reset": (
        rf"reset@{_PLACE}",
        "reset@head, reset@chunk:N or reset@end",
        lambda found, first: Reset(_place(found[1], found[2]), first=first),
    ),
    "stall": (
        rf"stall@{_PLACE}(?::{_TIME})?",
        "stall@head, stall@chunk:N or stall@end, and :20s or :500ms if it is to end",
        lambda found, first: Stall(_place(found[1], found[2]), _ms(found[3], found[4]), first=first),
    ),
    "status": (
        r"status:([45]\d\d)",
        "status:CODE, from 400 to 599",
        lambda found, first: Status(int(found[1]), first=first),
    ),
    "slow": (
        r"slow:(\d{1,9}(?:\.\d{1,9})?)x",
        "slow:FACTORx, as in slow:10x",
        lambda found, first: Slow(float(found[1]), first=first),
    ),
}
"""Pattern, description and constructor by kind."""


def parse_faults(text: str) -> tuple[InjectedFault, ...]:
    """Parse faults that are separated by commas. Raises InvalidFault."""
    return tuple(parse_fault(one.strip()) for one in text.split(",") if one.strip())


def parse_fault(text: str) -> InjectedFault:
    """Parse one fault. Raises InvalidFault."""
    limited = _FIRST.fullmatch(text)
    fault, first = (limited["fault"], int(limited["count"])) if limited else (text, None)
    kind = fault.partition("@")[0].partition(":")[0]
    if kind not in _KINDS:
        raise InvalidFault(f"invalid fault {text!r}: expected {', '.join(_KINDS)}, as in reset@chunk:7")
    pattern, form, make = _KINDS[kind]
    found = re.fullmatch(pattern, fault, re.ASCII)
    if found is None:
        raise InvalidFault(f"invalid fault {text!r}: expected {form}; :first:N may follow")
    return make(found, first)


def _place(word: str, chunks: str | None) -> Place:
    if chunks is not None:
        return int(chunks)
    return AT_HEAD if word == "head" else AT_END


def _ms(number: str | None, unit: str | None) -> int | None:
    return None if number is None else round(float(number) * (1000 if unit == "s" else 1))


# Changes to a tape.


def _reached(tape: Tape, place: Place) -> Place | None:
    """Return the place as a number of chunks; None if the tape ends before it."""
    last = AT_HEAD if tape.head is None else len(tape.chunks)
    if place == AT_END:
        return last
    return place if place <= last else None


def _truncated(tape: Tape, place: Place, end: StreamEnd) -> Tape:
    at = _reached(tape, place)
    if at is None:
        return tape
    head = None if at == AT_HEAD else tape.head
    return Tape(tape.request, head, tape.chunks[: max(at, 0)], TapeEnding(end=end))


def _delayed(tape: Tape, place: Place, ms: int) -> Tape:
    """Return the tape with everything after the place delayed."""
    at = _reached(tape, place)
    if at is None:
        return tape
    head = replace(tape.head, ms=tape.head.ms + ms) if tape.head is not None and at == AT_HEAD else tape.head
    kept = max(at, 0)
    chunks = tape.chunks[:kept] + tuple(replace(chunk, ms=chunk.ms + ms) for chunk in tape.chunks[kept:])
    return Tape(tape.request, head, chunks, replace(tape.ending, ms=_ends_at(tape) + ms))


def _stretched(tape: Tape, factor: float) -> Tape:
    if factor == 1:
        return tape
    head = None if tape.head is None else replace(tape.head, ms=round(tape.head.ms * factor))
    chunks = tuple(replace(chunk, ms=round(chunk.ms * factor)) for chunk in tape.chunks)
    return Tape(tape.request, head, chunks, replace(tape.ending, ms=round(_ends_at(tape) * factor)))


def _ends_at(tape: Tape) -> int:
    if tape.ending.ms is not None:
        return tape.ending.ms
    return next((line.ms for line in (*tape.chunks[-1:], tape.head) if line is not None), 0)
