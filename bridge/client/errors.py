"""Exceptions of the client. All of them can be pickled and copied."""

from typing import Any

from bridge.client.frames import EventId, Failure, Metadata
from bridge.errors import Source

_MAY_PASS = {408, 425, 429}


class CallFailed(Exception):
    """Base class of all failures of a call."""


class CannotConnect(CallFailed):
    """The bridge cannot be reached or refuses the handshake. The message says why and contains no secret."""

    def __init__(self, message: str, *, status: int | None = None, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status that replaced the upgrade; None without an HTTP answer."""
        self.code = code
        """Error code of the bridge, such as 2009 for a token that the gateway does not accept."""

    @property
    def is_final(self) -> bool:
        """Return true if another attempt would get the same answer."""
        return self.status is not None and 300 <= self.status < 500 and self.status not in _MAY_PASS


class ConnectionLost(CallFailed):
    """The socket closed before the last frame of an event. The message gives the reason if it is known.

    The provider may have processed and charged the request, so the client never sends it again by itself.
    """

    def __init__(self, message: str, *, code: int | None = None, events: tuple[EventId, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        """Code of the bridge's close frame (RFC 6455, section 7.4); None without one."""
        self.events = events
        """IDs of the events that were in flight on the socket."""


class EventFailed(CallFailed):
    """The last frame of the event reports an error: of the provider, of the bridge, or of the request."""

    def __init__(self, failure: Failure, metadata: Metadata, response: Any = None) -> None:
        super().__init__(failure, metadata, response)
        self.failure = failure
        self.metadata = metadata
        self.response = response
        """Error body of the provider or of the bridge; None if the answer broke after it had started."""

    def __str__(self) -> str:
        return f"{self.code}: {self.failure.message}"

    @property
    def code(self) -> int:
        return self.failure.code

    @property
    def status(self) -> int | None:
        """HTTP status of the provider's answer, or of the bridge's error.

        It is 200 for an answer that broke later. For an error inside a 2xx answer it is the status of that error.
        """
        return self.metadata.status

    @property
    def source(self) -> Source:
        return self.failure.source

    @property
    def retryable(self) -> bool:
        return self.failure.retryable

    @property
    def retry_after_ms(self) -> int | None:
        return self.failure.retry_after_ms
