"""The tape of a realtime session: a WebSocket at a provider, as JSON Lines.

    {"tape": 1, "kind": "realtime", "request": {"method": "GET", "url": "wss://…", "headers"}}
    {"response": {"status", "headers", "ms"}}       101; else a refusal, with its body: "text" | "base64"
    {"ms", "from": "client" | "provider", "text" | "base64"}        one message; any number of them
    {"end": "closed", "by": "client" | "provider", "code", "reason", "ms"}  or "lost", without a goodbye; or "refused"

Every `ms` is a whole number of milliseconds since the handshake's start; the instants are those at which the bridge
passed a message to the provider, or got it from there. A message of text has `text`, a binary one `base64`; where
that does not suit, "opcode" says which it was: for binary messages of JSON, which one wants to read, and for text that
is no UTF-8.
"""

from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
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
    bytes_of,
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
    """The provider's answer. One that agrees has no body."""

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
    given: Opcode | msgspec.UnsetType = msgspec.field(name="opcode", default=msgspec.UNSET)

    def __post_init__(self) -> None:
        if (self.text is msgspec.UNSET) == (self.base64 is msgspec.UNSET):
            raise ValueError("A message has either `text` or `base64`")

    @classmethod
    def of(cls, ms: int, sender: Side, opcode: Opcode, data: bytes) -> "Message":
        """Writes it in the most readable form that gives the same message again."""
        text = text_of(data) if opcode == "text" or data.startswith(_JSON_BEGINS) else None
        message = cls(ms=ms, sender=sender, base64=data) if text is None else cls(ms=ms, sender=sender, text=text)
        if message.opcode != opcode:
            message.given = opcode
        return message

    @property
    def data(self) -> bytes:
        return bytes_of(self.text, self.base64)

    @property
    def opcode(self) -> Opcode:
        return self.given or ("binary" if self.text is msgspec.UNSET else "text")


class SocketEnd(StrEnum):
    CLOSED = "closed"
    """With a close frame; `by` whom."""
    LOST = "lost"
    """The connection to the provider, without a goodbye; `by` says who went."""
    REFUSED = "refused"
    """There never was a session."""


class SocketEnding(TapeLine, kw_only=True):
    end: SocketEnd
    by: Side | msgspec.UnsetType = msgspec.UNSET
    code: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | msgspec.UnsetType = msgspec.UNSET
    """Of the close frame; 1005 for one without (RFC 6455, section 7.1.5)."""
    reason: str = ""
    ms: Milliseconds

    def __post_init__(self) -> None:
        if (self.by is msgspec.UNSET) != (self.end is SocketEnd.REFUSED):
            raise ValueError("A session that was closed or lost was so `by` one side; one that was refused, by none")
        if (self.code is msgspec.UNSET) == (self.end is SocketEnd.CLOSED):
            raise ValueError("A session that was closed has a `code`, and no other has")


class Agreement(TapeLine):
    response: Handshake


class SocketTape(NamedTuple):
    request: TapeRequest
    handshake: Handshake
    messages: tuple[Message, ...]
    ending: SocketEnding


def read_any(path: Path) -> Tape | SocketTape:
    """A tape of whichever kind. Raises TapeError, and nothing else, for a file that is no whole one."""
    first, *rest = lines_of(path)
    request = parsed(path, 1, first, TapeOpening).request
    return tape_of(path, request, rest) if request.kind is None else _socket_tape_of(path, request, rest)


def write_socket_tape(path: Path, tape: SocketTape) -> None:
    """What `read_any` gives back is equal to `tape`."""
    lines: tuple[TapeLine, ...] = (Agreement(response=tape.handshake), *tape.messages, tape.ending)
    path.write_bytes(opening(tape.request) + b"".join(map(written, lines)))


def check_socket_tape(tape: SocketTape) -> list[str]:
    """What is wrong with a tape that can be read; nothing, for one that is fit to be kept."""
    bodies = [tape.handshake.body, *(message.data for message in tape.messages)]
    return [*_disorder(tape), *secrets_in(tape.request, tape.handshake, bodies)]


def _socket_tape_of(path: Path, request: TapeRequest, rest: list[bytes]) -> SocketTape:
    if len(rest) < 2:
        raise cut(path, 1 + len(rest))
    (_, second), *middle, last = enumerate(rest, start=2)
    ending = last_line(path, *last, SocketEnding)
    handshake = parsed(path, 2, second, Agreement).response
    if (ending.end is SocketEnd.REFUSED) == (handshake.status == UPGRADED):
        raise TapeError(path, last[0], "A session is refused when the handshake's answer is not 101, and only then")
    return SocketTape(request, handshake, tuple(parsed(path, *each, Message) for each in middle), ending)


def _disorder(tape: SocketTape) -> Iterator[str]:
    if tape.messages and tape.ending.end is SocketEnd.REFUSED:
        yield "was refused, but has messages"
    instants = [tape.handshake.ms, *(message.ms for message in tape.messages), tape.ending.ms]
    if any(later < earlier for earlier, later in pairwise(instants)):
        yield "runs backwards: an `ms` is smaller than the one before"
