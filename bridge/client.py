"""A small client: one socket to a bridge, and any number of events on it.

    async with connect("ws://127.0.0.1:8787/v1/local/default") as bridge:
        async with bridge.create({"provider": "openai", "endpoint": "chat/completions", "query": …}) as event:
            async for frame in event:
                …

One task reads the socket and hands each frame to its event, where it waits in a line of bounded length. Past that bound
the socket is not read, which the bridge feels, and then the provider. So an event whose frames nobody takes holds up
the others, until it is left.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Final, Self

import orjson
from aiohttp import ClientWebSocketResponse, WSMsgType

from bridge.client_handshake import CannotConnect, opened
from bridge.tasks import Tasks
from bridge.wire.parsing import parse

__all__ = ["Bridge", "CannotConnect", "ConnectionLost", "Event", "Frame", "Request", "Step", "connect"]

Step = Mapping[str, object]
Request = Step | Sequence[Step]
"""A step, a list of them, or an object with `steps` (PROTOCOL.md, A "Request"). An `orjson.Fragment` goes out as it
is."""

WAITING_FRAMES: Final = 256
_FOREIGN: Final = "what came is no frame of a bridge"
_LEFT: Final = "this client closed the socket"


class ConnectionLost(Exception):
    """The socket closed before the event's last frame. The message says what is known of the reason."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the bridge."""

    raw: bytes
    """As it came: JSON in UTF-8."""
    value: dict[str, Any]

    @classmethod
    def of(cls, raw: bytes) -> "Frame":
        """Raises ValueError when it is no frame of a bridge."""
        value = parse(raw)
        if not isinstance(value, dict) or not all(
            isinstance(value.get(part, {}), dict) for part in ("metadata", "error")
        ):
            raise ValueError(_FOREIGN)
        return cls(raw, value)

    @property
    def type(self) -> str:
        """Without `universal.`: created, stream, done, error, heartbeat."""
        return str(self.value.get("type")).removeprefix("universal.")

    @property
    def metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = self.value.get("metadata", {})
        return metadata

    @property
    def response(self) -> object:
        return self.value.get("response")

    @property
    def error(self) -> dict[str, Any] | None:
        """Why the event failed, in the last frame of one that did."""
        return self.value.get("error")

    @property
    def is_last(self) -> bool:
        return self.type in {"done", "error"} or (self.type == "created" and "response" in self.value)


class Event:
    """One event: entered, it is sent; iterated, it gives its frames up to the last; left before that, it is cancelled.

    For one task. Iterating raises ConnectionLost when the last frame can no longer come.
    """

    def __init__(self, bridge: "Bridge", event_id: str | int, request: Request) -> None:
        self.id = event_id
        self.message: int | None = None
        """Its place among the messages of its socket, once sent: a refusal may name nothing else."""
        self._bridge = bridge
        self._request = request
        self._frames: deque[Frame] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._lost: str | None = None
        self._over = False
        self._left = False

    async def __aenter__(self) -> Self:
        """Raises ValueError when an event of that name is in flight on the socket."""
        self._bridge._take_in(self)
        try:
            await self._bridge._say({"type": "universal.create", "eventId": self.id, "request": self._request})
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        while not self._frames:
            if self._over:
                raise StopAsyncIteration
            if self._lost is not None:
                raise ConnectionLost(self._lost)
            self._arrived.clear()
            await self._arrived.wait()
        self._room.set()
        return self._frames.popleft()

    async def cancel(self) -> None:
        """Ask the bridge to stop; the last frame then says 9020. Does nothing to an event that is over."""
        if not self._over and self._lost is None:
            await self._bridge._say({"type": "universal.cancel", "eventId": self.id})

    async def _leave(self) -> None:
        self._left = True
        self._frames.clear()
        self._room.set()
        await self.cancel()

    async def _put(self, frame: Frame) -> None:
        """Returns once there is room for it; what comes for an event that was left is dropped."""
        while len(self._frames) >= WAITING_FRAMES and not self._left:
            self._room.clear()
            await self._room.wait()
        if not self._left:
            self._frames.append(frame)
        self._over = frame.is_last
        self._arrived.set()

    def _lose(self, why: str) -> None:
        """Nothing more comes; the frames in line can still be taken."""
        self._lost = why
        self._arrived.set()


class Bridge:
    """One socket to a bridge. Made by `connect`, which closes it too."""

    def __init__(self, socket: "ClientWebSocketResponse[bool]") -> None:
        self._socket = socket
        self._events: dict[str | int, Event] = {}
        """In flight: those that were left too, until their last frame comes."""
        self._names = count(1)
        self._messages = count()
        self._lost: str | None = None

    def create(self, request: Request, event_id: str | int | None = None) -> Event:
        """An event to be entered. Its name is `event_id`, else the request's own `eventId`, else one made up."""
        if event_id is None and isinstance(request, Mapping):
            event_id = request.get("eventId")  # type: ignore[assignment]  # of another type, the bridge refuses it
        return Event(self, f"event-{next(self._names)}" if event_id is None else event_id, request)

    def _take_in(self, event: Event) -> None:
        if self._lost is not None:
            raise ConnectionLost(self._lost)
        if event.id in self._events:
            raise ValueError(f"an event named {event.id!r} is in flight on this socket")
        self._events[event.id] = event
        event.message = next(self._messages)

    async def _say(self, message: Step) -> None:
        try:
            await self._socket.send_str(orjson.dumps(message).decode())
        except ConnectionError:
            return  # the reader finds out too, and tells every event why

    async def _read(self) -> None:
        """Until the socket closes."""
        lost = _LEFT
        try:
            while (message := await self._socket.receive()).type is WSMsgType.TEXT:
                await self._deliver(Frame.of(message.data))
            lost = _why_lost(message.type, message.data, message.extra)
        except (ValueError, RecursionError):
            lost = _FOREIGN
        finally:
            self._lose(lost)

    def _lose(self, why: str) -> None:
        """Nothing comes any more: every event is told so."""
        if self._lost is None:
            self._lost = why
            for event in self._events.values():
                event._lose(why)

    async def _deliver(self, frame: Frame) -> None:
        event = self._owner(frame)
        if event is None:
            return  # a heartbeat
        await event._put(frame)
        if frame.is_last:
            del self._events[event.id]

    def _owner(self, frame: Frame) -> Event | None:
        error = frame.error or {}
        event_id = frame.metadata.get("eventId", error.get("eventId"))
        if isinstance(event_id, str | int):
            return self._events.get(event_id)
        messages = {event.message: event for event in self._events.values()}
        return messages.get(error.get("messageIndex"))


@asynccontextmanager
async def connect(url: str, token: str | None = None) -> AsyncIterator[Bridge]:
    """A socket to the bridge at `url` (`ws://HOST:PORT/v1/ACCOUNT/GATEWAY`). Raises CannotConnect."""
    reader = Tasks()
    async with opened(url, token) as socket:
        bridge = Bridge(socket)
        reader.start(bridge._read(), "reader of a bridge's frames")
        try:
            yield bridge
        finally:
            await reader.end_all()
            bridge._lose(_LEFT)  # a reader that was cancelled before it began could not say so


def _why_lost(kind: WSMsgType, code: object, reason: object) -> str:
    match kind:
        case WSMsgType.CLOSE:
            return f"the bridge closed the socket: {code} {reason or ''}".rstrip()
        case WSMsgType.ERROR | WSMsgType.BINARY:
            return _FOREIGN
        case _:
            return "the connection to the bridge was lost"
