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
    EventIdInFlight,
    OutOfMemoryBudget,
    SlowClient,
    TooManyInFlight,
)
from bridge.relay.arrivals import Arrivals
from bridge.relay.budget import Budget, Hold
from bridge.relay.event import Shared
from bridge.relay.event_relay import OFF_LOOP_BYTES, EventRelay, new_id
from bridge.relay.plan import Ground
from bridge.relay.voice import FrameVoice
from bridge.settings.server import ServerSettings
from bridge.settings.step import StepSettings
from bridge.tasks import Tasks
from bridge.watch import Watch, times_of
from bridge.websocket import ClientSocket
from bridge.wire.frames import heartbeat, refusal
from bridge.wire.messages import Cancel, Create, EventId, Limits, Refused, parse

MESSAGES_PER_TURN: Final = 64
"""How many messages that have come already one socket takes before its neighbours have a turn."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed on at the handshake."""

    ground: Ground
    settings: StepSettings
    """The gateway's, with those of the handshake laid over them."""
    compat: bool
    heartbeat_s: float | None
    warnings: tuple[str, ...] = ()
    """Of settings that were clamped; every event hears of them."""


@dataclass(frozen=True, slots=True)
class Farewell:
    """Why a socket takes no more events, and closes when it has none."""

    code: WSCloseCode
    reason: bytes
    error: type[BridgeError]
    message: str
    """What a new event is told."""


_SHUTDOWN: Final = Farewell(
    WSCloseCode.GOING_AWAY, b"the bridge is shutting down", Draining, "the bridge is shutting down; connect anew"
)
_REVOKED: Final = b"the gateway or its token is gone"


