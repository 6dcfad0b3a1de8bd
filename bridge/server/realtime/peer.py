"""One side of a realtime session: receive messages from it, send messages to it, and close it."""

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Literal, Protocol, cast

from aiohttp import WebSocketError, WSMessage, WSMsgType, web

from bridge.errors import OutOfMemoryBudget
from bridge.redact.known_secrets import NO_SECRETS
from bridge.relay.arrivals import LONG_BYTES
from bridge.relay.memory import MemoryReservation
from bridge.server.callbacks import ignore
from bridge.server.realtime import close as closing
from bridge.server.realtime.close import CloseFrame, SessionEnd, Side
from bridge.server.websocket import CLOSE_GRACE_S, MonitoredConnection
from bridge.upstream.realtime import ProviderSocket, SessionListener

_FIN: Final = 0x80
_MASKED: Final = 0x80
_HEADER: Final = struct.Struct("!BB").pack
_MASK_BYTES: Final = 4
_ERROR: Final = b"rror"  # of `error` and of `Error`


class PeerClosed(Exception):
    """The side closed the session, or its connection is lost."""

    def __init__(self, end: SessionEnd) -> None:
        super().__init__(end.code)
        self.end = end


class _RealtimeSocket(Protocol):
    def send_frame(self, message: bytes, opcode: WSMsgType) -> Awaitable[None]: ...


class _Queue(Protocol):
    def read(self) -> Awaitable[Any]: ...


class _Handler(Protocol):
    """The part of aiohttp's protocols, of server and client, that pauses reading."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Peer(MonitoredConnection):
    """One side of a session on an upgraded connection. `receive` is for one reader, `send` for one writer.

    aiohttp's queue is read directly, because its `receive` drops messages, even a close frame, that came before the
    connection was lost. Pauses of writing are not passed to aiohttp, so that no task waits inside it.
    """

    side: Side

    def __init__(
        self,
        socket: _RealtimeSocket,
        queue: _Queue,
        transport: asyncio.Transport,
        handler: asyncio.Protocol,
        reservation: MemoryReservation,
    ) -> None:
        """`reservation` counts long messages from their arrival until the other side's connection accepts them."""
        super().__init__(transport, handler)
        self._socket = socket
        self._queue = queue
        self._reading = cast("_Handler", handler)
        self._reservation = reservation
        self._pending_pong: bytes | None = None
        self.known_secrets = NO_SECRETS
        """Secrets that are masked in errors from this side."""
        self._sent_close = False
        self.on_arrival = self._count_arrival
        self.on_out_of_memory: Callable[[OutOfMemoryBudget], None] = ignore
        """Called when a long message exceeds the memory budget."""

    async def receive(self) -> WSMessage:
        """Return the next text or binary message, both with bytes. Pings are answered. Raises PeerClosed."""
        while True:
            try:
                message: WSMessage = await self._queue.read()
            except WebSocketError as error:
                raise PeerClosed(closing.protocol_error(self.side, error.code)) from None
            except Exception:  # aiohttp raises several types, depending on how the connection is lost
                raise PeerClosed(closing.lost(self.side)) from None
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    return self._masked(message) if self.known_secrets else message
                case WSMsgType.PING:
                    self._answer_ping(message.data)
                case WSMsgType.CLOSE:
                    raise PeerClosed(
                        closing.closed(
                            self.side,
                            message.data or closing.NO_CODE,
                            self.known_secrets.mask_text(message.extra or ""),
                        )
                    )

    def _masked(self, message: WSMessage) -> WSMessage:
        """Return the message with known secrets masked, if it may report an error."""
        hidden = self.known_secrets.mask(message.data) if _ERROR in message.data else message.data
        return message if hidden == message.data else message._replace(data=hidden)

    async def send(self, opcode: WSMsgType, data: bytes) -> None:
        """Write a message without waiting until it is sent; check `is_full` afterwards.

        Raises ConnectionResetError if the side is disconnected.
        """
        self._written_bytes += len(data)
        await self._socket.send_frame(data, opcode)

    async def pause_for(self, other: "Peer") -> None:
        """Pause reading from this side until the other side has read its queued output."""
        self._reading.pause_reading()
        try:
            await other.drain()
        finally:
            self._reading.resume_reading()  # a close frame is still to be read

    def message_relayed(self, size: int) -> None:
        """Release the memory of a message of `size` bytes, which the other side's connection has accepted."""
        if self._arrived_bytes <= LONG_BYTES:
            self._arrived_bytes = 0
            return
        self._reservation.release_all()
        if rest := self.message_consumed(size):
            self._count_arrival(rest)

    async def close(self, close: CloseFrame | None, *, answers: bool) -> None:
        """Send a close frame behind all queued output, wait for the answer and disconnect.

        `answers` is True if the frame is itself an answer. Waiting is limited to `CLOSE_GRACE_S`. Without a frame the
        connection is aborted.
        """
        if close is None:
            self.abort()
        else:
            self.control(WSMsgType.CLOSE, close.payload)
            self._sent_close = True
            if not answers:
                await self._wait_for_close_frame()
        await self.disconnect()

    def control(self, opcode: WSMsgType, payload: bytes = b"") -> None:
        """Send a control frame, unless a close frame was sent."""
        if not self._sent_close and not self._transport.is_closing():
            self._transport.write(self._control_frame(opcode, payload))

    def pause_writing(self) -> None:
        self._flowing.clear()

    def resume_writing(self) -> None:
        self._flowing.set()
        pending, self._pending_pong = self._pending_pong, None
        if pending is not None:
            self.control(WSMsgType.PONG, pending)

    def _answer_ping(self, ping: bytes) -> None:
        """Send a pong; while writing is paused, remember only the last ping (RFC 6455, section 5.5.3)."""
        if self.is_full:
            self._pending_pong = ping
        else:
            self.control(WSMsgType.PONG, ping)

    def _control_frame(self, opcode: WSMsgType, payload: bytes) -> bytes:
        return _HEADER(_FIN | opcode, len(payload)) + payload

    async def _wait_for_close_frame(self) -> None:
        """Read and drop input until a close frame; the kernel resets a connection that is closed with unread input.

        A side that violated the protocol cannot be read any more, so this returns at once; only after a message that is
        too long it waits until the side has disconnected.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_GRACE_S):
                try:
                    while True:
                        await self.receive()
                except PeerClosed as closed:
                    if closed.end.code == closing.TOO_BIG and not closed.end.has_close_frame:
                        await self._closed.wait()

    def _count_arrival(self, size: int) -> None:
        try:
            self._reservation.add(size, overdraw=True)
        except OutOfMemoryBudget as error:
            self.on_out_of_memory(error)


class ClientPeer(Peer):
    """The client's side of a session."""

    side = "client"

    def __init__(
        self, request: web.BaseRequest, response: "web.WebSocketResponse[bool]", reservation: MemoryReservation
    ) -> None:
        queue = response._reader
        assert request.transport is not None
        assert queue is not None
        super().__init__(response, queue, request.transport, request.protocol, reservation)


