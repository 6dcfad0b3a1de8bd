"""The tape format: one recorded exchange with a provider, as JSON Lines.

    {"tape": 1, "request": {"method", "url", "headers", "json" | "text" | "base64"}}
    {"response": {"status", "headers", "ms"}}       absent: the connection ended before the head
    {"ms", "text" | "base64"}                       one network read, after content-decoding; any number of them
    {"end": "eof" | "reset" | "stall" | "client", "ms"}

Every `ms` is a whole number of milliseconds since the request's start. Tapes must not contain credentials; `check`
reports those that do. Tapes of realtime sessions have another format: `socket_file`.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import msgspec

from bridge.redact.body import mask_body
from bridge.redact.text import redact_headers, redact_url
from bridge.tapes.lines import (
    Milliseconds,
    Pairs,
    TapeError,
    TapeHead,
    TapeLine,
    TapeOpening,
    TapeRequest,
    backward_steps,
    bytes_of,
    check_one_form,
    cut,
    last_line,
    lines_of,
    opening,
    pairs,
    parsed,
    text_of,
    written,
)

__all__ = [
    "Pairs",
    "StreamEnd",
    "Tape",
    "TapeChunk",
    "TapeEnding",
    "TapeError",
    "TapeHead",
    "TapeRequest",
    "check",
    "opening",
    "pairs",
    "read_tape",
    "secrets_in",
    "tape_of",
    "write_tape",
]


class StreamEnd(StrEnum):
    """End of a recording."""

    EOF = "eof"
    """The body ended properly."""
    RESET = "reset"
    """The connection broke."""
    STALL = "stall"
    """No more data arrived, and the connection stayed open."""
    CLIENT = "client"
    """The recorded client closed the connection first."""


class TapeChunk(TapeLine):
    """Data of one network read."""

    ms: Milliseconds
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        check_one_form(self.text, self.base64)

    @classmethod
    def of(cls, ms: int, data: bytes) -> "TapeChunk":
        text = text_of(data)
        return cls(ms=ms, base64=data) if text is None else cls(ms=ms, text=text)

    @property
    def data(self) -> bytes:
        return bytes_of(self.text, self.base64)


class TapeEnding(TapeLine):
    end: StreamEnd
    ms: Milliseconds | None = None
    """None means directly after the last line."""


class TapedResponse(TapeLine):
    response: TapeHead


class Tape(NamedTuple):
    request: TapeRequest
    head: TapeHead | None
    chunks: tuple[TapeChunk, ...]
    ending: TapeEnding


def read_tape(path: Path) -> Tape:
    """Read a tape of an exchange. Raises only TapeError, also for incomplete files."""
    first, *rest = lines_of(path)
    request = parsed(path, 1, first, TapeOpening).request
    if request.kind is not None:
        raise TapeError(path, 1, "This is a tape of a realtime session, not of an exchange")
    return tape_of(path, request, rest)


def tape_of(path: Path, request: TapeRequest, rest: Sequence[bytes]) -> Tape:
    """Parse the rest of the tape in `path`, whose first line has been read. Raises TapeError."""
    if not rest:
        raise cut(path, 1)
    *middle, last = enumerate(rest, start=2)
    ending = last_line(path, *last, TapeEnding)
    head = parsed(path, *middle[0], TapedResponse).response if middle else None
    chunks = tuple(parsed(path, number, line, TapeChunk) for number, line in middle[1:])
    return Tape(request, head, chunks, ending)


def write_tape(path: Path, tape: Tape) -> None:
    """Write a tape. `read_tape` returns an equal one, chunk by chunk."""
    path.write_bytes(bytes_of_tape(tape))


def bytes_of_tape(tape: Tape) -> bytes:
    """Return the content of the tape's file."""
    answer = () if tape.head is None else (TapedResponse(response=tape.head),)
    lines: tuple[TapeLine, ...] = (*answer, *tape.chunks, tape.ending)
    return opening(tape.request) + b"".join(map(written, lines))


def check(tape: Tape) -> list[str]:
    """Return the faults of a readable tape; an empty list if it is fit to be kept."""
    bodies = (tape.request.body, b"".join(chunk.data for chunk in tape.chunks))
    return [*_disorder(tape), *secrets_in(tape.request, tape.head, bodies)]


def secrets_in(request: TapeRequest, head: TapeHead | None, bodies: Sequence[bytes]) -> Iterator[str]:
    """Yield a fault for each place where redaction would still remove something."""
    for line in (request, head):
        if line is not None and redact_headers(pairs(line.headers)) != pairs(line.headers):
            yield "holds a credential in its headers"
    if redact_url(request.url) != request.url:
        yield "holds a credential in its URL"
    if any(mask_body(body) != body for body in bodies):
        yield "holds a credential in a body"


def _disorder(tape: Tape) -> Iterator[str]:
    head = tape.head
    if head is None and tape.ending.end is StreamEnd.EOF:
        yield "ends with `eof` but has no response"
    if head is not None and any(name.lower() == "content-encoding" for name, _ in pairs(head.headers)):
        yield "has a content-encoding, but chunks are decoded bytes"
    instants = [line.ms for line in (head, *tape.chunks, tape.ending) if line is not None and line.ms is not None]
    yield from backward_steps(instants)
