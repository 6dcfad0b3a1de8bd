"""A receiver that checks the contract of deliveries, and bodies that the test feeds."""

from collections import deque
from collections.abc import Callable

import httpx

from bridge.upstream.answer import UpstreamResponse
from bridge.upstream.body import BodyReceiver, Delivery, PushedBody


class Collector:
    """Receives `body` and keeps it. Fails the test on a call while the body is paused, after its end or once closed."""

    def __init__(self, body: Delivery, on_data: Callable[["Collector"], None] | None = None) -> None:
        """`on_data` is called with the collector from inside `data`."""
        self._body = body
        self._on_data = on_data
        self._may_be_called = True
        self.reads: list[bytes] = []
        self.error: Exception | None = None
        self.is_ended = False

    @property
    def text(self) -> bytes:
        return b"".join(self.reads)

    @property
    def outcome(self) -> tuple[bytes, bool, str | None]:
        """The bytes, whether the body ended properly, and the message of its failure."""
        return self.text, self.is_ended, None if self.error is None else str(self.error)

    def start(self) -> "Collector":
        self._body.deliver(self)
        return self

    def pause(self) -> None:
        self._may_be_called = False
        self._body.pause()

    def resume(self) -> None:
        self._may_be_called = True
        self._body.resume()

    def pause_and_resume(self) -> None:
        self.pause()
        self.resume()

    async def aclose(self) -> None:
        self._may_be_called = False
        await self._body.aclose()

    def data(self, data: bytes) -> None:
        self._check()
        assert data
        self.reads.append(data)
        if self._on_data is not None:
            self._on_data(self)

    def end(self) -> None:
        self._check()
        self.is_ended = True

    def failed(self, error: Exception) -> None:
        self._check()
        self.error = error

    def _check(self) -> None:
        assert self._may_be_called, "called while paused, or once closed"
        assert not self.is_ended, "called after the end"
        assert self.error is None, "called after a failure"


class Fed(Delivery):
    """A body that arrives when the test says so. What arrives while it is paused is kept."""

    def __init__(self) -> None:
        self.is_paused = self.is_closed = False
        self.receiver: BodyReceiver | None = None
        self._arrived: deque[bytes | Exception | None] = deque()
        self._is_delivering = self._is_over = False

    @property
    def is_flowing(self) -> bool:
        """True if the provider's connection is being read."""
        return self.receiver is not None and not self.is_paused and not self.is_closed

    @property
    def ended(self) -> bool:
        return self._is_over or list(self._arrived) == [None]

    def arrive(self, *reads: bytes) -> None:
        self._arrived += reads
        self._deliver()

    def finish(self) -> None:
        self._arrived.append(None)
        self._deliver()

    def cut(self, error: Exception | None = None) -> None:
        self._arrived.append(error or httpx.ReadError("cut"))
        self._deliver()

    def deliver(self, receiver: BodyReceiver) -> None:
        self.receiver = receiver
        self._deliver()

    def pause(self) -> None:
        assert not self._is_over, "paused after its end"
        self.is_paused = True

    def resume(self) -> None:
        assert not self._is_over, "resumed after its end"
        self.is_paused = False
        self._deliver()

    async def aclose(self) -> None:
        self.is_closed, self.receiver = True, None

    def _deliver(self) -> None:
        if self._is_delivering:
            return
        self._is_delivering = True
        while self._arrived and self.is_flowing and self.receiver is not None:
            self._tell(self.receiver, self._arrived.popleft())
        self._is_delivering = False

    def _tell(self, receiver: BodyReceiver, part: bytes | Exception | None) -> None:
        if isinstance(part, bytes):
            receiver.data(part)
            return
        self._is_over = True
        if part is None:
            receiver.end()
        else:
            receiver.failed(part)


class FedBody(Fed, PushedBody):
    """A body of an httpx response."""


class FedResponse(Fed, UpstreamResponse):
    """A provider's response."""

    def __init__(self, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__()
        self.status, self.headers = status, headers

    def mark_complete(self) -> None:
        """Do nothing: it is not cached."""
