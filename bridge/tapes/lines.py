"""Reads and writes lines of tapes as JSON Lines: the base of all lines, and the first line of both kinds of tape.

The position of a line determines its type, so a tape can be cut but not reordered unnoticed.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import httpx
import msgspec

Milliseconds = Annotated[int, msgspec.Meta(ge=0)]
"""Milliseconds since the request's start."""
Pairs = list[tuple[str, str]]
Kind = Literal["realtime"]

SOCKET_METHOD: Final = "WEBSOCKET"
"""Replacement for the method of a WebSocket session in lists of requests."""

_KINDS: Final[dict[str, Kind | None]] = {"http": None, "https": None, "ws": "realtime", "wss": "realtime"}


class TapeError(Exception):
    """A file is not a valid tape. Lines are counted from 1; 0 means the entire file."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}" if line else f"{path}: {message}")
        self.path, self.line, self.message = path, line, message


class TapeLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all lines. Unknown keys are errors: a misspelt key would otherwise change a replay silently."""


class TapeRequest(TapeLine):
    """Request of an exchange or of a WebSocket handshake; its URL determines which."""

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
            raise ValueError(f"Invalid URL: {error}") from None
        if url.scheme not in _KINDS or not url.host:
            raise ValueError("A request's URL is absolute, http or https; a realtime session's ws or wss")

    @classmethod
    def of(
        cls, method: str, url: str, body: bytes = b"", headers: dict[str, str] | Pairs | None = None
    ) -> "TapeRequest":
        """Create a request with the most readable form of the body that preserves its bytes."""
        request = cls(method=method, url=url, headers=headers or {})
        if _fits_a_line(body):
            request.json = msgspec.Raw(body)
        elif (text := text_of(body)) is None:
            request.base64 = body
        elif text:
            request.text = text
        return request

    @property
    def body(self) -> bytes:
        return bytes(self.json) if self.json is not msgspec.UNSET else bytes_of(self.text, self.base64)

    @property
    def kind(self) -> Kind | None:
        return _KINDS[httpx.URL(self.url).scheme]

    @property
    def matched_method(self) -> str:
        """Return the method of the request, or SOCKET_METHOD for a session."""
        return SOCKET_METHOD if self.kind else self.method


class TapeHead(TapeLine, kw_only=True):
    status: Annotated[int, msgspec.Meta(ge=100, le=999)]
    headers: dict[str, str] | Pairs = {}
    ms: Milliseconds


class TapeOpening(TapeLine, kw_only=True):
    tape: Literal[1]
    kind: Kind | msgspec.UnsetType = msgspec.UNSET
    request: TapeRequest

    def __post_init__(self) -> None:
        if (self.kind or None) != self.request.kind:
            raise ValueError('A tape whose URL is ws or wss is of the kind "realtime", and no other is')


class _AnyEnding(msgspec.Struct):
    """Lenient form that distinguishes a cut recording from an invalid last line."""

    end: msgspec.Raw


LineT = TypeVar("LineT", bound=TapeLine)


def opening(request: TapeRequest) -> bytes:
    """Return the first line of a tape with its line end. A file with only this line is a cut recording."""
    return written(TapeOpening(tape=1, kind=request.kind or msgspec.UNSET, request=request))


def written(line: TapeLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def pairs(headers: dict[str, str] | Pairs) -> Pairs:
    return list(headers.items()) if isinstance(headers, dict) else headers


def check_one_form(text: str | msgspec.UnsetType, base64: bytes | msgspec.UnsetType) -> None:
    """Raise ValueError unless a chunk or message has either `text` or `base64`."""
    if (text is msgspec.UNSET) == (base64 is msgspec.UNSET):
        raise ValueError("A chunk or message has either `text` or `base64`")


def backward_steps(instants: Sequence[int]) -> Iterator[str]:
    """Yield a fault if the instants of a tape's lines are not in order."""
    if any(later < earlier for earlier, later in pairwise(instants)):
        yield "runs backwards: an `ms` is smaller than the one before"


def lines_of(path: Path) -> list[bytes]:
    """Return the lines of a file, at least one. Raises TapeError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TapeError(path, 0, f"Cannot be read: {error.strerror}") from error
    # Not splitlines(): a string in a tape may contain U+2028 and similar characters.
    return content.removesuffix(b"\n").split(b"\n")


def parsed(path: Path, number: int, line: bytes, form: type[LineT]) -> LineT:
    """Parse a line. Raises TapeError."""
    try:
        return msgspec.json.decode(line, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TapeError(path, number, str(error)) from None


def last_line(path: Path, number: int, line: bytes, form: type[LineT]) -> LineT:
    """Parse the last line. Raises TapeError, which reports a cut recording as such."""
    try:
        msgspec.json.decode(line, type=_AnyEnding)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise cut(path, number) from None
    return parsed(path, number, line, form)


def cut(path: Path, number: int) -> TapeError:
    return TapeError(path, number, 'The recording was cut: its last line is not {"end": …}')


def text_of(data: bytes) -> str | None:
    """Return the text; None if it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def bytes_of(text: str | msgspec.UnsetType, base64: bytes | msgspec.UnsetType) -> bytes:
    if text is not msgspec.UNSET:
        return text.encode()
    return b"" if base64 is msgspec.UNSET else base64


def _fits_a_line(body: bytes) -> bool:
    if b"\n" in body:
        return False
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
