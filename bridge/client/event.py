"""One event, frame by frame: the base of everything else that a client offers."""

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
    """Opened, it is sent; iterated, it gives its frames up to the last; left before that, it is cancelled.

    For one task. An event that failed is no exception here: its last frame has the `error`. Iterating raises
    ConnectionLost when the last frame can no longer come, and EventFailed when others could not wait for this one.
    """

    def __init__(self, line: Reconnector, event_id: EventId, request: steps.Request) -> None:
        """Raises TypeError for what JSON cannot hold."""
        self._line = line
        self._queue = FrameQueue(event_id)
        self._message = steps.create(event_id, request)
        self._connection: ClientConnection | None = None

    @property
    def id(self) -> EventId:
        return self._queue.id

    async def open(self) -> Self:
        """Waits for a connection with room. Raises CannotConnect, ConnectionLost, and ValueError when an event of that
        name is in flight."""
        if self._connection is not None or self._queue.is_left:
            raise RuntimeError("an event is opened once")
        self._loop = asyncio.get_running_loop()
        self._connection = await self._line.acquire(self._queue)
        try:
            await self._connection.begin(self._queue, self._message)
        except BaseException:
            self.close()
            raise
        self._message = b""
        forgotten = weakref.finalize(self, _forgotten, forks(), self._loop, self._connection, self._queue)
        forgotten.atexit = False
        return self

    def close(self) -> None:
        """Nobody wants its frames any more; if it is not over, it is cancelled. Waits for nothing."""
        self._queue.leave()
        self.cancel()

    def cancel(self) -> None:
        """Ask the bridge to stop; the last frame then says 9020. Does nothing to an event that is over."""
        if self._connection is not None and not self._queue.is_over:
            self._connection.cancel(self._queue)

    async def take(self) -> Frame | None:
        """The next frame, None after the last."""
        if self._connection is None:
            raise RuntimeError("not open: enter it by `with` or `async with`")
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


def _forgotten(
    forks_then: int, loop: asyncio.AbstractEventLoop, connection: ClientConnection, queue: FrameQueue
) -> None:
    """Cancels an event that was neither closed nor read to its end. Runs in the thread that collects garbage.

    In the child of a fork it does nothing: the event belongs to the parent.
    """
    if not (queue.is_over or queue.is_left) and forks() == forks_then:
        with suppress(RuntimeError):  # the loop is closed, and the connection with it
            loop.call_soon_threadsafe(_leave, connection, queue)


def _leave(connection: ClientConnection, queue: FrameQueue) -> None:
    queue.leave()
    connection.cancel(queue)
