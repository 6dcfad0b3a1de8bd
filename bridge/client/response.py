"""Base of streams and exchanges: an event whose first frame has arrived."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from bridge.client.errors import EventFailed
from bridge.client.event import Event
from bridge.client.frames import EventId, Failure, Frame, Metadata
from bridge.errors import InternalError


class ResponseReader(ABC):
    """Has the first frame's metadata once it is open, and is cancelled when closed early. Only one task may use it."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._metadata = Metadata()

    @property
    def id(self) -> EventId:
        return self._event.id

    @property
    def metadata(self) -> Metadata:
        """Return the metadata of the first frame; after the end that of the last frame, which is complete."""
        return self._metadata

    async def open(self) -> Self:
        """Send the event and return when the answer begins. Raises CannotConnect, ConnectionLost and EventFailed."""
        await self._event.open()
        try:
            first = await self._next()
            assert first is not None, "an event has a frame or raises an error"
            self._begin(first)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Drop the rest and cancel the event unless it is over. It does not wait."""
        self._event.close()

    @abstractmethod
    def _begin(self, first: Frame) -> None:
        """Process the first frame."""

    async def _next(self) -> Frame | None:
        """Return the next frame, None after the last. Raises EventFailed for an error frame without a response."""
        frame = await self._event.take()
        if frame is not None and frame.type != "stream":
            self._metadata = frame.metadata
            if frame.type == "error" or (frame.error is not None and not frame.has_response):
                raise failed(frame)
        return frame

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def failed(frame: Frame) -> EventFailed:
    """Return the error of a last frame as an exception."""
    failure = frame.error or Failure(InternalError.code, "the bridge gave no reason")
    return EventFailed(failure, frame.metadata, frame.content)
