"""One side of a realtime session: messages come from it and go to it, and it is parted from."""

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
from bridge.server.realtime import close as closing
from bridge.server.realtime.close import CloseFrame, SessionEnd, Side
from bridge.server.websocket import CLOSE_GRACE_S, MonitoredConnection
from bridge.upstream.realtime import ProviderSocket, SessionListener

_FIN: Final = 0x80
_MASKED: Final = 0x80
_HEAD: Final = struct.Struct("!BB").pack
_MASK_BYTES: Final = 4
_ERROR: Final = b"rror"


class PeerClosed(Exception):
    """The side has left, one way or another."""

    def __init__(self, end: SessionEnd) -> None:
        super().__init__(end.code)
        self.end = end


class _RealtimeSocket(Protocol):
    def send_frame(self, message: bytes, opcode: WSMsgType) -> Awaitable[None]: ...


class _Queue(Protocol):
    def read(self) -> Awaitable[Any]: ...


class _Handler(Protocol):
    """aiohttp's protocols, server's and client's."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Peer(MonitoredConnection):
    """Made of an upgraded connection. `receive` is for one reader, `send` for one writer.

    aiohttp's own `receive` forgets what came before a connection was lost, and be it a goodbye: its queue is read
    directly. Nothing waits inside aiohttp, for that writing is paused is known here alone.
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
        """Long messages count in `hold` from when they come until they are taken by the other side's connection."""
        super().__init__(transport, handler)
        self._socket = socket
        self._queue = queue
        self._reading = cast("_Handler", handler)
        self._reservation = reservation
        self._pending_pong: bytes | None = None
        self.known_secrets = NO_SECRETS
        """Secrets that are masked in errors that come from here."""
        self._sent_close = False
        self.on_arrival = self._count_arrival
        self.on_out_of_memory: Callable[[OutOfMemoryBudget], None] = _nothing
        """Called when a long message is more than there is memory for."""

    async def receive(self) -> WSMessage:
        """The next text or binary message, as bytes either way. Pings are answered. Raises Left."""
        while True:
            try:
                message: WSMessage = await self._queue.read()
            except WebSocketError as error:
                raise PeerClosed(closing.protocol_error(self.side, error.code)) from None
            except Exception:  # aiohttp has several, as the connection may be lost in several ways
                raise PeerClosed(closing.lost(self.side)) from None
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    return self._concealed(message) if self.known_secrets else message
                case WSMsgType.PING:
                    self._answer(message.data)
                case WSMsgType.CLOSE:
                    raise PeerClosed(
                        closing.closed(
                            self.side,
                            message.data or closing.NO_CODE,
                            self.known_secrets.mask_text(message.extra or ""),
                        )
                    )

    def _concealed(self, message: WSMessage) -> WSMessage:
        """Without the known secrets, should the message report an error."""
        hidden = self.known_secrets.mask(message.data) if _ERROR in message.data else message.data
        return message if hidden == message.data else message._replace(data=hidden)

    async def send(self, opcode: WSMsgType, data: bytes) -> None:
        """Written when it returns, taken or not: see `is_full`. Raises ConnectionResetError when the side is gone."""
        self._written_bytes += len(data)
        await self._socket.send_frame(data, opcode)

    async def pause_for(self, other: "Peer") -> None:
        """Read nothing more from here until the other side has taken what stands in line for it."""
        self._reading.pause_reading()
        try:
            await other.drain()
        finally:
            self._reading.resume_reading()  # a goodbye, at least, is still to be heard

    def message_relayed(self, size: int) -> None:
        """A message of so many bytes has been taken by the other side's connection."""
        if self._arrived_bytes <= LONG_BYTES:
            self._arrived_bytes = 0
            return
        self._reservation.release_all()
        if rest := self.message_consumed(size):
            self._count_arrival(rest)

    async def close(self, close: CloseFrame | None, *, answers: bool) -> None:
        """Say goodbye behind all else, hear the other's unless this one `answers` it, and let go; not for long."""
        if close is None:
            self.abort()
        else:
            self.control(WSMsgType.CLOSE, close.payload)
            self._sent_close = True
            if not answers:
                await self._on_close_frame()
        await self.disconnect()

    def control(self, opcode: WSMsgType, payload: bytes = b"") -> None:
        """Nothing after a goodbye."""
        if not self._sent_close and not self._transport.is_closing():
            self._transport.write(self._control_frame(opcode, payload))

    def pause_writing(self) -> None:
        self._flowing.clear()

    def resume_writing(self) -> None:
        self._flowing.set()
        owed, self._pending_pong = self._pending_pong, None
        if owed is not None:
            self.control(WSMsgType.PONG, owed)

    def _answer(self, ping: bytes) -> None:
        """One that takes nothing gets a pong for its last ping, once it does (RFC 6455, section 5.5.3)."""
        if self.is_full:
            self._pending_pong = ping
        else:
            self.control(WSMsgType.PONG, ping)

    def _control_frame(self, opcode: WSMsgType, payload: bytes) -> bytes:
        return _HEAD(_FIN | opcode, len(payload)) + payload

    async def _on_close_frame(self) -> None:
        """What else comes before it is dropped: left unread, it would have the kernel reset the connection.

        Who broke the protocol cannot be heard any more: it is let go of at once, unless the rest of a message that is
        too long has to come first.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_GRACE_S):
                try:
                    while True:
                        await self.receive()
                except PeerClosed as left:
                    if left.end.code == closing.TOO_BIG and not left.end.has_close_frame:
                        await self._closed.wait()

    def _count_arrival(self, size: int) -> None:
        try:
            self._reservation.add(size, overdraw=True)
        except OutOfMemoryBudget as error:
            self.on_out_of_memory(error)


class ClientPeer(Peer):
    side = "client"

    def __init__(
        self, request: web.BaseRequest, response: "web.WebSocketResponse[bool]", reservation: MemoryReservation
    ) -> None:
        queue = response._reader
        assert request.transport is not None
        assert queue is not None
        super().__init__(response, queue, request.transport, request.protocol, reservation)


class ProviderPeer(Peer):
    side = "provider"

    def __init__(self, socket: ProviderSocket, reservation: MemoryReservation) -> None:
        super().__init__(socket, socket.queue, socket.transport, socket.handler, reservation)

    def _control_frame(self, opcode: WSMsgType, payload: bytes) -> bytes:
        """A client's frames are masked (RFC 6455, section 5.3)."""
        mask = os.urandom(_MASK_BYTES)
        masked = bytes(byte ^ mask[place % _MASK_BYTES] for place, byte in enumerate(payload))
        return _HEAD(_FIN | opcode, _MASKED | len(payload)) + mask + masked


class RecordedPeer(ProviderPeer):
    """A provider's, of which somebody takes note."""

    def __init__(self, socket: ProviderSocket, reservation: MemoryReservation, listener: SessionListener) -> None:
        super().__init__(socket, reservation)
        self._recorder = listener

    async def receive(self) -> WSMessage:
        try:
            message = await super().receive()
        except PeerClosed as left:
            self._recorder.ended(
                self.side, left.end.code if left.end.has_close_frame else closing.LOST, left.end.reason
            )
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


def _nothing(_: OutOfMemoryBudget) -> None: ...
