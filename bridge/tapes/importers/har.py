"""Reads HAR 1.2 archives of browsers and proxies.

Source: "HTTP Archive 1.2", w3c.github.io/web-performance/specs/HAR.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec

from bridge.tapes.exchange import SentRequest
from bridge.tapes.file import Pairs
from bridge.tapes.importers.exchange import ImportedExchange, Skipped, Unusable

SWITCHING_PROTOCOLS = 101


class _HarPair(msgspec.Struct):
    name: str
    value: str = ""


class _PostData(msgspec.Struct, rename="camel"):
    text: str | None = None
    params: list[_HarPair] = []


class _HarRequest(msgspec.Struct, rename="camel"):
    method: str
    url: str
    headers: list[_HarPair] = []
    post_data: _PostData | None = None


class _Content(msgspec.Struct, frozen=True):
    size: float = 0
    text: str | None = None
    encoding: str | None = None


class _HarResponse(msgspec.Struct):
    status: Annotated[int, msgspec.Meta(le=999)]
    headers: list[_HarPair] = []
    content: _Content = _Content()


class _Entry(msgspec.Struct):
    request: _HarRequest
    response: _HarResponse
    messages: Any = msgspec.field(default=None, name="_webSocketMessages")


def is_archive(document: object) -> bool:
    match document:
        case {"log": {"entries": list()}}:
            return True
        case _:
            return False


def entries(document: dict[str, Any]) -> Iterator[ImportedExchange | Skipped]:
    """Yield the entries of the archive in order."""
    for number, each in enumerate(document["log"]["entries"], start=1):
        try:
            yield _entry(msgspec.convert(each, _Entry))
        except (msgspec.ValidationError, Unusable) as error:
            yield Skipped(f"entry {number}", str(error))


def _entry(entry: _Entry) -> ImportedExchange:
    request, response = entry.request, entry.response
    if entry.messages is not None or response.status == SWITCHING_PROTOCOLS or request.url.startswith(("ws:", "wss:")):
        raise Unusable("it is a WebSocket, not a single exchange")
    if response.status < SWITCHING_PROTOCOLS:
        raise Unusable("it has no response")
    sent = SentRequest(request.method.upper(), request.url, _pairs(request.headers), _posted(request.post_data))
    return ImportedExchange(sent, response.status, _pairs(response.headers), _body(response.content))


def _pairs(headers: list[_HarPair]) -> Pairs:
    """Return headers without the pseudo-headers of HTTP/2 that browsers list."""
    return [(header.name.lower(), header.value) for header in headers if not header.name.startswith(":")]


def _posted(data: _PostData | None) -> bytes:
    if data is None:
        return b""
    if data.text is not None:
        return data.text.encode(errors="replace")
    return urlencode([(field.name, field.value) for field in data.params]).encode()


def _body(content: _Content) -> bytes:
    if content.text is None:
        if content.size > 0:
            raise Unusable("its body is not in the file")
        return b""
    if content.encoding != "base64":
        return content.text.encode(errors="replace")
    try:
        return base64.b64decode(content.text)
    except (binascii.Error, ValueError):
        raise Unusable("its body is not valid base64") from None
