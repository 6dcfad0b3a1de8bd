"""The client's socket, written to as the hot path wants it: all frames of one read in one write.

aiohttp's own `send_frame` is a coroutine and a write per frame. Frames of a server are unmasked, and compression is
off, so a frame is its length and its payload (RFC 6455, section 5.2), and a run of them goes to the transport at once.
"""

import struct
from typing import Final

from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

_FIN: Final = 0x80
_SHORT: Final = struct.Struct("!BB").pack
_MEDIUM: Final = struct.Struct("!BBH").pack
_LONG: Final = struct.Struct("!BBQ").pack


class ClientSocket:
    """Sends frames, and knows whether they are taken. Made of a prepared `WebSocketResponse` and its request."""

    def __init__(self, request: web.BaseRequest, response: web.WebSocketResponse, writer: AbstractStreamWriter) -> None:
        assert request.transport is not None
        self._transport = request.transport
        self._protocol = request.protocol
        self._response = response
        self._writer = writer
        self._written_bytes = 0

    @property
    def is_full(self) -> bool:
        return self._protocol.writing_paused

    @property
    def waiting_bytes(self) -> int:
        """What stands in line and was not taken yet."""
        return self._transport.get_write_buffer_size()

    @property
    def taken_bytes(self) -> int:
        """How much of all messages so far the connection has taken. Control frames do not count: pings are no proof."""
        return self._written_bytes - self.waiting_bytes

    def send(self, frames: list[bytes]) -> None:
        """One write for all of them. Dropped when the socket is closing: then nobody is there to read them."""
        if self._response.closed or self._transport.is_closing():
            return
        parts: list[bytes] = []
        for frame in frames:
            size = len(frame)
            if size < 126:
                parts.append(_SHORT(_FIN | WSMsgType.TEXT, size))
            elif size < 65_536:
                parts.append(_MEDIUM(_FIN | WSMsgType.TEXT, 126, size))
            else:
                self._write_alone(parts, frame)
                parts = []
                continue
            parts.append(frame)
        if parts:
            self._write(b"".join(parts))

    def control(self, opcode: WSMsgType, payload: bytes = b"") -> None:
        """A ping, a pong or a close frame; at most 125 bytes of payload."""
        if not self._transport.is_closing():
            self._transport.write(_SHORT(_FIN | opcode, len(payload)) + payload)

    async def drained(self) -> None:
        """Until frames no longer stand in line, or the socket is gone."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def abort(self) -> None:
        """Let go of the connection at once; what stands in line is lost."""
        self._transport.abort()

    def _write_alone(self, before: list[bytes], frame: bytes) -> None:
        """A long frame is not worth another copy."""
        self._write(b"".join((*before, _LONG(_FIN | WSMsgType.TEXT, 127, len(frame)))))
        self._write(frame)

    def _write(self, data: bytes) -> None:
        self._written_bytes += len(data)
        self._transport.write(data)
