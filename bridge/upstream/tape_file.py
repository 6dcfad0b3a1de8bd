"""The tape format: one recorded exchange with a provider, as JSON Lines.

    {"tape": 1, "request": {"method", "url", "headers", "json" | "text" | "base64"}}
    {"response": {"status", "headers", "ms"}}       absent: the connection ended before the head
    {"ms", "text" | "base64"}                       one network read, after content-decoding; any number of them
    {"end": "eof" | "reset" | "stall" | "client", "ms"}

Every `ms` is a whole number of milliseconds since the request's start. What a line is, its place tells: so a tape can
be cut, but not be muddled. Tapes hold no credentials; `check` says so when one does.
"""

from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import httpx
import msgspec

from bridge import redact
from bridge.upstream.tape_redaction import masked

Milliseconds = Annotated[int, msgspec.Meta(ge=0)]
Pairs = list[tuple[str, str]]


class TapeError(Exception):
    """A file that is no tape: which one, on which line (counted from 1; 0: the file as a whole), and why."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}" if line else f"{path}: {message}")
        self.path, self.line, self.message = path, line, message


class End(StrEnum):
    """How a recording ended."""

    EOF = "eof"
    """The body came to its proper end."""
    RESET = "reset"
    """The connection broke."""
    STALL = "stall"
    """Nothing more came, and the connection stayed open."""
    CLIENT = "client"
    """The client that was recorded left first."""


class Line(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Strict on unknown keys: a misspelt one would otherwise change what is replayed without a word."""


class Request(Line):
    method: str
    url: str
    headers: dict[str, str] | Pairs = {}
    json: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if sum(form is not msgspec.UNSET for form in (self.json, self.text, self.base64)) > 1:
            raise ValueError("A request has one body: `json`, `text` or `base64`")
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise ValueError(f"No URL: {error}") from None
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError("A request's URL is absolute, http or https")

    @classmethod
    def of(cls, method: str, url: str, body: bytes = b"", headers: dict[str, str] | Pairs | None = None) -> "Request":
        """Writes the body in the most readable form that gives the same bytes again."""
        request = cls(method=method, url=url, headers=headers or {})
        if _fits_a_line(body):
            request.json = msgspec.Raw(body)
        elif (text := _text(body)) is None:
            request.base64 = body
        elif text:
            request.text = text
        return request

    @property
    def body(self) -> bytes:
        return bytes(self.json) if self.json is not msgspec.UNSET else _bytes(self.text, self.base64)


class Head(Line, kw_only=True):
    status: Annotated[int, msgspec.Meta(ge=100, le=999)]
    headers: dict[str, str] | Pairs = {}
    ms: Milliseconds


class Chunk(Line):
    """What one network read gave."""

    ms: Milliseconds
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if (self.text is msgspec.UNSET) == (self.base64 is msgspec.UNSET):
            raise ValueError("A chunk has either `text` or `base64`")

    @classmethod
    def of(cls, ms: int, data: bytes) -> "Chunk":
        text = _text(data)
        return cls(ms=ms, base64=data) if text is None else cls(ms=ms, text=text)

    @property
    def data(self) -> bytes:
        return _bytes(self.text, self.base64)


class Ending(Line):
    end: End
    ms: Milliseconds | None = None
    """None: right after what came last."""


class _AnyEnding(msgspec.Struct):
    """Lenient: tells a recording that was cut from one whose last line is wrong."""

    end: msgspec.Raw


class Opening(Line):
    tape: Literal[1]
    request: Request


class Answer(Line):
    response: Head


class Tape(NamedTuple):
    request: Request
    head: Head | None
    chunks: tuple[Chunk, ...]
    ending: Ending


LineT = TypeVar("LineT", bound=Line)


def read_tape(path: Path) -> Tape:
    """Raises TapeError, and nothing else, for a file that is not a whole tape."""
    first, *rest = _lines(path)
    request = _parsed(path, 1, first, Opening).request
    if not rest:
        raise _cut(path, 1)
    *middle, last = enumerate(rest, start=2)
    ending = _ending(path, *last)
    head = _parsed(path, *middle[0], Answer).response if middle else None
    chunks = tuple(_parsed(path, number, line, Chunk) for number, line in middle[1:])
    return Tape(request, head, chunks, ending)


def write_tape(path: Path, tape: Tape) -> None:
    """What `read_tape` gives back is equal to `tape`, chunk for chunk."""
    answer = () if tape.head is None else (Answer(response=tape.head),)
    lines: tuple[Line, ...] = (*answer, *tape.chunks, tape.ending)
    path.write_bytes(opening(tape.request) + b"".join(map(_written, lines)))


def opening(request: Request) -> bytes:
    """A tape's first line, its end of line included; with nothing after it, that of a recording that was cut."""
    return _written(Opening(tape=1, request=request))


def _written(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def check(tape: Tape) -> list[str]:
    """What is wrong with a tape that can be read; nothing, for one that is fit to be kept."""
    return [*_disorder(tape), *_secrets(tape)]


def pairs(headers: dict[str, str] | Pairs) -> Pairs:
    return list(headers.items()) if isinstance(headers, dict) else headers


def _disorder(tape: Tape) -> Iterator[str]:
    head = tape.head
    if head is None and tape.ending.end is End.EOF:
        yield "ends with `eof` but has no response"
    if head is not None and any(name.lower() == "content-encoding" for name, _ in pairs(head.headers)):
        yield "has a content-encoding, but chunks are decoded bytes"
    instants = [line.ms for line in (head, *tape.chunks, tape.ending) if line is not None and line.ms is not None]
    if any(later < earlier for earlier, later in pairwise(instants)):
        yield "runs backwards: an `ms` is smaller than the one before"


def _secrets(tape: Tape) -> Iterator[str]:
    """Redaction is the judge: it finds nothing to take out of a tape that may be kept."""
    for line in (tape.request, tape.head):
        if line is not None and redact.headers(pairs(line.headers)) != pairs(line.headers):
            yield "holds a credential in its headers"
    if redact.url(tape.request.url) != tape.request.url:
        yield "holds a credential in its URL"
    bodies = (tape.request.body, b"".join(chunk.data for chunk in tape.chunks))
    if any(masked(body) != body for body in bodies):
        yield "holds a credential in a body"


def _lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TapeError(path, 0, f"Cannot be read: {error.strerror}") from error
    # Not splitlines(): a tape may hold U+2028 and its kin inside a string.
    return content.removesuffix(b"\n").split(b"\n")


def _parsed(path: Path, number: int, line: bytes, form: type[LineT]) -> LineT:
    try:
        return msgspec.json.decode(line, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TapeError(path, number, str(error)) from None


def _ending(path: Path, number: int, line: bytes) -> Ending:
    try:
        msgspec.json.decode(line, type=_AnyEnding)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _cut(path, number) from None
    return _parsed(path, number, line, Ending)


def _cut(path: Path, number: int) -> TapeError:
    return TapeError(path, number, 'The recording was cut: its last line is not {"end": …}')


def _fits_a_line(body: bytes) -> bool:
    if b"\n" in body:
        return False
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _bytes(text: str | msgspec.UnsetType, base64: bytes | msgspec.UnsetType) -> bytes:
    if text is not msgspec.UNSET:
        return text.encode()
    return b"" if base64 is msgspec.UNSET else base64
