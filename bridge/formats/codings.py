"""Content codings undone, a bounded piece at a time: a few bytes can hold gigabytes. Pure.

`br` and `zstd` need the packages of the extra `codings`.
"""

import zlib
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final, Protocol

PIECE_BYTES: Final = 65_536
MAX_INFLATED_BYTES: Final = 64 << 20
"""Of the bodies of one event."""
MAX_WINDOW_BYTES: Final = 8 << 20
"""Of zstd: as much as RFC 8878 asks every decoder to support."""

_GZIP: Final = zlib.MAX_WBITS | 16
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS
_PLAIN: Final = {"", "identity"}
_ALIASES: Final = {"x-gzip": "gzip"}
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_STEP_BYTES: Final = 24
"""A block of four bytes can hold 128 KiB, and a step is inflated at once."""


_MAGICS: Final = {"gzip": b"\x1f\x8b\x08", "zstd": _ZSTD_MAGIC}
_NEVER_CODED: Final = ("application/json", "application/x-ndjson", "application/jsonl")
"""Types whose bodies cannot begin with one of these, beside `text/…` and `…+json`."""


class CodingError(ValueError):
    """The coding is unknown, its package is not installed, or the body does not hold."""


class Inflating(Protocol):
    """Takes the coded body by `feed`, gives the plain one by `take`, in bounded pieces.

    Feed again only when `take` has returned b"": so no more than one read and one piece are ever held.
    """

    @property
    def is_complete(self) -> bool:
        """True if the body may end here."""

    @property
    def has_output(self) -> bool:
        """True if `take` may have something to give before it has to be fed."""

    def feed(self, data: bytes) -> None: ...

    def take(self) -> bytes:
        """The next piece; b"" when more has to be fed first. Raises CodingError."""


def coding_in(content_encoding: str) -> str | None:
    """The one coding that the header's value names; None for a plain body.

    Raises CodingError for two codings one over the other: nobody sends them, and each multiplies the other.
    """
    named = [name for part in content_encoding.split(",") if (name := part.strip().lower()) not in _PLAIN]
    if len(named) > 1:
        raise CodingError(f"has more than one content coding: {content_encoding[:64]}")
    return _ALIASES.get(named[0], named[0]) if named else None


def may_hide_coding(method: str, status: int, content_type: str) -> bool:
    """True where a body of this type may be coded without saying so. A part of a file (206) stays as it is."""
    if method == "HEAD" or status == 206:
        return False
    kind = content_type.partition(";")[0].strip().lower()
    return kind in _NEVER_CODED or kind.startswith("text/") or kind.endswith("+json")


def hidden_coding(head: bytes) -> tuple[str | None, bool]:
    """The coding that a body's first bytes show, and True if that is certain; else more bytes are needed."""
    for coding, magic in _MAGICS.items():
        if head.startswith(magic):
            return coding, True
    return None, not any(magic.startswith(head) for magic in _MAGICS.values())


def inflater(coding: str) -> Inflating:
    """Raises CodingError for a coding that cannot be undone here."""
    match coding:
        case "gzip" | "deflate":
            return Inflater(coding)
        case "br":
            return BrotliInflater()
        case "zstd":
            return ZstdInflater()
    raise CodingError(f"has a content coding that cannot be decoded: {coding[:64]}")


def inflate(body: bytes, coding: str) -> Iterator[bytes]:
    """The plain body in pieces, and an empty one after each read.

    Raises CodingError, also for a body that breaks off.
    """
    undoing = inflater(coding)
    for start in range(0, len(body), PIECE_BYTES):
        undoing.feed(body[start : start + PIECE_BYTES])
        while piece := undoing.take():
            yield piece
        yield b""
    if not undoing.is_complete:
        raise CodingError("ends in the middle of its compressed body")


def _package(name: str, coding: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise CodingError(
            f"has the content coding {coding}, which needs the extra: pip install 'universal-bridge[codings]'"
        ) from None


class Inflater:
    """Inflates gzip and deflate, in pieces of at most `piece_bytes`.

    gzip may have several members (RFC 1952, section 2.2); what follows the last one is dropped. Deflate is the zlib
    format (RFC 9110, section 8.4.1.2), or the raw one that some servers send under that name.
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
        # After a piece of full size there may be more inside zlib, even when it has taken all of the input.
        self._full = len(piece) == self._piece_bytes and not member.eof
        self._input = self._following(member.unused_data) if member.eof else member.unconsumed_tail
        return piece

    def _following(self, rest: bytes) -> bytes:
        """`rest`, which comes after the end of a member, when it is the beginning of another."""
        return rest if self._gzip and rest.startswith(b"\x1f") else b""

    def _format(self, first_byte: int) -> int:
        if self._gzip:
            return _GZIP
        return _ZLIB if first_byte & 0x0F == zlib.DEFLATED else _RAW


class BrotliInflater:
    """Inflates Brotli (RFC 7932)."""

    def __init__(self, piece_bytes: int = PIECE_BYTES) -> None:
        package = _package("brotli", "br")
        self._error: type[Exception] = package.error
        self._stream = package.Decompressor()
        self._piece_bytes = piece_bytes
        self._input = b""
        self._is_begun = False
        self._holds_output = False
        """The last call gave a piece: there may be more inside, whatever `can_accept_more_data` says."""

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
    """Inflates Zstandard (RFC 8878), frame by frame. What follows the last frame is dropped."""

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
            raise CodingError("is damaged, or needs a larger window than is given") from error
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
    """`rest`, when it is the beginning of another frame, of data or one to be skipped."""
    begins = bytes(rest[:4])
    is_skippable = len(begins) == 4 and begins[0] & 0xF0 == 0x50 and begins[1:] == b"\x2a\x4d\x18"
    return rest if begins and (_ZSTD_MAGIC.startswith(begins) or is_skippable) else memoryview(b"")
