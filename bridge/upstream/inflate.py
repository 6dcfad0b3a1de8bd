"""Decode the content coding of bodies while they are delivered (`formats.codings`).

A read may inflate to a thousand times its size, so one call of the receiver gets at most a piece; the next follows in
the next iteration of the loop, and the connection stops reading meanwhile.
"""

import asyncio
from typing import Final

import httpx

from bridge.formats.codings import PIECE_BYTES, CodingError, Inflating, coding_in, hidden_coding, inflater
from bridge.upstream.body import BodyReceiver, PushedBody

MAX_TRIED_BYTES: Final = 65_536
"""Number of bytes that are buffered to detect an undeclared coding."""
MAX_TAKES: Final = 256
"""Pieces that are taken from a decoder in one iteration of the loop. Those of zstd may be small."""


def inflater_for(content_encoding: str) -> Inflating | None:
    """Return the decoder for the header's value; None if the body is not coded.

    Raises httpx.DecodingError for an unsupported coding, and for several codings.
    """
    try:
        coding = coding_in(content_encoding)
        return None if coding is None else inflater(coding)
    except CodingError as error:
        raise httpx.DecodingError(f"the answer {error}") from None


def plain_body(body: PushedBody, first_bytes: bytes) -> PushedBody:
    """Return a body with an undeclared content coding undone. `first_bytes` are those that are known already."""
    coding, is_certain = hidden_coding(first_bytes)
    return body if is_certain and coding is None else UnlabelledBody(body)


class InflatedBody(PushedBody):
    """Decodes a coded body. Owns `coded`.

    The receiver's `failed` gets httpx.ReadError for a truncated body, httpx.DecodingError for a damaged one.
    """

    def __init__(self, coded: PushedBody, decoder: Inflating, first_piece: bytes = b"") -> None:
        """Create a body; `first_piece` was taken from the decoder already."""
        self._coded, self._decoder = coded, decoder
        self._piece = first_piece
        """Decoded bytes that were not delivered yet."""
        self._error: httpx.DecodingError | None = None
        self._receiver: BodyReceiver | None = None
        self._is_paused = self._is_delivering = False
        self._turn: asyncio.Handle | None = None
        """The call that continues in the next iteration of the loop."""

    @property
    def ended(self) -> bool:
        return self._coded.ended and not self._is_pending and self._decoder.is_complete

    def deliver(self, receiver: BodyReceiver) -> None:
        self._receiver = receiver
        self._deliver()  # which pauses the coded body while there is more
        self._coded.deliver(self)

    def pause(self) -> None:
        self._is_paused = True
        self._coded.pause()

    def resume(self) -> None:
        self._is_paused = False
        self._deliver()
        self._read_on()

    async def aclose(self) -> None:
        self._receiver = None
        if self._turn is not None:
            self._turn.cancel()
        await self._coded.aclose()

    # Called by the coded body, and never while decoded bytes are pending.

    def data(self, data: bytes) -> None:
        self._decoder.feed(data)
        self._deliver()

    def end(self) -> None:
        if self._decoder.is_complete:
            self._receiver_for_end().end()
        else:
            self.failed(httpx.ReadError("the answer ended in the middle of its compressed body"))

    def failed(self, error: Exception) -> None:
        self._receiver_for_end().failed(error)

    @property
    def _is_pending(self) -> bool:
        return bool(self._piece) or self._error is not None or self._decoder.has_output

    def _deliver(self) -> None:
        """Deliver a piece, and come back in the next iteration of the loop if there is more."""
        if self._receiver is None or self._is_paused or self._is_delivering or self._turn is not None:
            return
        piece = self._next_piece()
        if self._is_pending:
            self._coded.pause()
            if piece or self._error is None:
                self._turn = asyncio.get_running_loop().call_soon(self._take_turn)
        if piece:
            self._is_delivering = True
            try:
                self._receiver.data(piece)
            finally:
                self._is_delivering = False
        elif self._error is not None:
            self._receiver_for_end().failed(self._error)

    def _take_turn(self) -> None:
        self._turn = None
        self._deliver()
        self._read_on()

    def _read_on(self) -> None:
        if not self._is_paused and not self._is_pending:
            self._coded.resume()

    def _next_piece(self) -> bytes:
        """Return decoded bytes, at most PIECE_BYTES; b"" if there are none. Sets `_error` at damage."""
        pieces, self._piece = [self._piece], b""
        size = len(pieces[0])
        try:
            for _ in range(MAX_TAKES):
                if size >= PIECE_BYTES // 2 or self._error is not None or not (piece := self._decoder.take()):
                    break
                pieces.append(piece)
                size += len(piece)
        except CodingError as error:
            self._error = httpx.DecodingError("the answer's compressed body is damaged")
            self._error.__cause__ = error
        decoded = b"".join(pieces)
        if size > PIECE_BYTES:
            decoded, self._piece = decoded[:PIECE_BYTES], decoded[PIECE_BYTES:]
        return decoded

    def _receiver_for_end(self) -> BodyReceiver:
        receiver, self._receiver = self._receiver, None
        assert receiver is not None
        return receiver


