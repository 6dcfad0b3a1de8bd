"""One client's socket: messages in, events started and ended, and a watch on whether the client is still there."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final, assert_never

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from bridge.errors import (
    BridgeError,
    Cancelled,
    ClientError,
    Draining,
    EventIdInUse,
    OutOfMemoryBudget,
    SlowClient,
    TooManyEvents,
)
from bridge.protocol.frames import heartbeat, refusal
from bridge.protocol.messages import Cancel, Create, EventId, RejectedMessage, parse
from bridge.protocol.steps import message_limits
from bridge.relay.arrivals import Arrivals
from bridge.relay.context import Runtime
from bridge.relay.memory import MemoryBudget, MemoryReservation
from bridge.relay.plan import RequestContext
from bridge.relay.runner import OFF_LOOP_BYTES, EventRunner, new_id
from bridge.relay.writer import FrameWriter
from bridge.server.keepalive import KeepAlive, timeouts_of
from bridge.server.websocket import ClientSocket
from bridge.settings.server import ServerSettings
from bridge.settings.step import StepSettings
from bridge.tasks import Tasks

MESSAGES_PER_TURN: Final = 64
"""How many messages that have come already one socket takes before its neighbours have a turn."""


@dataclass(frozen=True, slots=True)
class HandshakeOptions:
    """What was agreed on at the handshake."""

    context: RequestContext
    settings: StepSettings
    """The gateway's, with those of the handshake laid over them."""
    compat: bool
    heartbeat_s: float | None
    warnings: tuple[str, ...] = ()
    """Of settings that were clamped; every event hears of them."""


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why a socket takes no more events, and closes when it has none."""

    code: WSCloseCode
    reason: bytes
    error: type[BridgeError]
    message: str
    """What a new event is told."""


_SHUTDOWN: Final = CloseReason(
    WSCloseCode.GOING_AWAY, b"the bridge is shutting down", Draining, "the bridge is shutting down; connect anew"
)
_REVOKED: Final = b"the gateway or its token is gone"


class Session:
    """Runs one socket from handshake to close; owns its events."""

    def __init__(
        self,
        response: "web.WebSocketResponse[bool]",
        socket: ClientSocket,
        options: HandshakeOptions,
        server: ServerSettings,
        runtime: Runtime,
        memory: MemoryBudget,
        arrivals: Arrivals,
    ) -> None:
        self._response = response
        self._socket = socket
        self._options = options
        self._server = server
        self._runtime = runtime
        self._limits = message_limits(server)
        self._budget = MemoryBudget(server.max_buffered_bytes, "this socket", memory)
        self._arrivals = arrivals
        self._arrival = MemoryReservation(self._budget)
        """Of a long message that is not whole yet."""
        self._writable = asyncio.Event()
        self._reading_ended = asyncio.Event()
        self._events: dict[str | int, EventRunner] = {}
        self._tasks, self._closing = Tasks(), Tasks()
        self._messages = self._unread_replies = 0
        self._close_reason: CloseReason | None = None
        self._is_closing = False
        self._keepalive = KeepAlive(
            socket, timeouts_of(server, options.heartbeat_s), self._send_heartbeat, self._on_slow_client
        )
        socket.on_disconnect, socket.on_arrival = self._on_gone, self._on_arrival

    async def run(self) -> None:
        """Reads until the client leaves or is sent away. Then its events end, and nothing is left open."""
        self._keepalive.start()
        try:
            await self._read()
        finally:
            self._keepalive.stop()
            self._reading_ended.set()
            self._on_gone()
            await self._closing.wait_all()
            await self._socket.disconnect()
            await self._tasks.wait_all()
            self._arrivals.end(self)
            self._arrival.release_all()

    def drain(self) -> None:
        """No new events; close as soon as there are none. May be called again."""
        self._close_reason = self._close_reason or _SHUTDOWN
        self._close_if_drained()

    def end_events(self) -> None:
        """The deadline of a drain has come."""
        self._cancel_all(Draining("the bridge is shutting down"))

    def revalidate(self) -> None:
        """Leave once the events are cancelled, if the token or the gateway is gone."""
        try:
            self._options.context.current_gateway()
        except ClientError as error:
            self._close_reason = CloseReason(WSCloseCode.POLICY_VIOLATION, _REVOKED, type(error), str(error))
            self._cancel_all(error)
            self._close_if_drained()

    async def _read(self) -> None:
        for received in count(1):
            while self._budget.is_full:
                self._writable.clear()
                await self._writable.wait()
            if not received % MESSAGES_PER_TURN:
                await asyncio.sleep(0)
            if self._is_closing:
                return
            message = await self._response.receive()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    await self._handle_message(message.data, self._arrived(len(message.data)))
                case WSMsgType.PING:
                    self._count_rest(len(message.data))
                    await self._throttle_replies()
                    self._socket.control(WSMsgType.PONG, message.data)
                case WSMsgType.PONG:
                    self._count_rest(len(message.data))
                case _:
                    return
            del message  # 64 MiB, it may be, and the next one may be long in coming

    async def _throttle_replies(self) -> None:
        """A client that takes no answers may ask for some more of them, but not for any number."""
        self._unread_replies = self._unread_replies + 1 if self._socket.is_full else 0
        if self._unread_replies > self._server.max_in_flight:
            await self._socket.drain()

    async def _handle_message(self, data: bytes, reservation: MemoryReservation) -> None:
        """One message, of which `hold` counts what has been counted. Never raises for what it holds."""
        index, self._messages = self._messages, self._messages + 1
        try:
            message = await self._parsed(data)
            if not isinstance(message, Cancel):
                await self._throttle_replies()
            match message:
                case Create():
                    self._create(message, len(data), index, reservation)
                    return
                case Cancel():
                    self._cancel(message.event_id)
                case RejectedMessage():
                    self._refuse(message, index)
                case _:
                    assert_never(message)
        except BaseException:
            reservation.release_all()
            raise
        reservation.release_all()

    async def _parsed(self, data: bytes) -> Create | Cancel | RejectedMessage:
        if len(data) < OFF_LOOP_BYTES:
            return parse(data, self._options.settings, self._limits)
        async with self._arrivals.reading:
            return await asyncio.to_thread(parse, data, self._options.settings, self._limits)

    def _cancel(self, event_id: EventId) -> None:
        if relay := self._events.get(event_id.key):
            relay.cancel(Cancelled("cancelled by the client"))

    def _create(self, create: Create, size: int, index: int, reservation: MemoryReservation) -> None:
        event_id = create.event_id or _generate_id()
        try:
            self._admit(event_id, reservation, size)
        except BridgeError as error:
            reservation.release_all()
            self._refuse(RejectedMessage(error, event_id, owned=True, defaults=create.settings), index)
            return
        create.warnings[:0] = self._options.warnings
        relay = self._relay(create, event_id, reservation, partial(self._ended, event_id))
        self._events[event_id.key] = relay
        self._tasks.start(self._run(relay), f"event {event_id.key}")

    async def _run(self, relay: EventRunner) -> None:
        try:
            await relay.run()
        finally:
            self._writable.set()

    def _admit(self, event_id: EventId, reservation: MemoryReservation, size: int) -> None:
        if event_id.key in self._events:
            raise _in_flight()
        if self._close_reason is not None:
            raise self._close_reason.error(self._close_reason.message)
        if len(self._events) >= self._server.max_in_flight:
            raise TooManyEvents(f"{len(self._events)} events are in flight on this socket; wait for one to end")
        reservation.add(
            size - reservation.size, overdraw=True
        )  # it is here already; what would come after it is not read

    def _refuse(self, refused: RejectedMessage, index: int) -> None:
        """An owned fault is its event's last frame, unless that name is taken; any other belongs to the message."""
        event_id, error = refused.event_id, refused.error
        is_taken = event_id is not None and event_id.key in self._events
        if refused.owned and not is_taken:
            event_id = event_id or _generate_id()
            self._relay(refused.create, event_id, MemoryReservation(self._budget), lambda: None).refuse(error)
            return
        told = _in_flight() if refused.owned else error
        self._socket.send([refusal(told, index, event_id.raw if event_id else None)])

    def _relay(
        self, create: Create, event_id: EventId, reservation: MemoryReservation, on_last: Callable[[], None]
    ) -> EventRunner:
        writer = FrameWriter(event_id.raw, self._socket, compat=self._options.compat)
        return EventRunner(create, event_id.raw, self._options.context, self._runtime, writer, reservation, on_last)

    def _ended(self, event_id: EventId) -> None:
        """Its last frame is out."""
        del self._events[event_id.key]
        self._close_if_drained()

    def _cancel_all(self, error: BridgeError) -> None:
        for relay in list(self._events.values()):
            relay.cancel(error)

    def _close_if_drained(self) -> None:
        if self._close_reason is not None and not self._events:
            self._close(self._close_reason.code, self._close_reason.reason)

    def _close(self, code: WSCloseCode, reason: bytes) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._closing.start(self._socket.close(code, reason), "close")

    def _on_slow_client(self) -> None:
        self._cancel_all(SlowClient("the client took nothing for too long while frames waited"))
        self._close(WSCloseCode.POLICY_VIOLATION, b"too slow")

    def _arrived(self, size: int) -> MemoryReservation:
        """A message of so many bytes is whole: what of it has been counted already."""
        reservation = MemoryReservation(self._budget)
        self._arrival.move(min(self._arrival.size, size), reservation)
        self._arrivals.end(self)
        self._count_rest(size)
        return reservation

    def _count_rest(self, sent_bytes: int) -> None:
        """Of what has come, so many bytes were taken."""
        self._arrival.release_all()
        if rest := self._socket.message_consumed(sent_bytes):
            self._on_arrival(rest)
        else:
            self._arrivals.end(self)

    def _on_arrival(self, size: int) -> None:
        """More of a long message is there."""
        if not self._is_closing:
            self._arrivals.begin(self, self._refuse_arrival)
            self._arrivals.add(self, self._arrival, size)

    def _refuse_arrival(self, error: OutOfMemoryBudget) -> None:
        """The message has no event yet that could be told, so the socket is. What else comes is read and dropped: a
        connection that is closed with something unread is reset, and the client might not get to see the close frame.
        """
        self._arrival.release_all()
        self._socket.discard()
        self._socket.send([refusal(error, self._messages, None)])
        if not self._is_closing:
            self._is_closing = True
            code, reason = WSCloseCode.TRY_AGAIN_LATER, b"out of memory"
            goodbye = self._socket.close_and_drain(code, reason, self._reading_ended)
            self._closing.start(goodbye, "close")

    def _on_gone(self) -> None:
        self._cancel_all(Cancelled("the socket was closed"))

    def _send_heartbeat(self) -> None:
        beats = [(relay.event_id, relay.phase, str(relay.step)) for relay in self._events.values()]
        self._socket.send([heartbeat(beats)])


def _generate_id() -> EventId:
    """The name of an event whose client gave none."""
    key = new_id()
    return EventId(key, orjson.dumps(key))


def _in_flight() -> EventIdInUse:
    return EventIdInUse("an event with this eventId is in flight; its id may be used again after its last frame")
