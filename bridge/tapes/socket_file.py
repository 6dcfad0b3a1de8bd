"""The tape format of a realtime session: a WebSocket to a provider, as JSON Lines.

    {"tape": 1, "kind": "realtime", "request": {"method": "GET", "url": "wss://…", "headers"}}
    {"response": {"status", "headers", "ms"}}       101; else a refusal, with its body: "text" | "base64"
    {"ms", "from": "client" | "provider", "text" | "base64"}        one message; any number of them
    {"end": "closed", "by": "client" | "provider", "code", "reason", "ms"}  "lost": no close frame; "refused"

Every `ms` is a whole number of milliseconds since the handshake's start, taken when the bridge sent a message to the
provider or received it. A text message has `text`, a binary one `base64`. Otherwise "opcode" gives the type: binary
messages with JSON are written as text for readability, and text that is not UTF-8 as base64.
"""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from bridge.tapes.file import Tape, secrets_in, tape_of
from bridge.tapes.lines import (
    Milliseconds,
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
    parsed,
    text_of,
    written,
)

Side = Literal["client", "provider"]
Opcode = Literal["text", "binary"]

UPGRADED: Final = 101
_JSON_BEGINS: Final = (b"{", b"[")


class Handshake(TapeHead, kw_only=True):
    """Response of the provider. Only a refusal has a body."""

    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET

    @property
    def body(self) -> bytes:
        return bytes_of(self.text, self.base64)


class Message(TapeLine, kw_only=True):
    ms: Milliseconds
    sender: Side = msgspec.field(name="from")
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET
    explicit_opcode: Opcode | msgspec.UnsetType = msgspec.field(name="opcode", default=msgspec.UNSET)

    def __post_init__(self) -> None:
        check_one_form(self.text, self.base64)

    @classmethod
    def of(cls, ms: int, sender: Side, opcode: Opcode, data: bytes) -> "Message":
        """Create a message in the most readable form that preserves it."""
        text = text_of(data) if opcode == "text" or data.startswith(_JSON_BEGINS) else None
        message = cls(ms=ms, sender=sender, base64=data) if text is None else cls(ms=ms, sender=sender, text=text)
        if message.opcode != opcode:
            message.explicit_opcode = opcode
        return message

    @property
    def data(self) -> bytes:
        return bytes_of(self.text, self.base64)

    @property
    def opcode(self) -> Opcode:
        return self.explicit_opcode or ("binary" if self.text is msgspec.UNSET else "text")


class SocketEnd(StrEnum):
    CLOSED = "closed"
    """Closed with a close frame by the side in `by`."""
    LOST = "lost"
    """The connection was lost without a close frame; `by` is the side that disconnected."""
    REFUSED = "refused"
    """The handshake was refused."""


class SocketEnding(TapeLine, kw_only=True):
    end: SocketEnd
    by: Side | msgspec.UnsetType = msgspec.UNSET
    code: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | msgspec.UnsetType = msgspec.UNSET
    """Code of the close frame; 1005 if it has none (RFC 6455, section 7.1.5)."""
    reason: str = ""
    ms: Milliseconds

    def __post_init__(self) -> None:
        if (self.by is msgspec.UNSET) != (self.end is SocketEnd.REFUSED):
            raise ValueError("A closed or lost session has `by`; a refused one has not")
        if (self.code is msgspec.UNSET) == (self.end is SocketEnd.CLOSED):
            raise ValueError("Only a closed session has a `code`")


class HandshakeLine(TapeLine):
    response: Handshake


class SocketTape(NamedTuple):
    request: TapeRequest
    handshake: Handshake
    messages: tuple[Message, ...]
    ending: SocketEnding


def read_any(path: Path) -> Tape | SocketTape:
    """Read a tape of either kind. Raises only TapeError, also for incomplete files."""
    first, *rest = lines_of(path)
    request = parsed(path, 1, first, TapeOpening).request
    return tape_of(path, request, rest) if request.kind is None else _socket_tape_of(path, request, rest)


def write_socket_tape(path: Path, tape: SocketTape) -> None:
    """Write a tape. `read_any` returns an equal one."""
    lines: tuple[TapeLine, ...] = (HandshakeLine(response=tape.handshake), *tape.messages, tape.ending)
    path.write_bytes(opening(tape.request) + b"".join(map(written, lines)))


def check_socket_tape(tape: SocketTape) -> list[str]:
    """Return the faults of a readable tape; an empty list if it is fit to be kept."""
    bodies = [tape.handshake.body, *(message.data for message in tape.messages)]
    return [*_disorder(tape), *secrets_in(tape.request, tape.handshake, bodies)]


def _socket_tape_of(path: Path, request: TapeRequest, rest: list[bytes]) -> SocketTape:
    if len(rest) < 2:
        raise cut(path, 1 + len(rest))
    (_, second), *middle, last = enumerate(rest, start=2)
    ending = last_line(path, *last, SocketEnding)
    handshake = parsed(path, 2, second, HandshakeLine).response
    if (ending.end is SocketEnd.REFUSED) == (handshake.status == UPGRADED):
        raise TapeError(path, last[0], "A session ends as refused if and only if the handshake's status is not 101")
    return SocketTape(request, handshake, tuple(parsed(path, *each, Message) for each in middle), ending)


def _disorder(tape: SocketTape) -> Iterator[str]:
    if tape.messages and tape.ending.end is SocketEnd.REFUSED:
        yield "was refused, but has messages"
    instants = [tape.handshake.ms, *(message.ms for message in tape.messages), tape.ending.ms]
    yield from backward_steps(instants)