class UnlabelledBody(PushedBody):
    """Decodes a body whose coding is not declared, if its first bytes show one. Owns `body`.

    A body that cannot be decoded is passed on unchanged.
    """

    def __init__(self, body: PushedBody) -> None:
        self._body = body
        self._chosen: PushedBody | None = None
        """The body that delivers in place of this one, once it is known if there is a coding."""
        self._head = b""
        """Bytes that were not delivered yet."""
        self._decoder: Inflating | None = None
        self._receiver: BodyReceiver | None = None

    @property
    def ended(self) -> bool:
        """Return True if everything was delivered."""
        return not self._head and (self._chosen or self._body).ended

    def deliver(self, receiver: BodyReceiver) -> None:
        self._receiver = receiver
        if self._chosen is None:
            self._body.deliver(self)
        else:
            self._chosen.deliver(receiver)

    def pause(self) -> None:
        (self._chosen or self._body).pause()

    def resume(self) -> None:
        (self._chosen or self._body).resume()

    async def aclose(self) -> None:
        self._receiver = None
        await (self._chosen or self._body).aclose()

    # Called by the body, until it is known if there is a coding.

    def data(self, data: bytes) -> None:
        self._head += data
        if self._decoder is not None:
            self._try(self._decoder, data)
            return
        coding, is_certain = hidden_coding(self._head)
        if coding is not None:
            try:
                self._decoder = inflater(coding)
            except CodingError:
                self._pass_on()
            else:
                self._try(self._decoder, self._head)
        elif is_certain:
            self._pass_on()

    def end(self) -> None:
        if self._decoder is not None and self._decoder.is_complete:
            self._inflate(self._decoder, b"")
        else:
            self._pass_on()

    def failed(self, error: Exception) -> None:
        self._head = b""
        if self._receiver is not None:
            self._receiver.failed(error)

    def _try(self, decoder: Inflating, data: bytes) -> None:
        """Decode the first piece: only then the bytes are known to be coded."""
        try:
            decoder.feed(data)
            piece = decoder.take()
        except CodingError:
            self._pass_on()
            return
        if piece or len(self._head) >= MAX_TRIED_BYTES:
            self._inflate(decoder, piece)

    def _inflate(self, decoder: Inflating, piece: bytes) -> None:
        self._head = b""
        self._choose(InflatedBody(self._body, decoder, piece))

    def _pass_on(self) -> None:
        head, self._head = self._head, b""
        self._chosen = self._body
        if head and self._receiver is not None:
            self._receiver.data(head)
        self._choose(self._body)

    def _choose(self, body: PushedBody) -> None:
        """Let `body` deliver from now on, including the end if it has been reached already."""
        self._chosen = body
        if self._receiver is not None:
            body.deliver(self._receiver)
