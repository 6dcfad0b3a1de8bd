"""The connection below a WebSocket, watched for what its peer takes, says, and when it goes; and the client's socket on
it, written to as the hot path wants it.

aiohttp's own `send_frame` is a coroutine and a write per frame. Frames of a server are unmasked, and compression is
off, so a frame is its length and its payload (RFC 6455, section 5.2), and a run of them goes to the transport at once.
"""

import asyncio
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from aiohttp import WSMessage, WSMsgType, web

from bridge.net import unsent_bytes
from bridge.protocol.frames import Frame
from bridge.relay.arrivals import LONG_BYTES
from bridge.server.auth import PROTOCOL_HEADER
from bridge.server.http.connection import HttpConnection

CLOSE_GRACE_S: Final = 5.0
"""How long a client may take to read what is left for it, and to answer a close frame; then it is let go of."""


_FIN: Final = 0x80
_SHORT: Final = struct.Struct("!BB").pack
_MEDIUM: Final = struct.Struct("!BBH").pack
_LONG: Final = struct.Struct("!BBQ").pack


class MonitoredConnection(asyncio.Protocol):
    """Who is at the other end of a connection that has been upgraded.

    Stands between the transport and aiohttp's protocol: what asyncio says passes through here. aiohttp does not tell
    that a part of a message has come, nor that the connection is gone while nobody receives; and whoever is cancelled
    while it waits for aiohttp's `drain` takes all others with it that wait for the same.
    """

    def __init__(self, transport: asyncio.Transport, handler: asyncio.Protocol) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._handler = handler
        self._descriptor: int = transport.get_extra_info("socket").fileno()
        self._written_bytes = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._closed = asyncio.Event()
        self.on_disconnect: Callable[[], None] = _nothing
        """Called when the connection is lost."""
        self.on_arrival: Callable[[int], None] = _nothing
        """Called with the size of each read that belongs to a long message which is not whole yet; when it turns out
        to be long, with all that has come."""
        self.last_received_at = self._loop.time()
        """When something came from the client last, be it a part of a message."""
        self._arrived_bytes = 0
        self._transport.set_protocol(self)

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        self.last_received_at = self._loop.time()
        was_long = self._arrived_bytes > LONG_BYTES
        self._arrived_bytes += len(data)
        if self._arrived_bytes > LONG_BYTES:
            self.on_arrival(len(data) if was_long else self._arrived_bytes)
        self._handler.data_received(data)

    def eof_received(self) -> None:
        """No goodbye can come any more, and asyncio's way would be to wait until all that stands in line is taken."""
        self.abort()

    def pause_writing(self) -> None:
        self._flowing.clear()
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._flowing.set()
        self._handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.connection_lost(exc)
        self._flowing.set()
        self._closed.set()
        self.on_disconnect()

    # What the session and its events call.

    @property
    def is_full(self) -> bool:
        return not self._flowing.is_set()

    @property
    def is_reading(self) -> bool:
        """Whether the client is listened to; not while more has come than can be taken."""
        return self._transport.is_reading()

    @property
    def queued_bytes(self) -> int:
        """What stands in line, here or in the kernel, and was not taken by the client's side."""
        if self._closed.is_set():
            return 0
        return self._transport.get_write_buffer_size() + unsent_bytes(self._descriptor)

    @property
    def sent_bytes(self) -> int:
        """How much of all messages so far the client's side has taken. Control frames do not count: pings prove little.

        Less by those that stand in line themselves.
        """
        return self._written_bytes - self.queued_bytes

    def message_consumed(self, size: int) -> int:
        """A message of so many bytes was whole, and was taken: how much else has come, when that counts.

        Heads of frames are not told from what they announce; so what is not much is taken for nothing.
        """
        rest = self._arrived_bytes - size
        self._arrived_bytes = rest if rest > LONG_BYTES else 0
        return self._arrived_bytes

    async def drain(self) -> None:
        """Until frames no longer stand in line, or the connection is gone."""
        await self._flowing.wait()

    async def disconnect(self) -> None:
        """Close the connection; what stands in line may still be taken, but not for long. Returns when it is gone."""
        self._transport.close()
        try:
            async with asyncio.timeout(CLOSE_GRACE_S):
                await self._closed.wait()
        except TimeoutError:
            self.abort()
            await self._closed.wait()
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """Let go of the connection at once; what stands in line is lost."""
        self._transport.abort()

    def control(self, opcode: WSMsgType, payload: bytes = b"") -> None:
        """A ping or a pong; at most 125 bytes of payload."""
        if not self._transport.is_closing():
            self._transport.write(_SHORT(_FIN | opcode, len(payload)) + payload)


