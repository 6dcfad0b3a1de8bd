"""The tape format: one recorded exchange with a provider, as JSON Lines.

    {"tape": 1, "request": {"method", "url", "headers", "json" | "text" | "base64"}}
    {"response": {"status", "headers", "ms"}}       absent: the connection ended before the head
    {"ms", "text" | "base64"}                       one network read, after content-decoding; any number of them
    {"end": "eof" | "reset" | "stall" | "client", "ms"}

Every `ms` is a whole number of milliseconds since the request's start. Tapes hold no credentials; `check` says so when
one does. A realtime session's tape is another kind: `socket_tape`.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import pairwise
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
    bytes_of,
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
    """How a recording ended."""

    EOF = "eof"
    """The body came to its proper end."""
    RESET = "reset"
    """The connection broke."""
    STALL = "stall"
    """Nothing more came, and the connection stayed open."""
    CLIENT = "client"
    """The client that was recorded left first."""


class TapeChunk(TapeLine):
    """What one network read gave."""

    ms: Milliseconds
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if (self.text is msgspec.UNSET) == (self.base64 is msgspec.UNSET):
            raise ValueError("A chunk has either `text` or `base64`")

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
    """None: right after what came last."""


class TapedResponse(TapeLine):
    response: TapeHead


class Tape(NamedTuple):
    request: TapeRequest
    head: TapeHead | None
    chunks: tuple[TapeChunk, ...]
    ending: TapeEnding


def read_tape(path: Path) -> Tape:
    """Raises TapeError, and nothing else, for a file that is not a whole tape of an exchange."""
    first, *rest = lines_of(path)
    request = parsed(path, 1, first, TapeOpening).request
    if request.kind is not None:
        raise TapeError(path, 1, "It is a tape of a realtime session, not of an exchange")
    return tape_of(path, request, rest)


def tape_of(path: Path, request: TapeRequest, rest: Sequence[bytes]) -> Tape:
    """The tape that `path` holds, whose first line has been read. Raises TapeError."""
    if not rest:
        raise cut(path, 1)
    *middle, last = enumerate(rest, start=2)
    ending = last_line(path, *last, TapeEnding)
    head = parsed(path, *middle[0], TapedResponse).response if middle else None
    chunks = tuple(parsed(path, number, line, TapeChunk) for number, line in middle[1:])
    return Tape(request, head, chunks, ending)


def write_tape(path: Path, tape: Tape) -> None:
    """What `read_tape` gives back is equal to `tape`, chunk for chunk."""
    path.write_bytes(bytes_of_tape(tape))


def bytes_of_tape(tape: Tape) -> bytes:
    """Return all that the tape's file holds."""
    answer = () if tape.head is None else (TapedResponse(response=tape.head),)
    lines: tuple[TapeLine, ...] = (*answer, *tape.chunks, tape.ending)
    return opening(tape.request) + b"".join(map(written, lines))


def check(tape: Tape) -> list[str]:
    """What is wrong with a tape that can be read; nothing, for one that is fit to be kept."""
    bodies = (tape.request.body, b"".join(chunk.data for chunk in tape.chunks))
    return [*_disorder(tape), *secrets_in(tape.request, tape.head, bodies)]


def secrets_in(request: TapeRequest, head: TapeHead | None, bodies: Sequence[bytes]) -> Iterator[str]:
    """Redaction is the judge: it finds nothing to take out of a tape that may be kept."""
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
    if any(later < earlier for earlier, later in pairwise(instants)):
        yield "runs backwards: an `ms` is smaller than the one before"
