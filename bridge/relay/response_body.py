"""Receive one response body: collect it in one piece, or relay it as a stream once its first bytes show that it is one.

The source of the body calls `data`, `end` and `failed`, without a task switch per read. The event's task waits in
`receive`, and wakes only for what takes time: the end, a client that does not read, and a very long read.
"""

import asyncio
from collections.abc import Callable
from io import BytesIO

from bridge.errors import BrokenStream, ResetBeforeAnswer
from bridge.formats.decoders import Shape, sniff
from bridge.formats.long_item import LongBody
from bridge.relay.deadlines import Interrupt
from bridge.relay.memory import MemoryReservation
from bridge.relay.stream_relay import StreamRelay
from bridge.relay.wakeup import Wakeup
from bridge.upstream.answer import UpstreamResponse, break_of

StartStream = Callable[[Shape, bytes, Wakeup], StreamRelay]
"""Starts to relay a stream of this shape, of which these bytes have arrived."""


class ResponseBody:
    """The receiver of one response. Call `receive` once; then `stream` is set, or `body` is complete."""

    def __init__(
        self,
        answer: UpstreamResponse,
        path: str,
        reservation: MemoryReservation,
        interrupt: Interrupt,
        start_stream: StartStream,
        *,
        may_stream: bool,
        max_bytes: int | None,
    ) -> None:
        """Create a receiver. `path` is that of the request.

        `may_stream` is False for a response that cannot be a stream: an error, or one without a body. A body of more
        than `max_bytes` is streamed as bytes; None means no limit.
        """
        self.stream: StreamRelay | None = None
        """Set as soon as the body is relayed as a stream."""
        self.check = LongBody()
        """Check of a long body in one piece, which runs while the body arrives."""
        self._answer = answer
        self._path = path
        self._reservation = reservation
        self._interrupt = interrupt
        self._touch = interrupt.deadlines.touch
        self._start_stream = start_stream
        self._max_bytes = max_bytes
        self._is_announced_too_long = max_bytes is not None and answer.announced_bytes > max_bytes
        self._is_sniffing = may_stream
        self._head = b""
        self._body = BytesIO()  # `getvalue` does not copy
        self._is_over = False
        self._error: Exception | None = None
        self._wakeup = Wakeup()

    @property
    def body(self) -> bytes:
        """The complete body, which is counted in the event's memory reservation."""
        return self._body.getvalue()

    async def receive(self) -> None:
        """Wait until the body is over. Raises ResetBeforeAnswer, OutOfMemoryBudget, and a stream's timeout."""
        self._interrupt.on_interrupt = self._answer.pause
        try:
            self._answer.deliver(self)
            while not self._is_over and (self.stream is None or not self.stream.is_over):
                await self._wakeup.wait()
                if self.stream is not None:
                    await self.stream.catch_up()
        except asyncio.CancelledError:
            self._interrupted()
        finally:
            self._interrupt.reset_hooks()
            if self._error is not None or not (self._is_over or self.stream):
                self._reservation.release(self._body.tell())
        if self._error is not None:
            raise self._error

    def _interrupted(self) -> None:
        """Keep a body that is complete. Raise CancelledError again otherwise, for the caller to find the reason."""
        if self.stream is not None:
            self.stream.interrupt()
        elif self._is_over and self._error is None:
            self._interrupt.consume()
        else:
            raise asyncio.CancelledError

    # Called by the source of the body.

    def data(self, data: bytes) -> None:
        if self._is_over:
            return
        self._touch()
        try:
            if self._is_sniffing:
                self._sniff(data, ended=False)
            else:
                self._collect(data)
        except Exception as error:
            self._stop(error)

    def end(self) -> None:
        if self._is_over:
            return
        try:
            if self._is_sniffing:
                self._sniff(b"", ended=True)
        except Exception as error:
            self._error = error
        if self.stream is not None:
            self.stream.end()
        else:
            self._is_over = True
            self._wakeup.set()

    def failed(self, error: Exception) -> None:
        """Report a break before the client knows of the body: it counts as no answer."""
        error = break_of(error)
        self._stop(ResetBeforeAnswer(str(error)) if isinstance(error, BrokenStream) else error)

    def _stop(self, error: Exception) -> None:
        if not self._is_over:
            self._is_over, self._error = True, error
            self._wakeup.set()

    def _sniff(self, data: bytes, *, ended: bool) -> None:
        head = self._head = self._head + data
        shape = sniff(self._answer.content_type, self._path, head, ended=ended)
        if shape is None:
            return
        self._is_sniffing, self._head = False, b""
        if shape is not Shape.SINGLE:
            self._relay(shape, head)
        elif self._is_announced_too_long:
            self._relay(Shape.BYTES, head)
        elif head:
            self._collect(head)

    def _collect(self, data: bytes) -> None:
        self._reservation.add(len(data))
        self._body.write(data)
        self.check.feed(data)
        if self._max_bytes is not None and self._body.tell() > self._max_bytes:
            # Its bytes stay counted until the event ends: the client may take long to read them.
            head, self._body = self.body, BytesIO()
            self._relay(Shape.BYTES, head)

    def _relay(self, shape: Shape, head: bytes) -> None:
        self.stream = self._start_stream(shape, head, self._wakeup)
        self._answer.deliver(self.stream)
