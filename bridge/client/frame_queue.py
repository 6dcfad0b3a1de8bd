"""Where the frames of one event wait for whoever takes them."""

import asyncio
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import Final

from bridge.client.errors import CallFailed
from bridge.client.frames import EventId, Frame

MAX_WAITING_BYTES: Final = 4 << 20
"""Past it an event is full: more than a model says in an hour, less than a socket's worth of memory."""


class FrameQueue:
    """Filled by the socket's reader, emptied by one task. What ends it early is raised behind the frames in line."""

    def __init__(self, event_id: EventId) -> None:
        self.id = event_id
        self.message: int | None = None
        """Its place among the messages of its socket, once sent: a refusal may name nothing else."""
        self.on_over: Callable[[], None] = _nothing
        """Called when it is in flight no more."""
        self._frames: deque[Frame] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._error: CallFailed | None = None
        self.is_over = False
        """The last frame has come."""
        self.is_left = False
        """Nobody takes from it any more."""
        self.is_hungry = False
        """Somebody waits for a frame this moment."""

    async def take(self) -> Frame | None:
        """The next frame; None after the last one. Raises what ended the event before that."""
        while not self._frames:
            if self._error is not None:
                raise copy(self._error)  # several tasks may hold the same: each gets a traceback of its own
            if self.is_over:
                return None
            await self._arrival()
        frame = self._frames.popleft()
        self._waiting_bytes -= len(frame.raw)
        if self._waiting_bytes <= MAX_WAITING_BYTES // 2:
            self._room.set()
        return frame

    async def _arrival(self) -> None:
        self._arrived.clear()
        self.is_hungry = True
        try:
            await self._arrived.wait()
        finally:
            self.is_hungry = False

    def put(self, frame: Frame) -> None:
        """Dropped when nobody is there to take it."""
        if not self.is_left and self._error is None:
            self._frames.append(frame)
            self._waiting_bytes += len(frame.raw)
            if self._waiting_bytes >= MAX_WAITING_BYTES:
                self._room.clear()
        self.is_over = frame.is_last
        self._arrived.set()

    @property
    def is_full(self) -> bool:
        """Until half of what waits is taken: else a taker that is never in time would hold up all others for good."""
        return not self._room.is_set()

    async def emptied(self) -> None:
        """Until it is not full."""
        await self._room.wait()

    def fail(self, error: CallFailed) -> None:
        """No more frames are taken in; those in line still come first."""
        if self._error is None:
            self._error = error
        self._room.set()
        self._arrived.set()

    def leave(self) -> None:
        self.is_left = True
        self._frames.clear()
        self._waiting_bytes = 0
        self._room.set()


def _nothing() -> None: ...
