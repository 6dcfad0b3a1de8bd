"""One side of a realtime session: messages come from it and go to it, and it is parted from."""

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Literal, Protocol, cast

from aiohttp import WebSocketError, WSMessage, WSMsgType, web

from bridge.errors import OutOfMemoryBudget
from bridge.realtime import ends
from bridge.realtime.ends import Close, End, Side
from bridge.relay.budget import Hold
from bridge.upstream.known_secrets import NOTHING
from bridge.upstream.realtime import ProviderSocket, Witness
from bridge.websocket import CLOSE_GRACE_S, LONG_BYTES, Peer

_FIN: Final = 0x80
_MASKED: Final = 0x80
_HEAD: Final = struct.Struct("!BB").pack
_MASK_BYTES: Final = 4
_ERROR: Final = b"rror"


class Left(Exception):
    """The side has left, one way or another."""

    def __init__(self, end: End) -> None:
        super().__init__(end.code)
        self.end = end


class _Socket(Protocol):
    def send_frame(self, message: bytes, opcode: WSMsgType) -> Awaitable[None]: ...


class _Queue(Protocol):
    def read(self) -> Awaitable[Any]: ...


class _Handler(Protocol):
    """aiohttp's protocols, server's and client's."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Leg(Peer):
    """Made of an upgraded connection. `receive` is for one reader, `send` for one writer.

    aiohttp's own `receive` forgets what came before a connection was lost, and be it a goodbye: its queue is read
    directly. Nothing waits inside aiohttp, for that writing is paused is known here alone.
    """

    side: Side

    def __init__(
        self, socket: _Socket, queue: _Queue, transport: asyncio.Transport, handler: asyncio.Protocol, hold: Hold
    ) -> None:
        """Long messages count in `hold` from when they come until they are taken by the other side's connection."""
        super().__init__(transport, handler)
        self._socket = socket
        self._queue = queue
        self._reading = cast("_Handler", handler)
        self._hold = hold
        self._owed_pong: bytes | None = None
        self.known = NOTHING
        """Secrets that are masked in errors that come from here."""
        self._said_goodbye = False
        self.on_arrival = self._count_arrival
        self.on_crowded: Callable[[OutOfMemoryBudget], None] = _nothing
        """Called when a long message is more than there is memory for."""

    async def receive(self) -> WSMessage:
        """The next text or binary message, as bytes either way. Pings are answered. Raises Left."""
        while True:
            try:
                message: WSMessage = await self._queue.read()
            except WebSocketError as error:
                raise Left(ends.broke(self.side, error.code)) from None
            except Exception:  # aiohttp has several, as the connection may be lost in several ways
                raise Left(ends.lost(self.side)) from None
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    return self._concealed(message) if self.known else message
                case WSMsgType.PING:
                    self._answer(message.data)
                case WSMsgType.CLOSE:
                    raise Left(
                        ends.left(
                            self.side, message.data or ends.NO_CODE, self.known.hidden_in_text(message.extra or "")
                        )
                    )

    def _concealed(self, message: WSMessage) -> WSMessage:
        """Without the known secrets, should the message report an error."""
        hidden = self.known.hidden_in(message.data) if _ERROR in message.data else message.data
        return message if hidden == message.data else message._replace(data=hidden)

    async def send(self, opcode: WSMsgType, data: bytes) -> None:
        """Written when it returns, taken or not: see `is_full`. Raises ConnectionResetError when the side is gone."""
        self._written_bytes += len(data)
        await self._socket.send_frame(data, opcode)

    async def pause_for(self, other: "Leg") -> None:
        """Read nothing more from here until the other side has taken what stands in line for it."""
        self._reading.pause_reading()
        try:
            await other.drained()
        finally:
            self._reading.resume_reading()  # a goodbye, at least, is still to be heard

    def passed_on(self, size: int) -> None:
        """A message of so many bytes has been taken by the other side's connection."""
        if self._arrived_bytes <= LONG_BYTES:
            self._arrived_bytes = 0
            return
        self._hold.drop()
        if rest := self.took(size):
            self._count_arrival(rest)

    async def part(self, close: Close | None, *, answers: bool) -> None:
        """Say goodbye behind all else, hear the other's unless this one `answers` it, and let go; not for long."""
        if close is None:
            self.abort()
        else:
            self.control(WSMsgType.CLOSE, close.payload)
            self._said_goodbye = True
            if not answers:
                await self._hear_goodbye()
        await self.let_go()

    def control(self, opcode: WSMsgType, payload: bytes = b"") -> None:
        """Nothing after a goodbye."""
        if not self._said_goodbye and not self._transport.is_closing():
            self._transport.write(self._control_frame(opcode, payload))

    def pause_writing(self) -> None:
        self._flowing.clear()

    def resume_writing(self) -> None:
        self._flowing.set()
        owed, self._owed_pong = self._owed_pong, None
        if owed is not None:
            self.control(WSMsgType.PONG, owed)

    def _answer(self, ping: bytes) -> None:
        """One that takes nothing gets a pong for its last ping, once it does (RFC 6455, section 5.5.3)."""
        if self.is_full:
            self._owed_pong = ping
        else:
            self.control(WSMsgType.PONG, ping)

    def _control_frame(self, opcode: WSMsgType, payload: bytes) -> bytes:
        return _HEAD(_FIN | opcode, len(payload)) + payload

    async def _hear_goodbye(self) -> None:
        """What else comes before it is dropped: left unread, it would have the kernel reset the connection.

        Who broke the protocol cannot be heard any more: it is let go of at once, unless the rest of a message that is
        too long has to come first.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_GRACE_S):
                try:
                    while True:
                        await self.receive()
                except Left as left:
                    if left.end.code == ends.TOO_BIG and not left.end.is_goodbye:
                        await self._gone.wait()

    def _count_arrival(self, size: int) -> None:
        try:
            self._hold.add(size, overdraw=True)
        except OutOfMemoryBudget as error:
            self.on_crowded(error)


class ClientLeg(Leg):
    side = "client"

    def __init__(self, request: web.BaseRequest, response: "web.WebSocketResponse[bool]", hold: Hold) -> None:
        queue = response._reader
        assert request.transport is not None
        assert queue is not None
        super().__init__(response, queue, request.transport, request.protocol, hold)


class ProviderLeg(Leg):
    side = "provider"

    def __init__(self, socket: ProviderSocket, hold: Hold) -> None:
        super().__init__(socket, socket.queue, socket.transport, socket.handler, hold)

    def _control_frame(self, opcode: WSMsgType, payload: bytes) -> bytes:
        """A client's frames are masked (RFC 6455, section 5.3)."""
        mask = os.urandom(_MASK_BYTES)
        masked = bytes(byte ^ mask[place % _MASK_BYTES] for place, byte in enumerate(payload))
        return _HEAD(_FIN | opcode, _MASKED | len(payload)) + mask + masked


