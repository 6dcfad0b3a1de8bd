"""What every line of a tape has in common, of whichever kind; and a tape's first line. JSON Lines, read and written.

What a line is, its place tells: so a tape can be cut, but not be muddled.
"""

from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import httpx
import msgspec

Milliseconds = Annotated[int, msgspec.Meta(ge=0)]
"""Since the request's start."""
Pairs = list[tuple[str, str]]
Kind = Literal["realtime"]

SOCKET_METHOD: Final = "WEBSOCKET"
"""What stands for a method where a session on a WebSocket is named beside requests."""

_KINDS: Final[dict[str, Kind | None]] = {"http": None, "https": None, "ws": "realtime", "wss": "realtime"}


class TapeError(Exception):
    """A file that is no tape: which one, on which line (counted from 1; 0: the file as a whole), and why."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}" if line else f"{path}: {message}")
        self.path, self.line, self.message = path, line, message


class TapeLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Strict on unknown keys: a misspelt one would otherwise change what is replayed without a word."""


class TapeRequest(TapeLine):
    """An exchange's, or a WebSocket's handshake: what its URL says."""

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
        if url.scheme not in _KINDS or not url.host:
            raise ValueError("A request's URL is absolute, http or https; a realtime session's ws or wss")

    @classmethod
    def of(
        cls, method: str, url: str, body: bytes = b"", headers: dict[str, str] | Pairs | None = None
    ) -> "TapeRequest":
        """Writes the body in the most readable form that gives the same bytes again."""
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
    def what(self) -> str:
        """Its method, or what stands for one."""
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
    """Lenient: tells a recording that was cut from one whose last line is wrong."""

    end: msgspec.Raw


LineT = TypeVar("LineT", bound=TapeLine)


def opening(request: TapeRequest) -> bytes:
    """A tape's first line, its end of line included; with nothing after it, that of a recording that was cut."""
    return written(TapeOpening(tape=1, kind=request.kind or msgspec.UNSET, request=request))


def written(line: TapeLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def pairs(headers: dict[str, str] | Pairs) -> Pairs:
    return list(headers.items()) if isinstance(headers, dict) else headers


def lines_of(path: Path) -> list[bytes]:
    """At least one. Raises TapeError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TapeError(path, 0, f"Cannot be read: {error.strerror}") from error
    # Not splitlines(): a tape may hold U+2028 and its kin inside a string.
    return content.removesuffix(b"\n").split(b"\n")


def parsed(path: Path, number: int, line: bytes, form: type[LineT]) -> LineT:
    """Raises TapeError."""
    try:
        return msgspec.json.decode(line, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TapeError(path, number, str(error)) from None


def last_line(path: Path, number: int, line: bytes, form: type[LineT]) -> LineT:
    """Raises TapeError, which says so if the tape was cut."""
    try:
        msgspec.json.decode(line, type=_AnyEnding)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise cut(path, number) from None
    return parsed(path, number, line, form)


def cut(path: Path, number: int) -> TapeError:
    return TapeError(path, number, 'The recording was cut: its last line is not {"end": …}')


def text_of(data: bytes) -> str | None:
    """None for what is no UTF-8."""
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
