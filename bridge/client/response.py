"""What a stream and an exchange have in common: an event whose first frame has come."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from bridge.client.errors import EventFailed
from bridge.client.event import Event
from bridge.client.frames import EventId, Failure, Frame, Metadata
from bridge.errors import InternalError


class ResponseReader(ABC):
    """Open, it knows who answers; closed before its end, it is cancelled. For one task."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._metadata = Metadata()

    @property
    def id(self) -> EventId:
        return self._event.id

    @property
    def metadata(self) -> Metadata:
        """The first frame's; after the end the last frame's, which tells all."""
        return self._metadata

    async def open(self) -> Self:
        """Returns when the answer begins. Raises CannotConnect, ConnectionLost and EventFailed."""
        await self._event.open()
        try:
            first = await self._next()
            assert first is not None, "an event has a frame, or an error"
            self._begin(first)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Nobody wants the rest; if it is not over, it is cancelled. Waits for nothing."""
        self._event.close()

    @abstractmethod
    def _begin(self, first: Frame) -> None:
        """The first frame has come."""

    async def _next(self) -> Frame | None:
        """The next frame, None after the last. Raises EventFailed where the last says so and has no response."""
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
    """What a last frame says, as an exception."""
    failure = frame.error or Failure(InternalError.code, "the bridge did not say why")
    return EventFailed(failure, frame.metadata, frame.content)
