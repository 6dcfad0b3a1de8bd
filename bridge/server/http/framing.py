"""The head of an HTTP answer as bytes, and how the end of its body is told (RFC 9112)."""

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
    """How the client knows where the body ends."""

    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()
    """By the connection's end: all there is for HTTP/1.0 where the length is not known."""
    NONE = auto()
    """There is no body."""


def framing_of(method: str, status: int, *, length: int | None, is_http_1_1: bool) -> Framing:
    """RFC 9112, section 6.3."""
    if method == "HEAD" or status in _BODILESS:
        return Framing.NONE
    if length is not None:
        return Framing.LENGTH
    return Framing.CHUNKED if is_http_1_1 else Framing.UNTIL_CLOSE


def head(status: int, headers: Iterable[tuple[str, str]], *, is_http_1_1: bool) -> bytes:
    """Status line and headers: a character of a value is a byte of it. What cannot stand in a value is left out."""
    lines = [f"HTTP/1.{int(is_http_1_1)} {status} {_REASONS.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers if not _UNSENDABLE.search(value)]
    return "\r\n".join((*lines, "", "")).encode("latin-1", "replace")


def chunk(parts: list[bytes]) -> bytes:
    """Of a chunked body; `parts` together are not empty."""
    return b"".join((b"%x\r\n" % sum(map(len, parts)), *parts, b"\r\n"))
