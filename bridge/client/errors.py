"""What a client's call may raise of its own. All of it can be pickled and copied."""

from typing import Any

from bridge.client.frames import EventId, Failure, Metadata
from bridge.errors import Source

_MAY_PASS = {408, 425, 429}


class CallFailed(Exception):
    """Whatever went wrong between this client and the answer that was wanted."""


class CannotConnect(CallFailed):
    """There is no bridge, or it does not let us in. The message says why, and holds no secret."""

    def __init__(self, message: str, *, status: int | None = None, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """Of the HTTP answer in place of the upgrade; None when there was none."""
        self.code = code
        """The bridge's own, such as 2009 for a token that is none of the gateway's."""

    @property
    def is_final(self) -> bool:
        """Whether asking again would bring the same answer."""
        return self.status is not None and 300 <= self.status < 500 and self.status not in _MAY_PASS


class ConnectionLost(CallFailed):
    """The socket closed before the last frame of an event. The message says what is known of the reason.

    What was asked for may have been done, and paid for: nothing is sent again without being asked to.
    """

    def __init__(self, message: str, *, code: int | None = None, events: tuple[EventId, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        """Of the bridge's close frame (RFC 6455, section 7.4); None when none came."""
        self.events = events
        """Those that were in flight on the socket."""


class EventFailed(CallFailed):
    """The event's last frame says that it failed: the provider's error, the bridge's, or a fault of the request."""

    def __init__(self, failure: Failure, metadata: Metadata, response: Any = None) -> None:
        super().__init__(failure, metadata, response)
        self.failure = failure
        self.metadata = metadata
        self.response = response
        """The provider's error body, or the bridge's own; None when the answer broke after it had begun."""

    def __str__(self) -> str:
        return f"{self.code}: {self.failure.message}"

    @property
    def code(self) -> int:
        return self.failure.code

    @property
    def status(self) -> int | None:
        """The HTTP status of the provider's answer, or of the bridge's error.

        Of an answer that broke later it is 200; of an error inside a 2xx answer, the one that this stands for.
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
