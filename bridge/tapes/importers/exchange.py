"""Converts exchanges of other tools to recorded exchanges: decodes bodies and splits streams. Pure.

Such recordings have no network reads. Each event of a stream becomes one read, and all reads have the same time.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import httpx

from bridge.formats.codings import CodingError, Inflater
from bridge.formats.decoders import Shape, sniff
from bridge.tapes.exchange import ReceivedHead, RecordedExchange, SentRequest
from bridge.tapes.file import Pairs, StreamEnd, TapeEnding

MAX_BODY_BYTES: Final = 64 << 20
"""Limit of the decompressed body: a few bytes of gzip can expand to gigabytes."""

_INFLATED: Final = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_PLAIN: Final = {"", "identity"}
_GZIP_MAGIC: Final = b"\x1f\x8b"
_NOT_KEPT: Final = {"content-encoding", "content-length", "transfer-encoding"}
"""Headers that describe the encoded body."""
_LEAST_MESSAGE_BYTES: Final = 16

# Atomic: a CRLF is one line end, never two.
_SSE_EVENT = re.compile(rb"(?s).+?(?:(?>\r\n|\n|\r){2}|\Z)")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")


class Skipped(NamedTuple):
    """An entry that cannot become a tape."""

    what: str
    why: str


class Unusable(Exception):
    """An entry or a file cannot be converted; the message says why."""


class ImportedExchange(NamedTuple):
    """An entry of another tool. `body` is the response's, possibly still content-encoded."""

    sent: SentRequest
    status: int
    headers: Pairs
    body: bytes


def exchange_of(imported: ImportedExchange) -> RecordedExchange:
    """Convert an imported exchange. Raises Unusable."""
    url = _url(imported.sent.url)
    body = plain(imported.body, _value(imported.headers, "content-encoding"))
    headers = [(name.lower(), value) for name, value in imported.headers if name.lower() not in _NOT_KEPT]
    content_type = _value(headers, "content-type").partition(";")[0].strip().lower()
    reads = [(0, piece) for piece in pieces(body, content_type, url.path)]
    sent = imported.sent._replace(url=str(url))
    return RecordedExchange(sent, ReceivedHead(imported.status, headers, 0), reads, TapeEnding(end=StreamEnd.EOF, ms=0))


def plain(body: bytes, content_encoding: str) -> bytes:
    """Decode `body`; return it unchanged if the tool has decoded it already. Raises Unusable."""
    for coding in reversed(content_encoding.lower().split(",")):
        name = coding.strip()
        if name in _INFLATED:
            body = _inflated(body, _INFLATED[name])
        elif name not in _PLAIN and not _is_text(body):
            raise Unusable(f"its content coding {name} is not supported")
    return body


def pieces(body: bytes, content_type: str, path: str) -> Iterator[bytes]:
    """Yield the events, lines or messages of a stream; any other non-empty body in one piece."""
    match sniff(content_type, path, body, ended=True):
        case Shape.SSE:
            yield from _SSE_EVENT.findall(body)
        case Shape.NDJSON:
            yield from _LINE.findall(body)
        case Shape.EVENT_STREAM:
            yield from _messages(body)
        case _ if body:
            yield body


def _inflated(body: bytes, coding: str) -> bytes:
    if coding == "gzip" and not body.startswith(_GZIP_MAGIC):
        return body
    inflater = Inflater(coding)
    inflater.feed(body)
    plain_body = bytearray()
    try:
        while piece := inflater.take():
            plain_body += piece
            if len(plain_body) > MAX_BODY_BYTES:
                raise Unusable(f"its body inflates to more than {MAX_BODY_BYTES} bytes")
    except CodingError:
        if _is_text(body):
            return body
        raise Unusable("its compressed body is damaged") from None
    return bytes(plain_body)


def _messages(body: bytes) -> Iterator[bytes]:
    """Yield the messages of an AWS event stream; an invalid rest is one piece."""
    at = 0
    while at < len(body):
        length = int.from_bytes(body[at : at + 4], "big")
        end = at + length if length >= _LEAST_MESSAGE_BYTES else len(body)
        yield body[at:end]
        at = end


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _value(headers: Pairs, wanted: str) -> str:
    return ", ".join(value for name, value in headers if name.lower() == wanted)


def _url(url: str) -> httpx.URL:
    """Parse a URL. Raises Unusable unless it is an absolute http or https URL."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Unusable(f"its URL is invalid: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise Unusable("its URL is not absolute, http or https")
    return parsed
