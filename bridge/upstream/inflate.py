"""Content codings undone, a bounded piece at a time: a few bytes of gzip can hold gigabytes."""

import asyncio
import zlib

import httpx

PIECE_BYTES = 65_536

_GZIP = zlib.MAX_WBITS | 16
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS

_CODINGS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_PLAIN = {"", "identity"}


def inflater_for(content_encoding: str) -> "Inflater | None":
    """What undoes the codings that the header's value names; None when there is nothing to undo.

    Raises httpx.DecodingError for a coding that is not undone here, and for two one over the other.
    """
    named = [name for part in content_encoding.split(",") if (name := part.strip().lower()) not in _PLAIN]
    if not named:
        return None
    if len(named) > 1 or named[0] not in _CODINGS:
        raise httpx.DecodingError(f"the answer has a content coding that is not undone here: {content_encoding[:64]}")
    return Inflater(_CODINGS[named[0]])


class Inflater:
    """Takes the coded body by `feed`, gives the plain one by `take`, in pieces of at most `piece_bytes`.

    Feed again only when `take` has returned b"": so no more than one read and one piece are ever held. `take` may
    raise zlib.error. gzip may have several members (RFC 1952, section 2.2); what follows the last one is dropped.
    Deflate is the zlib format (RFC 9110, section 8.4.1.2), or the raw one that some servers send under that name.
    """

    def __init__(self, coding: str, piece_bytes: int = PIECE_BYTES) -> None:
        self._gzip = coding == "gzip"
        self._piece_bytes = piece_bytes
        self._input = b""
        self._full = False
        self._member: zlib._Decompress | None = None

    @property
    def whole(self) -> bool:
        """The body may end here: its last member is complete, or none ever began."""
        return self._member is None or self._member.eof

    @property
    def more(self) -> bool:
        """`take` may have something to give before it has to be fed."""
        return bool(self._input) or self._full

    def feed(self, data: bytes) -> None:
        self._input = self._following(data) if self._member and self._member.eof else data

    def take(self) -> bytes:
        """The next piece; b"" when more has to be fed first."""
        while self.more:
            if self._member is None or self._member.eof:
                self._member = zlib.decompressobj(self._format(self._input[0]))
            if piece := self._inflate(self._member):
                return piece
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


class InflatedBody(httpx.AsyncByteStream):
    """A coded body, read as the plain one. Owns `coded`.

    Raises httpx.ReadError for a body cut in the middle of its coding, httpx.DecodingError for one that does not hold.
    """

    def __init__(self, coded: httpx.AsyncByteStream, inflater: Inflater) -> None:
        self._coded, self._inflater = coded, inflater
        self._reads = aiter(coded)

    def __aiter__(self) -> "InflatedBody":
        return self

    async def __anext__(self) -> bytes:
        if self._inflater.more:
            # One read may hold a thousand pieces: between two of them the others get their turn.
            await asyncio.sleep(0)
        try:
            while not (piece := self._inflater.take()):
                self._inflater.feed(await anext(self._reads))
        except StopAsyncIteration:
            if self._inflater.whole:
                raise
            raise httpx.ReadError("the answer ended in the middle of its compressed body") from None
        except zlib.error as exc:
            raise httpx.DecodingError("the answer's compressed body is damaged") from exc
        return piece

    async def aclose(self) -> None:
        await self._coded.aclose()