class WitnessedLeg(ProviderLeg):
    """A provider's, of which somebody takes note."""

    def __init__(self, socket: ProviderSocket, hold: Hold, witness: Witness) -> None:
        super().__init__(socket, hold)
        self._witness = witness

    async def receive(self) -> WSMessage:
        try:
            message = await super().receive()
        except Left as left:
            self._witness.ended(self.side, left.end.code if left.end.is_goodbye else ends.LOST, left.end.reason)
            raise
        self._witness.passed(self.side, opcode_of(message.type), message.data)
        return message

    async def send(self, opcode: WSMsgType, data: bytes) -> None:
        self._witness.passed("client", opcode_of(opcode), data)
        await super().send(opcode, data)

    async def part(self, close: Close | None, *, answers: bool) -> None:
        if close is not None:
            self._witness.ended("client", close.code, close.reason)
        await super().part(close, answers=answers)


def provider_leg(socket: ProviderSocket, hold: Hold) -> ProviderLeg:
    return WitnessedLeg(socket, hold, socket.witness) if socket.witness else ProviderLeg(socket, hold)


def opcode_of(opcode: WSMsgType) -> Literal["text", "binary"]:
    return "text" if opcode is WSMsgType.TEXT else "binary"


def _nothing(_: OutOfMemoryBudget) -> None: ...
