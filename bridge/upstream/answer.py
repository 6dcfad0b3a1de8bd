"""Interface of a provider's response whose body is delivered in pieces, from a connection, a cache or a tape."""

from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from functools import cached_property

import httpx

from bridge.errors import BrokenStream
from bridge.upstream.body import Delivery, Reads

PUBLIC_HEADERS_BYTES = 16_384

_NOT_PUBLIC = {
    "connection",
    "content-encoding",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


class UpstreamResponse(Delivery):
    """A response whose head was received. The caller closes it in every case.

    `break_of` translates the error that `BodyReceiver.failed` is called with.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    """Names in lower case, in the provider's order; repeated ones as often as they came."""

    @property
    def cached(self) -> bool:
        """True if this reader's event caused no provider call. For a shared response it is final once closed."""
        return False

    @abstractmethod
    def mark_complete(self) -> None:
        """Report that the response was read completely and is good, so that it may be cached."""

    @cached_property
    def content_type(self) -> str:
        """Bare media type in lower case; "" if the provider sends none."""
        value = next((value for name, value in self.headers if name == "content-type"), "")
        return value.partition(";")[0].strip().lower()

    @property
    def announced_bytes(self) -> int:
        """Length of the body from Content-Length; 0 if it is missing."""
        length = next((value for name, value in self.headers if name == "content-length"), "")
        return int(length) if length.isdecimal() else 0

    @cached_property
    def public_headers(self) -> dict[str, str]:
        return public_headers(self.headers)


def break_of(error: Exception) -> Exception:
    """Return the bridge's error for one that `BodyReceiver.failed` was called with; an unexpected one is returned."""
    return BrokenStream(str(error)) if isinstance(error, httpx.RequestError) else error


async def reads_of(response: UpstreamResponse) -> AsyncGenerator[bytes, None]:
    """Iterate over the body's reads. Raises BrokenStream if it is cut off or damaged."""
    try:
        async for data in Reads(response):
            yield data
    except httpx.RequestError as error:
        raise break_of(error) from error


def public_headers(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the response headers (lower-case names) for the client. Repeated headers are joined by commas.

    Headers beyond a total of 16 KiB are dropped.
    """
    hidden = _NOT_PUBLIC.union(*(_listed(value) for name, value in headers if name == "connection"))
    public: dict[str, str] = {}
    size = 0
    for name, value in headers:
        if name in hidden:
            continue
        size += len(name) + len(value)
        if size > PUBLIC_HEADERS_BYTES:
            break
        public[name] = f"{public[name]}, {value}" if name in public else value
    return public


def _listed(connection: str) -> set[str]:
    """Return the headers that a Connection header makes hop-by-hop (RFC 9110, section 7.6.1)."""
    return {name.strip().lower() for name in connection.split(",")}
