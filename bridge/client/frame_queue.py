"""Queue of the frames of one event between the socket's reader and the consumer."""

import asyncio
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import Final

from bridge.client.errors import CallFailed
from bridge.client.frames import EventId, Frame

MAX_QUEUED_BYTES: Final = 4 << 20
"""Limit of a queue: more than a model writes in an hour, and little memory for one socket."""


class FrameQueue:
    """Is filled by the socket's reader and emptied by one task. An early end is raised after the queued frames."""

    def __init__(self, event_id: EventId) -> None:
        self.id = event_id
        self.message: int | None = None
        """Index of its message on the socket once sent: a refusal may contain nothing else to identify it."""
        self.on_over: Callable[[], None] = _nothing
        """Called when the event is no longer in flight."""
        self._frames: deque[Frame] = deque()
        self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._error: CallFailed | None = None
        self.is_over = False
        """The last frame has arrived."""
        self.is_abandoned = False
        """The consumer has closed the event."""
        self.has_waiter = False
        """A task waits for a frame now."""

    async def take(self) -> Frame | None:
        """Return the next frame; None after the last one. Raises the error that ended the event early."""
        while not self._frames:
            if self._error is not None:
                raise copy(self._error)  # several events share it: each gets its own traceback
            if self.is_over:
                return None
            await self._wait_for_frame()
        frame = self._frames.popleft()
        self._queued_bytes -= len(frame.raw)
        if self._queued_bytes <= MAX_QUEUED_BYTES // 2:
            self._room.set()
        return frame

    async def _wait_for_frame(self) -> None:
        self._arrived.clear()
        self.has_waiter = True
        try:
            await self._arrived.wait()
        finally:
            self.has_waiter = False

    def put(self, frame: Frame) -> None:
        """Queue the frame; drop it if the consumer has gone or the event has failed."""
        if not self.is_abandoned and self._error is None:
            self._frames.append(frame)
            self._queued_bytes += len(frame.raw)
            if self._queued_bytes >= MAX_QUEUED_BYTES:
                self._room.clear()
        self.is_over = frame.is_last
        self._arrived.set()

    @property
    def is_full(self) -> bool:
        """Return true from the limit down to half of it: otherwise a slow consumer would block all others for good."""
        return not self._room.is_set()

    async def wait_for_room(self) -> None:
        """Wait until the queue is not full."""
        await self._room.wait()

    def fail(self, error: CallFailed) -> None:
        """Accept no more frames. Queued frames are still returned before the error."""
        if self._error is None:
            self._error = error
        self._room.set()
        self._arrived.set()

    def abandon(self) -> None:
        self.is_abandoned = True
        self._frames.clear()
        self._queued_bytes = 0
        self._room.set()


def _nothing() -> None: ...
