"""Interface of a provider's response that is read in pieces, from a connection, a cache or a tape."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

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


class UpstreamResponse(ABC):
    """A response whose head was received. The caller closes it, unless it was read to its end or to an error."""

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

    @property
    @abstractmethod
    def ended(self) -> bool:
        """True if the complete body was read: the next `read` returns b"" without waiting."""

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

    @abstractmethod
    async def read(self) -> bytes:
        """Return the bytes received since the last read; b"" at and after the end. Raises BrokenStream if cut off.

        A cancelled read loses no data.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close the response at once. May be called more than once."""


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
