"""The head of an HTTP response as bytes, and the framing of its body (RFC 9112). Pure."""

import re
from collections.abc import Iterable
from enum import Enum, auto
from http import HTTPStatus
from typing import Final

LAST_CHUNK: Final = b"0\r\n\r\n"

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_UNSENDABLE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BODILESS: Final = {204, 304}


class Framing(Enum):
    """The way in which the client finds the end of the body."""

    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()
    """The body ends with the connection: the only way for HTTP/1.0 without a known length."""
    NONE = auto()
    """There is no body."""


def framing_of(method: str, status: int, *, length: int | None, is_http_1_1: bool) -> Framing:
    """Return the framing of a response's body (RFC 9112, section 6.3)."""
    if method == "HEAD" or status in _BODILESS:
        return Framing.NONE
    if length is not None:
        return Framing.LENGTH
    return Framing.CHUNKED if is_http_1_1 else Framing.UNTIL_CLOSE


def head(status: int, headers: Iterable[tuple[str, str]], *, is_http_1_1: bool) -> bytes:
    """Return status line and headers; each character of a value is one byte. Headers with control characters are left
    out.
    """
    lines = [f"HTTP/1.{int(is_http_1_1)} {status} {_REASONS.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers if not _UNSENDABLE.search(value)]
    return "\r\n".join((*lines, "", "")).encode("latin-1", "replace")


def chunk(parts: list[bytes]) -> bytes:
    """Return one chunk of a chunked body; `parts` together are not empty."""
    return b"".join((b"%x\r\n" % sum(map(len, parts)), *parts, b"\r\n"))