class ProviderPeer(Peer):
    """The provider's side of a session."""

    side = "provider"

    def __init__(self, socket: ProviderSocket, reservation: MemoryReservation) -> None:
        super().__init__(socket, socket.queue, socket.transport, socket.handler, reservation)

    def _control_frame(self, opcode: WSMsgType, payload: bytes) -> bytes:
        """Mask the frame, as a client has to (RFC 6455, section 5.3)."""
        mask = os.urandom(_MASK_BYTES)
        masked = bytes(byte ^ mask[index % _MASK_BYTES] for index, byte in enumerate(payload))
        return _HEADER(_FIN | opcode, _MASKED | len(payload)) + mask + masked


class RecordedPeer(ProviderPeer):
    """The provider's side of a session that is recorded."""

    def __init__(self, socket: ProviderSocket, reservation: MemoryReservation, listener: SessionListener) -> None:
        super().__init__(socket, reservation)
        self._recorder = listener

    async def receive(self) -> WSMessage:
        try:
            message = await super().receive()
        except PeerClosed as closed:
            end = closed.end
            self._recorder.ended(self.side, end.code if end.has_close_frame else closing.LOST, end.reason)
            raise
        self._recorder.passed(self.side, opcode_of(message.type), message.data)
        return message

    async def send(self, opcode: WSMsgType, data: bytes) -> None:
        self._recorder.passed("client", opcode_of(opcode), data)
        await super().send(opcode, data)

    async def close(self, close: CloseFrame | None, *, answers: bool) -> None:
        if close is not None:
            self._recorder.ended("client", close.code, close.reason)
        await super().close(close, answers=answers)


def provider_peer(socket: ProviderSocket, reservation: MemoryReservation) -> ProviderPeer:
    return RecordedPeer(socket, reservation, socket.listener) if socket.listener else ProviderPeer(socket, reservation)


def opcode_of(opcode: WSMsgType) -> Literal["text", "binary"]:
    return "text" if opcode is WSMsgType.TEXT else "binary"