class Session:
    """Runs one socket from handshake to close; owns its events."""

    def __init__(
        self,
        response: "web.WebSocketResponse[bool]",
        socket: ClientSocket,
        terms: Terms,
        server: ServerSettings,
        shared: Shared,
        memory: Budget,
        arrivals: Arrivals,
    ) -> None:
        self._response = response
        self._socket = socket
        self._terms = terms
        self._server = server
        self._shared = shared
        self._limits = limits_of(server)
        self._budget = Budget(server.max_buffered_bytes, "this socket", memory)
        self._arrivals = arrivals
        self._arrival = Hold(self._budget)
        """Of a long message that is not whole yet."""
        self._room = asyncio.Event()
        self._reading_ended = asyncio.Event()
        self._events: dict[str | int, EventRelay] = {}
        self._tasks, self._closing = Tasks(), Tasks()
        self._messages = self._unread_answers = 0
        self._farewell: Farewell | None = None
        self._is_closing = False
        self._watch = Watch(socket, times_of(server, terms.heartbeat_s), self._beat, self._on_slow_client)
        socket.on_gone, socket.on_arrival = self._on_gone, self._on_arrival

    async def run(self) -> None:
        """Reads until the client leaves or is sent away. Then its events end, and nothing is left open."""
        self._watch.start()
        try:
            await self._read()
        finally:
            self._watch.stop()
            self._reading_ended.set()
            self._on_gone()
            await self._closing.wait_all()
            await self._socket.let_go()
            await self._tasks.wait_all()
            self._arrivals.end(self)
            self._arrival.drop()

    def drain(self) -> None:
        """No new events; close as soon as there are none. May be called again."""
        self._farewell = self._farewell or _SHUTDOWN
        self._close_if_drained()

    def end_events(self) -> None:
        """The deadline of a drain has come."""
        self._cancel_all(Draining("the bridge is shutting down"))

    def recheck(self) -> None:
        """Leave once the events are cancelled, if the token or the gateway is gone."""
        try:
            self._terms.ground.live()
        except ClientError as error:
            self._farewell = Farewell(WSCloseCode.POLICY_VIOLATION, _REVOKED, type(error), str(error))
            self._cancel_all(error)
            self._close_if_drained()

    async def _read(self) -> None:
        for received in count(1):
            while self._budget.is_full:
                self._room.clear()
                await self._room.wait()
            if not received % MESSAGES_PER_TURN:
                await asyncio.sleep(0)
            if self._is_closing:
                return
            message = await self._response.receive()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    await self._take(message.data, self._arrived(len(message.data)))
                case WSMsgType.PING:
                    self._count_rest(len(message.data))
                    await self._may_answer()
                    self._socket.control(WSMsgType.PONG, message.data)
                case WSMsgType.PONG:
                    self._count_rest(len(message.data))
                case _:
                    return
            del message  # 64 MiB, it may be, and the next one may be long in coming

    async def _may_answer(self) -> None:
        """A client that takes no answers may ask for some more of them, but not for any number."""
        self._unread_answers = self._unread_answers + 1 if self._socket.is_full else 0
        if self._unread_answers > self._server.max_in_flight:
            await self._socket.drained()

    async def _take(self, data: bytes, hold: Hold) -> None:
        """One message, of which `hold` counts what has been counted. Never raises for what it holds."""
        index, self._messages = self._messages, self._messages + 1
        try:
            message = await self._parsed(data)
            if not isinstance(message, Cancel):
                await self._may_answer()
            match message:
                case Create():
                    self._create(message, len(data), index, hold)
                    return
                case Cancel():
                    self._cancel(message.event_id)
                case Refused():
                    self._refuse(message, index)
                case _:
                    assert_never(message)
        except BaseException:
            hold.drop()
            raise
        hold.drop()

    async def _parsed(self, data: bytes) -> Create | Cancel | Refused:
        if len(data) < OFF_LOOP_BYTES:
            return parse(data, self._terms.settings, self._limits)
        async with self._arrivals.reading:
            return await asyncio.to_thread(parse, data, self._terms.settings, self._limits)

    def _cancel(self, event_id: EventId) -> None:
        if relay := self._events.get(event_id.key):
            relay.cancel(Cancelled("cancelled by the client"))

    def _create(self, create: Create, size: int, index: int, hold: Hold) -> None:
        event_id = create.event_id or _made_up()
        try:
            self._admit(event_id, hold, size)
        except BridgeError as error:
            hold.drop()
            self._refuse(Refused(error, event_id, owned=True, defaults=create.settings), index)
            return
        create.warnings[:0] = self._terms.warnings
        relay = self._relay(create, event_id, hold, partial(self._ended, event_id))
        self._events[event_id.key] = relay
        self._tasks.start(self._run(relay), f"event {event_id.key}")

    async def _run(self, relay: EventRelay) -> None:
        try:
            await relay.run()
        finally:
            self._room.set()

    def _admit(self, event_id: EventId, hold: Hold, size: int) -> None:
        if event_id.key in self._events:
            raise _in_flight()
        if self._farewell is not None:
            raise self._farewell.error(self._farewell.message)
        if len(self._events) >= self._server.max_in_flight:
            raise TooManyInFlight(f"{len(self._events)} events are in flight on this socket; wait for one to end")
        hold.add(size - hold.size, overdraw=True)  # it is here already; what would come after it is not read

    def _refuse(self, refused: Refused, index: int) -> None:
        """An owned fault is its event's last frame, unless that name is taken; any other belongs to the message."""
        event_id, error = refused.event_id, refused.error
        is_taken = event_id is not None and event_id.key in self._events
        if refused.owned and not is_taken:
            event_id = event_id or _made_up()
            self._relay(refused.create, event_id, Hold(self._budget), lambda: None).refuse(error)
            return
        told = _in_flight() if refused.owned else error
        self._socket.send([refusal(told, index, event_id.raw if event_id else None)])

    def _relay(self, create: Create, event_id: EventId, hold: Hold, on_last: Callable[[], None]) -> EventRelay:
        voice = FrameVoice(event_id.raw, self._socket, compat=self._terms.compat)
        return EventRelay(create, event_id.raw, self._terms.ground, self._shared, voice, hold, on_last)

    def _ended(self, event_id: EventId) -> None:
        """Its last frame is out."""
        del self._events[event_id.key]
        self._close_if_drained()

    def _cancel_all(self, error: BridgeError) -> None:
        for relay in list(self._events.values()):
            relay.cancel(error)

    def _close_if_drained(self) -> None:
        if self._farewell is not None and not self._events:
            self._close(self._farewell.code, self._farewell.reason)

    def _close(self, code: WSCloseCode, reason: bytes) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._closing.start(self._socket.close(code, reason), "close")

    def _on_slow_client(self) -> None:
        self._cancel_all(SlowClient("the client took nothing for too long while frames waited"))
        self._close(WSCloseCode.POLICY_VIOLATION, b"too slow")

    def _arrived(self, size: int) -> Hold:
        """A message of so many bytes is whole: what of it has been counted already."""
        hold = Hold(self._budget)
        self._arrival.move(min(self._arrival.size, size), hold)
        self._arrivals.end(self)
        self._count_rest(size)
        return hold

    def _count_rest(self, taken_bytes: int) -> None:
        """Of what has come, so many bytes were taken."""
        self._arrival.drop()
        if rest := self._socket.took(taken_bytes):
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
        self._arrival.drop()
        self._socket.discard()
        self._socket.send([refusal(error, self._messages, None)])
        if not self._is_closing:
            self._is_closing = True
            code, reason = WSCloseCode.TRY_AGAIN_LATER, b"out of memory"
            goodbye = self._socket.close_and_listen(code, reason, self._reading_ended)
            self._closing.start(goodbye, "close")

    def _on_gone(self) -> None:
        self._cancel_all(Cancelled("the socket was closed"))

    def _beat(self) -> None:
        beats = [(relay.event_id, relay.phase, str(relay.step)) for relay in self._events.values()]
        self._socket.send([heartbeat(beats)])


def limits_of(server: ServerSettings) -> Limits:
    return Limits(
        max_message_bytes=server.max_message_bytes,
        max_steps=server.max_steps,
        max_headers=server.max_headers,
        max_header_bytes=server.max_header_bytes,
        max_json_depth=server.max_json_depth,
    )


def _made_up() -> EventId:
    """The name of an event whose client gave none."""
    key = new_id()
    return EventId(key, orjson.dumps(key))


def _in_flight() -> EventIdInFlight:
    return EventIdInFlight("an event with this eventId is in flight; its id may be used again after its last frame")
