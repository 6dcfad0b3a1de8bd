"""Decode content codings in bounded pieces: a few bytes can expand to gigabytes. Pure.

`br` and `zstd` need the packages of the extra `codings`.
"""

import zlib
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final, Protocol

PIECE_BYTES: Final = 65_536
MAX_INFLATED_BYTES: Final = 64 << 20
"""Bound on the decoded bodies of one event."""
MAX_WINDOW_BYTES: Final = 8 << 20
"""Bound on the window of zstd: the size that RFC 8878 recommends every decoder to support."""

_GZIP: Final = zlib.MAX_WBITS | 16
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS
_PLAIN: Final = {"", "identity"}
_ALIASES: Final = {"x-gzip": "gzip"}
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_STEP_BYTES: Final = 24
"""Input per step. A step is decoded at once, and a block of four bytes can expand to 128 KiB."""


_MAGICS: Final = {"gzip": b"\x1f\x8b\x08", "zstd": _ZSTD_MAGIC}
_MAGIC_BEGINNINGS: Final = frozenset(magic[0] for magic in _MAGICS.values())
_NEVER_CODED: Final = ("application/json", "application/x-ndjson", "application/jsonl")
"""Types whose plain bodies cannot begin with one of these magic numbers, besides `text/…` and `…+json`."""


class CodingError(ValueError):
    """The coding is unknown, its package is not installed, or the body is damaged."""


class Inflating(Protocol):
    """A decoder of one content coding: `feed` accepts the coded body, `take` returns the plain one in pieces.

    The pieces are bounded. Feed again only after `take` returned b"": so at most one read and one piece are held.
    """

    @property
    def is_complete(self) -> bool:
        """True if the body may end here."""

    @property
    def has_output(self) -> bool:
        """True if `take` may return something without more input."""

    def feed(self, data: bytes) -> None: ...

    def take(self) -> bytes:
        """Return the next piece; b"" if more input is needed. Raise CodingError if the body is damaged."""


def coding_in(content_encoding: str) -> str | None:
    """Return the coding that the header names; None for a plain body.

    Raise CodingError for two nested codings: providers do not use them, and each multiplies the expansion of the other.
    """
    named = [name for part in content_encoding.split(",") if (name := part.strip().lower()) not in _PLAIN]
    if len(named) > 1:
        raise CodingError(f"has more than one content coding: {content_encoding[:64]}")
    return _ALIASES.get(named[0], named[0]) if named else None


def may_hide_coding(method: str, status: int, content_type: str) -> bool:
    """Return True if a body of this type may be coded without a header that says so.

    A partial file (206) is never decoded.
    """
    if method == "HEAD" or status == 206:
        return False
    kind = content_type.partition(";")[0].strip().lower()
    return kind in _NEVER_CODED or kind.startswith("text/") or kind.endswith("+json")


def hidden_coding(head: bytes) -> tuple[str | None, bool]:
    """Return the coding that the first bytes of a body show, and if that is certain; if not, more bytes are needed."""
    if head and head[0] not in _MAGIC_BEGINNINGS:
        return None, True
    for coding, magic in _MAGICS.items():
        if head.startswith(magic):
            return coding, True
    return None, not any(magic.startswith(head) for magic in _MAGICS.values())


def inflater(coding: str) -> Inflating:
    """Return a decoder of the coding. Raise CodingError if it is not supported."""
    match coding:
        case "gzip" | "deflate":
            return Inflater(coding)
        case "br":
            return BrotliInflater()
        case "zstd":
            return ZstdInflater()
    raise CodingError(f"has a content coding that cannot be decoded: {coding[:64]}")


def inflate(body: bytes, coding: str) -> Iterator[bytes]:
    """Yield the plain body in pieces, and an empty piece after each read.

    Raise CodingError, also for a truncated body.
    """
    decoder = inflater(coding)
    for start in range(0, len(body), PIECE_BYTES):
        decoder.feed(body[start : start + PIECE_BYTES])
        while piece := decoder.take():
            yield piece
        yield b""
    if not decoder.is_complete:
        raise CodingError("ends in the middle of its compressed body")


