"""The stored form of a complete answer, and the interface of the stores that keep it."""

import asyncio
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, TypeAlias

import msgspec

from bridge.errors import BadField
from bridge.protocol.headers import validate_headers

FORMAT_VERSION: Final = 2
"""Version of the stored form. It is part of every key outside of the process, so another version is never read."""

Headers: TypeAlias = list[tuple[str, str]]

_OVERHEAD_BYTES: Final = 512
"""Estimated memory of a stored answer beside its bytes."""


class StoredAnswer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A complete answer: status, the headers that a client may see, and the body with the lengths of its reads, because
    each frame of bytes is one read. Instants are Unix seconds.

    It holds only numbers and bytes: Python's garbage collector would scan thousands of lists again and again.
    """

    status: int
    head: bytes
    """The headers, encoded by `pack_headers`."""
    body: bytes
    lengths: bytes
    """The lengths of the reads as unsigned 32-bit numbers, little-endian."""
    stored_at: float
    ttl_s: float

    @property
    def size_bytes(self) -> int:
        return len(self.head) + len(self.body) + len(self.lengths) + _OVERHEAD_BYTES

    @property
    def headers(self) -> Headers:
        return _headers.decode(self.head)

    @property
    def expires_at(self) -> float:
        return self.stored_at + self.ttl_s

    def reads(self) -> Iterator[bytes]:
        at = 0
        for (length,) in struct.iter_unpack("<I", self.lengths):
            yield self.body[at : at + length]
            at += length


def pack_reads(reads: Iterable[bytes]) -> tuple[bytes, bytes]:
    """Return the body and the packed lengths of its reads."""
    parts = list(reads)
    return b"".join(parts), struct.pack(f"<{len(parts)}I", *map(len, parts))


class Store(Protocol):
    """Stores answers outside of the process. It may lose answers, and its methods never raise."""

    @property
    def evictions(self) -> int:
        """Return the number of answers evicted for others."""

    @property
    def faults(self) -> int:
        """Return the number of failed reads and writes."""

    async def get(self, key: bytes) -> StoredAnswer | None:
        """Return the answer, which may have expired; None if there is none or the store does not respond in time."""

    def put(self, key: bytes, stored: StoredAnswer) -> None:
        """Queue the answer for writing, or drop it. Does not block."""


_decoder = msgspec.msgpack.Decoder(StoredAnswer)
_headers = msgspec.msgpack.Decoder(Headers)
encode = msgspec.msgpack.Encoder().encode


def pack_headers(headers: Headers) -> bytes:
    return encode(headers)


def decode(data: bytes) -> StoredAnswer:
    """Decode a stored answer. Raises ValueError if it is malformed."""
    stored = _decoder.decode(data)
    _check(stored.status, _headers.decode(stored.head))
    try:
        lengths = [length for (length,) in struct.iter_unpack("<I", stored.lengths)]
    except struct.error as error:
        raise ValueError(str(error)) from None
    if sum(lengths) != len(stored.body) or not all(lengths):
        raise ValueError("the read lengths of a stored answer do not add up to its body")
    return stored


def _check(status: int, headers: Headers) -> None:
    """Raise ValueError for a status or header that would break a frame or an HTTP response. Stored data is untrusted:
    other programs may write to the file or to Redis."""
    if not 200 <= status <= 599:
        raise ValueError(f"a stored answer has the invalid status {status}")
    try:
        validate_headers(headers, "stored")
    except BadField as error:
        raise ValueError(str(error)) from None


def wall_clock() -> Callable[[], float]:
    """Return a clock of Unix seconds that follows the loop's monotonic clock and so never jumps."""
    now = asyncio.get_running_loop().time
    ahead_s = time.time() - now()
    return lambda: now() + ahead_s
