"""One socket to a bridge, and the events in flight on it."""

import asyncio
from collections.abc import Coroutine
from itertools import count
from typing import Any, Final

from aiohttp import ClientWebSocketResponse, WSMsgType

from bridge.client import steps
from bridge.client.errors import ConnectionLost, EventFailed
from bridge.client.frame_queue import FrameQueue
from bridge.client.frames import EventId, Failure, Frame, Metadata
from bridge.client.keepalive import ClientKeepAlive
from bridge.errors import SlowClient
from bridge.tasks import Tasks

PATIENCE_S: Final = 10.0
"""How long one event that nobody takes from may hold up others that wait."""
CLOSE_S: Final = 2.0
"""How long the bridge may take to answer a close frame."""

LEFT: Final = "this client closed the socket"
_LOST: Final = "the connection to the bridge was lost"
_FOREIGN: Final = "what came is no frame of a bridge"


class ClientConnection:
    """Hands each frame to its event. `read` is its one task, and ends when the socket does."""

    def __init__(self, socket: "ClientWebSocketResponse[bool]", heartbeat_s: float | None) -> None:
        self._socket = socket
        self._events: dict[EventId, FrameQueue] = {}
        """In flight: those that were left too, until their last frame comes."""
        self._messages = count()
        self._tasks = Tasks()
        self._goodbye = asyncio.Lock()
        self._watch = ClientKeepAlive(heartbeat_s, self._ping, self._on_silence)
        self._why: str | None = None
        self.loss: ConnectionLost | None = None
        """Why nothing can be sent any more."""

    def take_in(self, queue: FrameQueue) -> None:
        """An event whose frames will come. Raises ConnectionLost, and ValueError for a name that is in use."""
        if self.loss is not None:
            raise ConnectionLost(str(self.loss), code=self.loss.code)
        if queue.id in self._events:
            raise ValueError(f"an event named {queue.id!r} is in flight on this socket")
        self._events[queue.id] = queue

    async def begin(self, queue: FrameQueue, message: bytes) -> None:
        """Send the message that starts it."""
        queue.message = next(self._messages)
        await self._send(self._socket.send_frame(message, WSMsgType.TEXT))

    def cancel(self, queue: FrameQueue) -> None:
        """Ask the bridge to stop an event, without waiting; nothing happens to one that is over."""
        if self._events.get(queue.id) is queue and self.loss is None:
            self._say(self._cancel(queue.id))

    async def read(self) -> None:
        """Until the socket is lost; then every event is told why."""
        self._watch.start()
        code = None
        try:
            code = await self._read()
        except (ValueError, RecursionError):
            self._why = _FOREIGN
        finally:
            self._watch.stop()
            self._lose(code)

    async def close(self) -> None:
        """Say goodbye and wait for the answer, not for long. Every event ends. May be called again."""
        self._why = self._why or LEFT
        async with self._goodbye:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await self._socket.close()
            except TimeoutError:
                pass  # it was let go of

    async def let_go(self) -> None:
        """Behind `read`: nothing of the socket is left."""
        try:
            await self.close()
        finally:
            await self._tasks.cancel_all()

    async def _read(self) -> int | None:
        """The code with which the bridge closed the socket."""
        while True:
            message = await self._socket.receive()
            self._watch.received()
            match message.type:
                case WSMsgType.TEXT:
                    await self._deliver(Frame.of(message.data))
                case WSMsgType.PING:
                    self._say(self._socket.pong(message.data))
                case WSMsgType.PONG:
                    pass
                case WSMsgType.CLOSE:
                    reason = f": {message.data} {message.extra or ''}".rstrip() if message.data else ""
                    self._why = self._why or f"the bridge closed the socket{reason}"
                    return message.data or None
                case WSMsgType.CLOSED | WSMsgType.CLOSING:
                    return None
                case _:
                    raise ValueError(_FOREIGN)

    async def _deliver(self, frame: Frame) -> None:
        queue = self._owner(frame)
        if queue is None:
            return  # a heartbeat
        if queue.is_full:
            await self._hold_up(queue)
        if frame.is_last:
            del self._events[queue.id]
            queue.on_over()
        queue.put(frame)

    def _owner(self, frame: Frame) -> FrameQueue | None:
        event_id, error = frame.metadata.event_id, frame.error
        if event_id is not None:
            return self._events.get(event_id)
        if error is None or error.message_index is None:
            return None
        return next((queue for queue in self._events.values() if queue.message == error.message_index), None)

    async def _hold_up(self, queue: FrameQueue) -> None:
        """Leaves the socket unread, which the bridge feels and then the provider. But not while others go hungry."""
        self._watch.is_deaf = True
        try:
            while queue.is_full:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await queue.emptied()
                except TimeoutError:
                    if any(other.is_hungry for other in self._events.values()):
                        self._give_up(queue)
        finally:
            self._watch.is_deaf = False

    def _give_up(self, queue: FrameQueue) -> None:
        message = f"other events waited for {PATIENCE_S:g} s behind its frames, which nobody took"
        failure = Failure(SlowClient.code, message, SlowClient.source)
        queue.fail(EventFailed(failure, Metadata(event_id=queue.id, status=SlowClient.status, success=False)))
        self.cancel(queue)

    def _lose(self, code: int | None) -> None:
        names = tuple(inbox.id for inbox in self._events.values() if not inbox.is_left)
        self.loss = ConnectionLost(self._why or _LOST, code=code, events=names)
        for queue in self._events.values():
            queue.fail(self.loss)
            queue.on_over()

    async def _cancel(self, event_id: EventId) -> None:
        next(self._messages)
        await self._socket.send_frame(steps.cancel(event_id), WSMsgType.TEXT)

    def _ping(self) -> None:
        self._say(self._socket.ping())

    def _on_silence(self, silent_s: float) -> None:
        self._why = f"the bridge was silent for {silent_s:.0f} s"
        self._tasks.start(self._drop(), "end of a silent socket")

    async def _drop(self) -> None:
        await self._socket.close()  # cancelled once the reader has noticed

    def _say(self, sending: Coroutine[Any, Any, None]) -> None:
        """Not awaited by the reader: while the bridge waits to be read it may not read either."""
        self._tasks.start(self._send(sending), "a small message to the bridge")

    async def _send(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            await sending
        except ConnectionError:
            return  # the reader finds out too, and tells every event why
