"""A whole answer as it is kept, and what keeps it."""

import asyncio
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, TypeAlias

import msgspec

from bridge.errors import BadField
from bridge.protocol.headers import validate_headers

FORM: Final = 2
"""Of what is stored outside of the process, as a part of its key: another form is not found, and so not misread."""

Headers: TypeAlias = list[tuple[str, str]]

_OVERHEAD_BYTES: Final = 512
"""About what an answer takes in memory beside its bytes."""


class Stored(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`status` and headers as a client may see them; `body` with the lengths of the reads in which it came, because a
    frame of bytes is a read. Instants are Unix seconds.

    Of numbers and bytes alone: of many thousands of lists Python's collector would take stock again and again.
    """

    status: int
    head: bytes
    """The headers, by `packed_headers`."""
    body: bytes
    lengths: bytes
    """Unsigned 32-bit numbers, little-endian."""
    stored_at: float
    kept_s: float

    @property
    def size_bytes(self) -> int:
        return len(self.head) + len(self.body) + len(self.lengths) + _OVERHEAD_BYTES

    @property
    def headers(self) -> Headers:
        return _headers.decode(self.head)

    @property
    def expires_at(self) -> float:
        return self.stored_at + self.kept_s

    def reads(self) -> Iterator[bytes]:
        at = 0
        for (length,) in struct.iter_unpack("<I", self.lengths):
            yield self.body[at : at + length]
            at += length


def packed(reads: Iterable[bytes]) -> tuple[bytes, bytes]:
    """Body and lengths."""
    parts = list(reads)
    return b"".join(parts), struct.pack(f"<{len(parts)}I", *map(len, parts))


class Store(Protocol):
    """Where answers are kept outside of the process. It may lose them, and never fails."""

    @property
    def evictions(self) -> int:
        """Answers that had to make room for others."""

    @property
    def faults(self) -> int:
        """How often something was not read or not written that should have been."""

    async def get(self, key: bytes) -> Stored | None:
        """In a moment, or not at all. What has expired may come too."""

    def put(self, key: bytes, stored: Stored) -> None:
        """Cannot block: it is written later, or dropped."""


_decoder = msgspec.msgpack.Decoder(Stored)
_headers = msgspec.msgpack.Decoder(Headers)
encode = msgspec.msgpack.Encoder().encode


def packed_headers(headers: Headers) -> bytes:
    return encode(headers)


def decode(data: bytes) -> Stored:
    """Raises ValueError."""
    stored = _decoder.decode(data)
    _check(stored.status, _headers.decode(stored.head))
    try:
        lengths = [length for (length,) in struct.iter_unpack("<I", stored.lengths)]
    except struct.error as error:
        raise ValueError(str(error)) from None
    if sum(lengths) != len(stored.body) or not all(lengths):
        raise ValueError("the lengths of a stored answer's reads are not its body's")
    return stored


def _check(status: int, headers: Headers) -> None:
    """Raises ValueError for a head that would break the frame or the HTTP answer that it becomes a part of: whoever can
    write to the file or to Redis is not the provider."""
    if not 200 <= status <= 599:
        raise ValueError(f"a stored answer has the status {status}")
    try:
        validate_headers(headers, "stored")
    except BadField as error:
        raise ValueError(str(error)) from None


def wall_clock() -> Callable[[], float]:
    """Unix seconds, by the loop's clock: they do not jump."""
    now = asyncio.get_running_loop().time
    ahead_s = time.time() - now()
    return lambda: now() + ahead_s
