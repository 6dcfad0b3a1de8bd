"""One event, read frame by frame. Streams and exchanges are built on it."""

import asyncio
import weakref
from contextlib import suppress
from types import TracebackType
from typing import Self

from bridge.client import steps
from bridge.client.connection import ClientConnection
from bridge.client.forks import forks
from bridge.client.frame_queue import FrameQueue
from bridge.client.frames import EventId, Frame
from bridge.client.reconnect import Reconnector


class Event:
    """Is sent when it is opened, yields its frames when iterated, and is cancelled when closed before the last one.

    Only one task may use it. A failed event raises nothing here: its last frame has the `error`. Iterating raises
    ConnectionLost if the last frame can no longer arrive, and EventFailed if the event blocked others for too long.
    """

    def __init__(self, line: Reconnector, event_id: EventId, request: steps.Request) -> None:
        """Raises TypeError for values that JSON cannot hold."""
        self._reconnector = line
        self._queue = FrameQueue(event_id)
        self._message = steps.create(event_id, request)
        self._connection: ClientConnection | None = None

    @property
    def id(self) -> EventId:
        return self._queue.id

    async def open(self) -> Self:
        """Wait for a connection with a free slot and send the event.

        Raises CannotConnect, ConnectionLost, and ValueError if an event with that ID is in flight.
        """
        if self._connection is not None or self._queue.is_abandoned:
            raise RuntimeError("an event can be opened only once")
        self._loop = asyncio.get_running_loop()
        self._connection = await self._reconnector.acquire(self._queue)
        try:
            await self._connection.start(self._queue, self._message)
        except BaseException:
            self.close()
            raise
        self._message = b""
        forgotten = weakref.finalize(self, _cancel_collected, forks(), self._loop, self._connection, self._queue)
        forgotten.atexit = False
        return self

    def close(self) -> None:
        """Drop the remaining frames and cancel the event unless it is over. It does not wait."""
        self._queue.abandon()
        self.cancel()

    def cancel(self) -> None:
        """Ask the bridge to stop the event; the last frame then has code 9020. It does nothing if the event is over."""
        if self._connection is not None and not self._queue.is_over:
            self._connection.cancel(self._queue)

    async def take(self) -> Frame | None:
        """Return the next frame, None after the last one."""
        if self._connection is None:
            raise RuntimeError("not open: enter it with `with` or `async with`")
        return await self._queue.take()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        frame = await self.take()
        if frame is None:
            raise StopAsyncIteration
        return frame


def _cancel_collected(
    forks_then: int, loop: asyncio.AbstractEventLoop, connection: ClientConnection, queue: FrameQueue
) -> None:
    """Cancel an event that was neither closed nor read to its end. It runs in the thread that collects garbage.

    It does nothing in the child of a fork, because the event belongs to the parent.
    """
    if not (queue.is_over or queue.is_abandoned) and forks() == forks_then:
        with suppress(RuntimeError):  # the loop is closed, and so is the connection
            loop.call_soon_threadsafe(_abandon, connection, queue)


def _abandon(connection: ClientConnection, queue: FrameQueue) -> None:
    queue.abandon()
    connection.cancel(queue)
