"""One client's WebSocket session: read messages, start and cancel events, and close."""

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
from bridge.relay.memory import MemoryBudget, MemoryReservation
from bridge.relay.runner import OFF_LOOP_BYTES, EventRunner, new_id
from bridge.relay.writer import FrameWriter
from bridge.server.handshake import HandshakeOptions
from bridge.server.keepalive import KeepAlive, timeouts_of
from bridge.server.state import ServerState
from bridge.server.websocket import ClientSocket
from bridge.tasks import Tasks

MESSAGES_PER_TURN: Final = 64
"""Buffered messages that a socket handles before it yields to other sockets."""


@dataclass(frozen=True, slots=True)
class CloseReason:
    """The reason why a socket accepts no more events and closes when none is in flight."""

    code: WSCloseCode
    reason: bytes
    error: type[BridgeError]
    message: str
    """The error message of a new event."""


_SHUTDOWN: Final = CloseReason(
    WSCloseCode.GOING_AWAY, b"the bridge is shutting down", Draining, "the bridge is shutting down; reconnect"
)
_REVOKED: Final = b"the gateway or its token is gone"
_ID_IN_USE: Final = "an event with this eventId is in flight; use the id again after its last frame"


class Session:
    """Runs one socket from handshake to close, and owns its events."""

    def __init__(
        self,
        response: "web.WebSocketResponse[bool]",
        socket: ClientSocket,
        options: HandshakeOptions,
        state: ServerState,
    ) -> None:
        server = state.settings
        self._response = response
        self._socket = socket
        self._options = options
        self._server = server
        self._runtime = state.runtime
        self._limits = message_limits(server)
        self._budget = MemoryBudget(server.max_buffered_bytes, "this socket", state.memory)
        self._arrivals = state.arrivals
        self._arrival = MemoryReservation(self._budget)
        """The memory of a long message that is still incomplete."""
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
        socket.on_disconnect, socket.on_arrival = self._on_disconnect, self._on_arrival

    async def run(self) -> None:
        """Read until the client leaves or the session closes; then end its events and release everything."""
        self._keepalive.start()
        try:
            await self._read()
        finally:
            self._keepalive.stop()
            self._reading_ended.set()
            self._on_disconnect()
            await self._closing.wait_all()
            await self._socket.disconnect()
            await self._tasks.wait_all()
            self._arrivals.end(self)
            self._arrival.release_all()

    def drain(self) -> None:
        """Accept no new events, and close as soon as none is in flight. May be called more than once."""
        self._close_reason = self._close_reason or _SHUTDOWN
        self._close_if_drained()

    def end_events(self) -> None:
        """Cancel all events: the deadline of the drain has passed."""
        self._cancel_all(Draining("the bridge is shutting down"))

    def revalidate(self) -> None:
        """Cancel all events and close, if the token or the gateway was removed."""
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
                    await self._handle_message(message.data, self._reserve_received(len(message.data)))
                case WSMsgType.PING:
                    self._count_rest(len(message.data))
                    await self._throttle_replies()
                    self._socket.control(WSMsgType.PONG, message.data)
                case WSMsgType.PONG:
                    self._count_rest(len(message.data))
                case _:
                    return
            del message  # it may hold 64 MiB, and the next one may take long to arrive

    async def _throttle_replies(self) -> None:
        """Stop reading from a client that does not read its replies, once `max_in_flight` of them are queued."""
        self._unread_replies = self._unread_replies + 1 if self._socket.is_full else 0
        if self._unread_replies > self._server.max_in_flight:
            await self._socket.drain()

    async def _handle_message(self, data: bytes, reservation: MemoryReservation) -> None:
        """Handle one message; never raises for its content. `reservation` holds what is already counted of it."""
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
        if runner := self._events.get(event_id.key):
            runner.cancel(Cancelled("cancelled by the client"))

    def _create(self, create: Create, size: int, index: int, reservation: MemoryReservation) -> None:
        event_id = create.event_id or _generate_id()
        try:
            self._admit(event_id, reservation, size)
        except BridgeError as error:
            reservation.release_all()
            self._refuse(RejectedMessage(error, event_id, owned=True, defaults=create.settings), index)
            return
        create.warnings[:0] = self._options.warnings
        runner = self._runner(create, event_id, reservation, partial(self._on_event_end, event_id))
        self._events[event_id.key] = runner
        self._tasks.start(self._run(runner), f"event {event_id.key}")

    async def _run(self, runner: EventRunner) -> None:
        try:
            await runner.run()
        finally:
            self._writable.set()

    def _admit(self, event_id: EventId, reservation: MemoryReservation, size: int) -> None:
        if event_id.key in self._events:
            raise EventIdInUse(_ID_IN_USE)
        if self._close_reason is not None:
            raise self._close_reason.error(self._close_reason.message)
        if len(self._events) >= self._server.max_in_flight:
            raise TooManyEvents(f"{len(self._events)} events are in flight on this socket; wait for one to end")
        # The message is in memory already; a full budget only stops the reading of later ones.
        reservation.add(size - reservation.size, overdraw=True)

    def _refuse(self, refused: RejectedMessage, index: int) -> None:
        """Send an error: an owned one as its event's last frame, unless its id is in use; any other for the message."""
        event_id, error = refused.event_id, refused.error
        is_taken = event_id is not None and event_id.key in self._events
        if refused.owned and not is_taken:
            event_id = event_id or _generate_id()
            self._runner(refused.create, event_id, MemoryReservation(self._budget), lambda: None).refuse(error)
            return
        reported = EventIdInUse(_ID_IN_USE) if refused.owned else error
        self._socket.send([refusal(reported, index, event_id.raw if event_id else None)])

    def _runner(
        self, create: Create, event_id: EventId, reservation: MemoryReservation, on_last: Callable[[], None]
    ) -> EventRunner:
        writer = FrameWriter(event_id.raw, self._socket, compat=self._options.compat)
        return EventRunner(create, event_id.raw, self._options.context, self._runtime, writer, reservation, on_last)

    def _on_event_end(self, event_id: EventId) -> None:
        """Forget the event: its last frame is written."""
        del self._events[event_id.key]
        self._close_if_drained()

    def _cancel_all(self, error: BridgeError) -> None:
        for runner in list(self._events.values()):
            runner.cancel(error)

    def _close_if_drained(self) -> None:
        if self._close_reason is not None and not self._events:
            self._close(self._close_reason.code, self._close_reason.reason)

    def _close(self, code: WSCloseCode, reason: bytes) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._closing.start(self._socket.close(code, reason), "close")

    def _on_slow_client(self) -> None:
        self._cancel_all(SlowClient("the client read nothing for too long while frames were queued"))
        self._close(WSCloseCode.POLICY_VIOLATION, b"too slow")

    def _reserve_received(self, size: int) -> MemoryReservation:
        """Return the memory that is already counted for a message of `size` bytes, which is now complete."""
        reservation = MemoryReservation(self._budget)
        self._arrival.move(min(self._arrival.size, size), reservation)
        self._arrivals.end(self)
        self._count_rest(size)
        return reservation

    def _count_rest(self, consumed_bytes: int) -> None:
        """Count the received bytes that remain after a message of `consumed_bytes`."""
        self._arrival.release_all()
        if rest := self._socket.message_consumed(consumed_bytes):
            self._on_arrival(rest)
        else:
            self._arrivals.end(self)

    def _on_arrival(self, size: int) -> None:
        """Count `size` more bytes of a long message."""
        if not self._is_closing:
            self._arrivals.begin(self, self._refuse_arrival)
            self._arrivals.add(self, self._arrival, size)

    def _refuse_arrival(self, error: OutOfMemoryBudget) -> None:
        """Refuse a long message and close the socket, because the message has no event yet that could fail instead.

        Later input is read and dropped: the kernel resets a connection that is closed with unread input, and the client
        might not receive the close frame.
        """
        self._arrival.release_all()
        self._socket.discard()
        self._socket.send([refusal(error, self._messages, None)])
        if not self._is_closing:
            self._is_closing = True
            code, reason = WSCloseCode.TRY_AGAIN_LATER, b"out of memory"
            self._closing.start(self._socket.close_and_drain(code, reason, self._reading_ended), "close")

    def _on_disconnect(self) -> None:
        self._cancel_all(Cancelled("the socket was closed"))

    def _send_heartbeat(self) -> None:
        events = [(runner.event_id, runner.phase, str(runner.step)) for runner in self._events.values()]
        self._socket.send([heartbeat(events)])


def _generate_id() -> EventId:
    """Return an id for an event whose client sent none."""
    key = new_id()
    return EventId(key, orjson.dumps(key))