class ClientSocket(MonitoredConnection):
    """Sends frames, and knows what becomes of them. Made of a prepared `WebSocketResponse` and its request."""

    def __init__(self, request: web.BaseRequest, response: "web.WebSocketResponse[bool]") -> None:
        assert request.transport is not None
        super().__init__(request.transport, request.protocol)
        self._response = response
        self._connection = request.protocol
        self._sent_close = False

    def send(self, frames: Sequence[Frame]) -> None:
        """One write for all of them. Dropped when the socket is closing: then nobody is there to read them."""
        if self._is_closing:
            return
        parts: list[bytes] = []
        for frame in frames:
            size = len(frame)
            if size < 126:
                parts.append(_SHORT(_FIN | WSMsgType.TEXT, size))
            elif size < 65_536:
                parts.append(_MEDIUM(_FIN | WSMsgType.TEXT, 126, size))
            else:
                self._write(b"".join(parts))
                self._write_long([frame] if isinstance(frame, bytes) else frame.parts, size)
                parts = []
                continue
            parts.append(bytes(frame))
        self._write(b"".join(parts))

    def send_one(self, parts: list[bytes]) -> None:
        """The same for one frame, given in parts so that a long one need not be copied."""
        size = sum(map(len, parts))
        if size < 65_536:
            self.send([b"".join(parts)])
        elif not self._is_closing:
            self._write_long(parts, size)

    def control(self, opcode: WSMsgType, payload: bytes = b"") -> None:
        """Nothing after a close frame."""
        if not self._response.closed and not self._sent_close:
            super().control(opcode, payload)

    def discard(self) -> None:
        """Keep no long message that comes from now on, nor the one that is on its way."""
        if isinstance(self._connection, HttpConnection) and self._connection.message_reader is not None:
            self._connection.message_reader.discard()

    async def close(self, code: int, reason: bytes) -> None:
        """Say goodbye, behind all that was said before, and wait for the answer; not for long. Then let go."""
        try:
            async with asyncio.timeout(CLOSE_GRACE_S):
                await self._response.close(code=code, message=reason)
        except TimeoutError:
            self.abort()
        await self.disconnect()

    async def close_and_drain(self, code: int, reason: bytes, reading_ended: asyncio.Event) -> None:
        """Send a close frame to a client that is still sending, and read on until it answers. Then let go.

        With something unread the kernel would reset the connection, and the client might never see the close frame.
        `close` does not read on while somebody waits for a message. Here that one is told to stop, and is waited for.
        """
        self.control(WSMsgType.CLOSE, struct.pack("!H", code) + reason)
        self._sent_close = True
        with suppress(Exception):  # aiohttp has several, as the connection may be lost in several ways
            async with asyncio.timeout(CLOSE_GRACE_S):
                queue = self._response._reader
                assert queue is not None
                if self._response._waiting:
                    queue.feed_data(WSMessage(WSMsgType.CLOSING, None, None), 0)
                await reading_ended.wait()
                while (await queue.read()).type is not WSMsgType.CLOSE:
                    pass
        await self.disconnect()

    @property
    def _is_closing(self) -> bool:
        return self._sent_close or self._response.closed or self._transport.is_closing()

    def _write_long(self, parts: list[bytes], size: int) -> None:
        """A long frame is not worth another copy."""
        self._write(_LONG(_FIN | WSMsgType.TEXT, 127, size))
        for part in parts:
            self._write(part)

    def _write(self, data: bytes) -> None:
        if data:
            self._written_bytes += len(data)
            self._transport.write(data)


def _nothing(*_: object) -> None: ...


def echo(response: "web.WebSocketResponse[bool]", protocol: str | None) -> None:
    """Answer with this subprotocol: aiohttp finds it only in the first of several headers."""
    if protocol is not None:
        response.headers[PROTOCOL_HEADER] = protocol