def _package(name: str, coding: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise CodingError(
            f"has the content coding {coding}, which needs the extra: pip install 'universal-bridge[codings]'"
        ) from None


class Inflater:
    """Decode gzip and deflate in pieces of at most `piece_bytes`.

    gzip may have several members (RFC 1952, section 2.2); bytes after the last one are dropped. Deflate is the zlib
    format (RFC 9110, section 8.4.1.2), or the raw format that some servers send under that name.
    """

    def __init__(self, coding: str, piece_bytes: int = PIECE_BYTES) -> None:
        self._gzip = coding == "gzip"
        self._piece_bytes = piece_bytes
        self._input = b""
        self._full = False
        self._member: zlib._Decompress | None = None

    @property
    def is_complete(self) -> bool:
        return self._member is None or self._member.eof

    @property
    def has_output(self) -> bool:
        return bool(self._input) or self._full

    def feed(self, data: bytes) -> None:
        self._input = self._following(data) if self._member and self._member.eof else data

    def take(self) -> bytes:
        try:
            while self.has_output:
                if self._member is None or self._member.eof:
                    self._member = zlib.decompressobj(self._format(self._input[0]))
                if piece := self._inflate(self._member):
                    return piece
        except zlib.error as error:
            raise CodingError("is damaged") from error
        return b""

    def _inflate(self, member: "zlib._Decompress") -> bytes:
        piece = member.decompress(self._input, self._piece_bytes)
        # After a piece of full size zlib may hold more output, even if it consumed all input.
        self._full = len(piece) == self._piece_bytes and not member.eof
        self._input = self._following(member.unused_data) if member.eof else member.unconsumed_tail
        return piece

    def _following(self, rest: bytes) -> bytes:
        """Return `rest`, the bytes after the end of a member, if another member begins there."""
        return rest if self._gzip and rest.startswith(b"\x1f") else b""

    def _format(self, first_byte: int) -> int:
        if self._gzip:
            return _GZIP
        return _ZLIB if first_byte & 0x0F == zlib.DEFLATED else _RAW


class BrotliInflater:
    """Decode Brotli (RFC 7932)."""

    def __init__(self, piece_bytes: int = PIECE_BYTES) -> None:
        package = _package("brotli", "br")
        self._error: type[Exception] = package.error
        self._stream = package.Decompressor()
        self._piece_bytes = piece_bytes
        self._input = b""
        self._is_begun = False
        self._holds_output = False
        """True if the last call returned a piece: there may be more output, whatever `can_accept_more_data` returns."""

    @property
    def is_complete(self) -> bool:
        return not self._is_begun or self._stream.is_finished()

    @property
    def has_output(self) -> bool:
        return not self._stream.is_finished() and (bool(self._input) or self._holds_output)

    def feed(self, data: bytes) -> None:
        self._is_begun |= bool(data)
        self._input = data

    def take(self) -> bytes:
        try:
            while self.has_output:
                data = b""
                if not self._holds_output:
                    data, self._input = self._input, b""
                piece: bytes = self._stream.process(data, output_buffer_limit=self._piece_bytes)
                self._holds_output = bool(piece) or (bool(data) and not self._stream.can_accept_more_data())
                if piece:
                    return piece
        except self._error as error:
            raise CodingError("is damaged") from error
        return b""


class ZstdInflater:
    """Decode Zstandard (RFC 8878), frame by frame. Bytes after the last frame are dropped."""

    def __init__(self) -> None:
        package = _package("zstandard", "zstd")
        self._error: type[Exception] = package.ZstdError
        self._decompressor = package.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._frame: Any = None
        self._input = memoryview(b"")

    @property
    def is_complete(self) -> bool:
        return self._frame is None or self._frame.eof

    @property
    def has_output(self) -> bool:
        return len(self._input) > 0

    def feed(self, data: bytes) -> None:
        self._input = memoryview(data)
        if self._frame is not None and self._frame.eof:
            self._input = _next_frame(self._input)

    def take(self) -> bytes:
        try:
            while self.has_output:
                if self._frame is None or self._frame.eof:
                    self._frame = self._decompressor.decompressobj()
                if piece := self._inflate():
                    return piece
        except self._error as error:
            raise CodingError("is damaged, or needs a larger window than is allowed") from error
        return b""

    def _inflate(self) -> bytes:
        step = self._input[:_ZSTD_STEP_BYTES]
        piece: bytes = self._frame.decompress(step)
        if self._frame.eof:
            self._input = _next_frame(self._input[len(step) - len(self._frame.unused_data) :])
        else:
            self._input = self._input[len(step) :]
        return piece


def _next_frame(rest: memoryview) -> memoryview:
    """Return `rest` if another frame, of data or skippable, begins there."""
    begins = bytes(rest[:4])
    is_skippable = len(begins) == 4 and begins[0] & 0xF0 == 0x50 and begins[1:] == b"\x2a\x4d\x18"
    return rest if begins and (_ZSTD_MAGIC.startswith(begins) or is_skippable) else memoryview(b"")
