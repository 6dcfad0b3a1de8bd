"""The connection below a WebSocket, with its progress monitored, and the client's socket.

aiohttp's own `send_frame` takes a coroutine and a write per frame; here frames are sent by an `Outbox`.
"""

import asyncio
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from bridge.net import unsent_bytes
from bridge.relay.arrivals import LONG_BYTES
from bridge.server.auth import PROTOCOL_HEADER
from bridge.server.callbacks import ignore
from bridge.server.http.connection import HttpConnection
from bridge.server.outbox import Outbox

CLOSE_GRACE_S: Final = 5.0
"""The time in which a client has to read its remaining data and to answer a close frame; then it is disconnected."""

_FIN: Final = 0x80
_SHORT: Final = struct.Struct("!BB").pack


class MonitoredConnection(asyncio.Protocol):
    """An upgraded connection whose input, output and end are monitored.

    It is the transport's protocol and passes asyncio's calls on to aiohttp's. aiohttp does not report the arrival of
    parts of a message, nor a lost connection while no task receives; and a task that is cancelled while it waits in
    aiohttp's `drain` cancels all others that wait there.
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
        self.on_disconnect: Callable[[], None] = ignore
        """Called when the connection is lost."""
        self.on_arrival: Callable[[int], None] = ignore
        """Called with the size of each read of an incomplete long message; the first call has the size of all reads."""
        self.last_received_at = self._loop.time()
        """The instant of the last input from the peer, also of a part of a message."""
        self._arrived_bytes = 0
        self._transport.set_protocol(self)

    # Called by asyncio.

    def data_received(self, data: bytes) -> None:
        self.last_received_at = self._loop.time()
        was_long = self._arrived_bytes > LONG_BYTES
        self._arrived_bytes += len(data)
        if self._arrived_bytes > LONG_BYTES:
            self.on_arrival(len(data) if was_long else self._arrived_bytes)
        self._handler.data_received(data)

    def eof_received(self) -> None:
        """Abort: no close frame can arrive any more, and asyncio would wait until all queued output is read."""
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

    # Called by the session and its events.

    @property
    def is_full(self) -> bool:
        return not self._flowing.is_set()

    @property
    def is_reading(self) -> bool:
        """False while reading from the peer is paused."""
        return self._transport.is_reading()

    @property
    def queued_bytes(self) -> int:
        """The bytes that wait in the process or in the kernel and were not received by the peer's side."""
        if self._closed.is_set():
            return 0
        return self._transport.get_write_buffer_size() + unsent_bytes(self._descriptor)

    @property
    def sent_bytes(self) -> int:
        """The bytes of messages that the peer's side has received, less the control frames that are queued.

        Control frames are not counted as written, because a received ping proves little.
        """
        return self._written_bytes - self.queued_bytes

    def message_consumed(self, size: int) -> int:
        """Record that a complete message of `size` bytes was consumed; return the bytes that arrived after it.

        Frame headers are counted with the payload, so a small rest is returned as 0.
        """
        rest = self._arrived_bytes - size
        self._arrived_bytes = rest if rest > LONG_BYTES else 0
        return self._arrived_bytes

    async def drain(self) -> None:
        """Wait until writing is no longer paused, or the connection is lost."""
        await self._flowing.wait()

    async def disconnect(self) -> None:
        """Close the connection, and return when it is closed. Queued output may be read for `CLOSE_GRACE_S`."""
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
        """Drop the connection at once; queued output is lost."""
        self._transport.abort()

    def control(self, opcode: WSMsgType, payload: bytes = b"") -> None:
        """Send a control frame; its payload has at most 125 bytes."""
        if not self._transport.is_closing():
            self._transport.write(_SHORT(_FIN | opcode, len(payload)) + payload)


class ClientWebSocket(web.WebSocketResponse[bool]):
    """A client's WebSocket that announces its close frame.

    aiohttp also closes by itself while it receives: after a close frame, a violation of the protocol or a lost
    connection.
    """

    def __init__(self, protocols: Iterable[str], max_message_bytes: int) -> None:
        """`max_message_bytes`: a message of this size or more closes the connection with 1009."""
        super().__init__(
            autoping=False, compress=False, decode_text=False, max_msg_size=max_message_bytes, protocols=protocols
        )
        self.on_close: Callable[[], None] = ignore
        """Called before the close frame is written."""

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        self.on_close()
        return await super().close(code=code, message=message, drain=drain)


class ClientSocket(MonitoredConnection):
    """Sends frames to a client on a prepared `ClientWebSocket`."""

    def __init__(self, request: web.BaseRequest, response: ClientWebSocket) -> None:
        assert request.transport is not None
        super().__init__(request.transport, request.protocol)
        self._response = response
        self._connection = request.protocol
        self._outbox = Outbox(request.transport)
        self.send = self._outbox.send
        self.send_one = self._outbox.send_one
        response.on_close = self._outbox.end

    @property
    def queued_bytes(self) -> int:
        return 0 if self._closed.is_set() else super().queued_bytes + self._outbox.queued_bytes

    @property
    def sent_bytes(self) -> int:
        return self._outbox.written_bytes - super().queued_bytes

    def control(self, opcode: WSMsgType, payload: bytes = b"") -> None:
        """Send a control frame behind all queued frames, unless a close frame was sent."""
        if not self._outbox.is_ended:
            self._outbox.flush()
            super().control(opcode, payload)

    def discard(self) -> None:
        """Drop the long message that is being received, and all later ones."""
        if isinstance(self._connection, HttpConnection) and self._connection.message_reader is not None:
            self._connection.message_reader.discard()

    async def close(self, code: int, reason: bytes) -> None:
        """Send a close frame behind all queued frames, wait `CLOSE_GRACE_S` for its answer, and disconnect."""
        try:
            async with asyncio.timeout(CLOSE_GRACE_S):
                await self._response.close(code=code, message=reason)
        except TimeoutError:
            self.abort()
        await self.disconnect()

    async def close_and_drain(self, code: int, reason: bytes, reading_ended: asyncio.Event) -> None:
        """Send a close frame to a client that is still sending, drop its input until it answers, and disconnect.

        The kernel resets a connection that is closed with unread input, and the client might not receive the close
        frame. aiohttp's `close` does not read while a task waits for a message, so that task is stopped first.
        """
        self.control(WSMsgType.CLOSE, struct.pack("!H", code) + reason)
        self._outbox.end()
        with suppress(Exception):  # aiohttp raises several types, depending on how the connection is lost
            async with asyncio.timeout(CLOSE_GRACE_S):
                queue = self._response._reader
                assert queue is not None
                if self._response._waiting:
                    queue.feed_data(WSMessage(WSMsgType.CLOSING, None, None), 0)
                await reading_ended.wait()
                while (await queue.read()).type is not WSMsgType.CLOSE:
                    pass
        await self.disconnect()

    async def disconnect(self) -> None:
        self._outbox.end()
        await super().disconnect()


def set_subprotocol(response: "web.WebSocketResponse[bool]", protocol: str | None) -> None:
    """Answer with this subprotocol. aiohttp looks for it in the first of several headers only."""
    if protocol is not None:
        response.headers[PROTOCOL_HEADER] = protocol
