"""Faults on demand, to test a client's resilience: what goes wrong with an answer, where, and how often. Pure, and
without chance: the same requests meet the same faults.

    reset@PLACE             the connection is reset at that place
    stall@PLACE             nothing more comes from there on
    stall@PLACE:TIME        nothing comes for so long; then it goes on
    status:CODE             an HTTP error in place of the answer: 400 to 599
    slow:FACTORx            it takes so many times as long as was recorded, whatever the pace

A PLACE is `head` (before the response's head), `chunk:N` (after N chunks) or `end` (after the last one); a TIME is
`20s` or `500ms`. Each may end in `:first:N`: only the first N requests meet it. An answer that ends before a fault's
place is not touched by it.
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
"""A request of a replay that has it asks for faults of its own, with commas between them."""

Place = int
"""How many chunks come before it."""
AT_HEAD: Final[Place] = -1
AT_END: Final[Place] = 2**63


class BadFault(ValueError):
    """What was given is no fault; the message says what would be one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedFault:
    """What a kind of fault does not touch, it hands back as it is: the same tape."""

    first: int | None = None
    """Only so many requests meet it; None: all."""

    def cut(self, tape: Tape) -> Tape:
        """What of the tape comes, when the rest never does."""
        return tape

    def delay(self, tape: Tape) -> Tape:
        """The tape with its later instants."""
        return tape


@dataclass(frozen=True, slots=True)
class Reset(InjectedFault):
    place: Place

    def cut(self, tape: Tape) -> Tape:
        return _upto(tape, self.place, StreamEnd.RESET)


@dataclass(frozen=True, slots=True)
class Stall(InjectedFault):
    place: Place
    ms: int | None
    """None: for ever."""

    def cut(self, tape: Tape) -> Tape:
        return tape if self.ms is not None else _upto(tape, self.place, StreamEnd.STALL)

    def delay(self, tape: Tape) -> Tape:
        return tape if self.ms is None else _later(tape, self.place, self.ms)


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
    """What of the tape comes under these faults; of several statuses it is the first. The tape itself when all of it
    does."""
    status = next((fault for fault in faults if isinstance(fault, Status)), None)
    left = tape if status is None else status.cut(tape)
    for fault in faults:
        left = left if isinstance(fault, Status) else fault.cut(left)
    return left


def paced(tape: Tape, stretch: float, faults: Sequence[InjectedFault]) -> Tape:
    """The tape with the instants at which it is to be played: the recorded ones, stretched, and the faults' delays."""
    slow = [fault.factor for fault in faults if isinstance(fault, Slow)]
    delayed = _stretched(tape, max(slow, default=stretch))
    for fault in faults:
        delayed = fault.delay(delayed)
    return delayed


class FaultPlan:
    """The faults that all requests of a replay may meet; it counts for those that only the first ones do."""

    def __init__(self, for_all: Iterable[InjectedFault]) -> None:
        self._for_all = tuple(for_all)
        self._met: Counter[Hashable] = Counter()

    def due(self, own: Sequence[InjectedFault], key: Hashable) -> list[InjectedFault]:
        """What the next request meets. Its own faults are counted among those of its key."""
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
"""Kind: its form as a pattern, the same in words, and what is made of it."""


def parse_faults(text: str) -> tuple[InjectedFault, ...]:
    """Several, with commas between them. Raises BadFault."""
    return tuple(parse_fault(one.strip()) for one in text.split(",") if one.strip())


def parse_fault(text: str) -> InjectedFault:
    """Raises BadFault."""
    limited = _FIRST.fullmatch(text)
    fault, first = (limited["fault"], int(limited["count"])) if limited else (text, None)
    kind = fault.partition("@")[0].partition(":")[0]
    if kind not in _KINDS:
        raise BadFault(f"{text!r} is no fault: there are {', '.join(_KINDS)}, as in reset@chunk:7")
    pattern, form, make = _KINDS[kind]
    found = re.fullmatch(pattern, fault, re.ASCII)
    if found is None:
        raise BadFault(f"{text!r} is no fault: write {form}; :first:N may follow")
    return make(found, first)


def _place(word: str, chunks: str | None) -> Place:
    if chunks is not None:
        return int(chunks)
    return AT_HEAD if word == "head" else AT_END


def _ms(number: str | None, unit: str | None) -> int | None:
    return None if number is None else round(float(number) * (1000 if unit == "s" else 1))


# What becomes of a tape.


def _reached(tape: Tape, place: Place) -> Place | None:
    """The place, with the end's counted; None when the tape ends before it."""
    last = AT_HEAD if tape.head is None else len(tape.chunks)
    if place == AT_END:
        return last
    return place if place <= last else None


def _upto(tape: Tape, place: Place, end: StreamEnd) -> Tape:
    at = _reached(tape, place)
    if at is None:
        return tape
    head = None if at == AT_HEAD else tape.head
    return Tape(tape.request, head, tape.chunks[: max(at, 0)], TapeEnding(end=end))


def _later(tape: Tape, place: Place, ms: int) -> Tape:
    """Everything after the place comes so much later."""
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
