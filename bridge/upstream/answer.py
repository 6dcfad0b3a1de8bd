"""An answer to one call, read piece by piece, wherever it comes from."""

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
    """An answer whose head has come. Who was given it closes it, unless it was read to its end or to its break."""

    status: int
    headers: Sequence[tuple[str, str]]
    """Names in lower case, in the provider's order; repeated ones as often as they came."""

    @property
    def cached(self) -> bool:
        """Whether no provider is called on its reader's account. Of an answer that several read, the last word on
        that is known once it is closed."""
        return False

    @abstractmethod
    def mark_complete(self) -> None:
        """Told by whoever read it: what was read of it is whole and good."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """The body is whole, and all of it has been read: the next `read` gives b"" without waiting."""

    @cached_property
    def content_type(self) -> str:
        """The bare media type in lower case; "" when the provider names none."""
        value = next((value for name, value in self.headers if name == "content-type"), "")
        return value.partition(";")[0].strip().lower()

    @property
    def announced_bytes(self) -> int:
        """How long the body is going to be; 0 when that is not told."""
        length = next((value for name, value in self.headers if name == "content-length"), "")
        return int(length) if length.isdecimal() else 0

    @cached_property
    def public_headers(self) -> dict[str, str]:
        return public_headers(self.headers)

    @abstractmethod
    async def read(self) -> bytes:
        """What has come since the last read; b"" at the clean end, and ever after. Raises BrokenStream when cut.

        A read that is cancelled takes nothing away from the next.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """At once, and as often as one likes."""


def public_headers(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The part of an answer's headers (lower-case names) that the client gets to see; repeated ones joined by commas.

    From the first one on that would make it more than 16 KiB, the rest is dropped.
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
    """The headers that a Connection header makes hop-by-hop (RFC 9110, section 7.6.1)."""
    return {name.strip().lower() for name in connection.split(",")}
