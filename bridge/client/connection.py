"""One socket to a bridge: dispatches frames to the events in flight."""

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

MAX_BLOCKING_S: Final = 10.0
"""Longest time for which an event with a full queue may block other events that wait."""
CLOSE_S: Final = 2.0
"""Longest wait for the bridge's answer to a close frame."""

CLOSED_BY_CLIENT: Final = "this client closed the socket"
_LOST: Final = "the connection to the bridge was lost"
_INVALID_FRAME: Final = "the message received is not a frame of a bridge"


class ClientConnection:
    """Puts each frame into the queue of its event. `read` is its only task and ends with the socket."""

    def __init__(self, socket: "ClientWebSocketResponse[bool]", heartbeat_s: float | None) -> None:
        self._socket = socket
        self._events: dict[EventId, FrameQueue] = {}
        """Events in flight, including abandoned ones until their last frame arrives."""
        self._messages = count()
        self._tasks = Tasks()
        self._close_lock = asyncio.Lock()
        self._keep_alive = ClientKeepAlive(heartbeat_s, self._ping, self._on_silence)
        self._reason: str | None = None
        self.loss: ConnectionLost | None = None
        """The reason why the connection cannot send any more."""

    def register(self, queue: FrameQueue) -> None:
        """Register an event. Raises ConnectionLost, and ValueError if its ID is in use."""
        if self.loss is not None:
            raise ConnectionLost(str(self.loss), code=self.loss.code)
        if queue.id in self._events:
            raise ValueError(f"an event named {queue.id!r} is in flight on this socket")
        self._events[queue.id] = queue

    async def start(self, queue: FrameQueue, message: bytes) -> None:
        """Send the message that starts the event."""
        queue.message = next(self._messages)
        await self._send(self._socket.send_frame(message, WSMsgType.TEXT))

    def cancel(self, queue: FrameQueue) -> None:
        """Ask the bridge to stop the event, without waiting. It does nothing if the event is over."""
        if self._events.get(queue.id) is queue and self.loss is None:
            self._send_later(self._cancel(queue.id))

    async def read(self) -> None:
        """Read until the socket is lost, then fail every event with the reason."""
        self._keep_alive.start()
        code = None
        try:
            code = await self._read()
        except (ValueError, RecursionError):
            self._reason = _INVALID_FRAME
        finally:
            self._keep_alive.stop()
            self._end_events(code)

    async def close(self) -> None:
        """Send a close frame and wait for the answer, at most CLOSE_S. Every event ends. It is idempotent."""
        self._reason = self._reason or CLOSED_BY_CLIENT
        async with self._close_lock:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await self._socket.close()
            except TimeoutError:
                pass  # aiohttp has dropped the socket

    async def release(self) -> None:
        """Release the socket and its tasks after `read` has returned."""
        try:
            await self.close()
        finally:
            await self._tasks.cancel_all()

    async def _read(self) -> int | None:
        """Read until the socket closes and return the close code, if there is one."""
        while True:
            message = await self._socket.receive()
            self._keep_alive.received()
            match message.type:
                case WSMsgType.TEXT:
                    await self._deliver(Frame.of(message.data))
                case WSMsgType.PING:
                    self._send_later(self._socket.pong(message.data))
                case WSMsgType.PONG:
                    pass
                case WSMsgType.CLOSE:
                    reason = f": {message.data} {message.extra or ''}".rstrip() if message.data else ""
                    self._reason = self._reason or f"the bridge closed the socket{reason}"
                    return message.data or None
                case WSMsgType.CLOSED | WSMsgType.CLOSING:
                    return None
                case _:
                    raise ValueError(_INVALID_FRAME)

    async def _deliver(self, frame: Frame) -> None:
        queue = self._owner(frame)
        if queue is None:
            return  # a heartbeat
        if queue.is_full:
            await self._wait_for_room(queue)
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

    async def _wait_for_room(self, queue: FrameQueue) -> None:
        """Leave the socket unread until the queue has room. If others wait too long for it, its event is cancelled."""
        self._keep_alive.is_paused = True
        try:
            while queue.is_full:
                try:
                    async with asyncio.timeout(MAX_BLOCKING_S):
                        await queue.wait_for_room()
                except TimeoutError:
                    if any(other.has_waiter for other in self._events.values()):
                        self._cancel_blocking(queue)
        finally:
            self._keep_alive.is_paused = False

    def _cancel_blocking(self, queue: FrameQueue) -> None:
        message = f"other events waited for {MAX_BLOCKING_S:g} s behind its frames, which were not consumed"
        failure = Failure(SlowClient.code, message, SlowClient.source)
        queue.fail(EventFailed(failure, Metadata(event_id=queue.id, status=SlowClient.status, success=False)))
        self.cancel(queue)

    def _end_events(self, code: int | None) -> None:
        names = tuple(queue.id for queue in self._events.values() if not queue.is_abandoned)
        self.loss = ConnectionLost(self._reason or _LOST, code=code, events=names)
        for queue in self._events.values():
            queue.fail(self.loss)
            queue.on_over()

    async def _cancel(self, event_id: EventId) -> None:
        next(self._messages)
        await self._socket.send_frame(steps.cancel(event_id), WSMsgType.TEXT)

    def _ping(self) -> None:
        self._send_later(self._socket.ping())

    def _on_silence(self, silent_s: float) -> None:
        self._reason = f"the bridge was silent for {silent_s:.0f} s"
        self._tasks.start(self._close_socket(), "end of a silent socket")

    async def _close_socket(self) -> None:
        await self._socket.close()  # cancelled when the reader ends

    def _send_later(self, sending: Coroutine[Any, Any, None]) -> None:
        """Send without blocking the reader: a bridge that waits for its data to be read may not read either."""
        self._tasks.start(self._send(sending), "a small message to the bridge")

    async def _send(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            await sending
        except ConnectionError:
            return  # the reader notices it too and fails every event
