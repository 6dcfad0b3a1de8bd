"""A connection to a provider: it sends one request at a time, and delivers the response as it arrives.

One read is one call chain: `data_received` → llhttp → `PushedAnswer` → receiver. Per response there is one future,
for the head.
"""

import asyncio
from typing import Final, Protocol, cast

import httpx

from bridge.upstream.answer_reader import AnswerReader
from bridge.upstream.body import READ_COST_BYTES, BodyReceiver, PushedBody
from bridge.upstream.dial import cause_of

HELD_BYTES: Final = 65_536
"""Bytes of a body that wait for a receiver before the connection stops reading; each read costs some more."""
WRITE_BYTES: Final = 65_536
"""Longer request bodies are written in slices of this size, so that the buffer for writing stays small."""
TURN_BYTES: Final = 65_536
"""After a read of this size other callbacks run before the next: libuv would repeat full reads up to 32 times."""
TURN_SLICES: Final = 16
"""Slices that are written in one iteration of the loop."""


class ConnectionOwner(Protocol):
    """Keeps connections between requests."""

    def release(self, connection: "Connection") -> None:
        """Take back a connection whose response is complete."""

    def forget(self, connection: "Connection") -> None:
        """Take note that the connection is closed."""


class PushedAnswer(PushedBody):
    """A response to one request. `status`, `headers` and the rest are valid once `opened` is done."""

    status = 0
    content_encoding = content_type = b""
    is_stale = False
    """True if the connection had been used before and was closed without any byte of a response."""

    def __init__(self, connection: "Connection", opened: "asyncio.Future[httpx.RequestError | None]") -> None:
        self.opened = opened
        """Done when the head is received; its result is the error if there is none."""
        self.headers: list[tuple[bytes, bytes]] = []
        self._connection: Connection | None = connection
        self._receiver: BodyReceiver | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._is_paused = self._is_delivering = self._is_over = self._is_closed = False
        self._error: httpx.RequestError | None = None

    @property
    def ended(self) -> bool:
        return self._is_over and self._error is None and not self._held

    @property
    def is_full(self) -> bool:
        """True while so much waits for a receiver that the connection must not read."""
        return self._held_bytes > HELD_BYTES

    @property
    def first_bytes(self) -> bytes:
        """Bytes of the body that arrived with the head and are not delivered yet; b"" if there are none."""
        return self._held[0] if self._held else b""

    def deliver(self, receiver: BodyReceiver) -> None:
        if not self._is_closed:
            self._receiver = receiver
            self._deliver()

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self._deliver()

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection at once, unless the response is complete: then another request may use it."""
        if self._is_closed:
            return
        if not self.ended:
            self._is_over, self._error = True, httpx.ReadError("the body is closed")
        self._is_closed = True
        self._receiver = None
        self._held = []
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    # Called by the connection.

    def arrived(self, data: bytes) -> None:
        """Deliver the bytes of one read, or hold them."""
        if self._receiver is not None and not self._is_paused and not self._held and not self._is_delivering:
            self._is_delivering = True
            try:
                self._receiver.data(data)
            finally:
                self._is_delivering = False
            if self._held or self._is_over:
                self._deliver()
            return
        self._hold(data)
        if self._connection is not None and self.is_full:
            self._connection.pause_reading()

    def over(self, data: bytes, error: httpx.RequestError | None) -> None:
        """Deliver the last bytes and the end, which is an error if the body is broken. The connection is let go."""
        self._connection = None
        self._is_over, self._error = True, error
        if data:
            self._hold(data)
        self._deliver()

    def open(self, error: httpx.RequestError | None = None) -> None:
        """Report the head, or that none comes."""
        if not self.opened.done():
            self.opened.set_result(error)

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data) + READ_COST_BYTES

    def _deliver(self) -> None:
        if self._is_delivering:
            return
        self._is_delivering = True
        try:
            while self._receiver is not None and not self._is_paused:
                if self._held:
                    data = self._held.pop(0)
                    self._held_bytes -= len(data) + READ_COST_BYTES
                    self._receiver.data(data)
                elif self._is_over:
                    self._deliver_end()
                else:
                    break
        finally:
            self._is_delivering = False
        if self._connection is not None and not self._held:
            self._connection.resume_reading()

    def _deliver_end(self) -> None:
        receiver, self._receiver = self._receiver, None
        assert receiver is not None
        if self._error is None:
            receiver.end()
        else:
            receiver.failed(self._error)


class Connection(asyncio.Protocol):
    """A connection of `owner`. `origin` is the owner's key for it, `peer` its name in error messages."""

    def __init__(self, owner: ConnectionOwner, origin: tuple[str, bytes], peer: str) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self.is_reused = False
        """True from the second request on."""
        self._owner = owner
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self._answer: PushedAnswer | None = None
        self._upload: memoryview | None = None
        """The rest of a long request body; None for a short one."""
        self._is_writing_paused = self._is_reading_paused = False
        self._lost_by: Exception | None = None

    @property
    def is_usable(self) -> bool:
        """Return True if a request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, method: str, head: bytes, content: bytes) -> PushedAnswer:
        """Send a request, and return its response, which is not open yet."""
        answer = PushedAnswer(self, self._loop.create_future())
        if self._transport is None:  # it was lost as soon as it was there
            answer.open(self._loss(self._lost_by))
            return answer
        self._reader.start(method)
        self._answer = answer
        if len(content) <= WRITE_BYTES:
            self._upload = None
            self._transport.write(head + content)
        else:
            self._upload = memoryview(content)
            self._transport.write(head)
            self._write_on()
        return answer

    def abort(self) -> None:
        """Close at once. `close` would first flush and end TLS; both may wait for a provider that does not read."""
        self._answer = self._upload = None
        if self._transport is not None:
            self._transport.abort()

    def fail(self) -> None:
        """Close at once, and report it to the reader of the response."""
        answer = self._answer
        self.abort()
        if answer is not None:
            self._break(answer, None)

    def pause_reading(self) -> None:
        if not self._is_reading_paused and self._transport is not None and not self._transport.is_closing():
            self._is_reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._is_reading_paused and self._transport is not None and not self._transport.is_closing():
            self._is_reading_paused = False
            self._transport.resume_reading()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            self.abort()  # nobody asked for it, and it would be read as the next response
            return
        if len(data) >= TURN_BYTES:
            self.pause_reading()
            self._loop.call_soon(self._take_turn)
        reader = self._reader
        is_open = reader.has_head
        body = reader.feed(data)
        if reader.is_complete or reader.fault is not None:
            self._finish(answer, body, is_open=is_open)
        elif is_open:
            if body:
                answer.arrived(body)
        elif reader.has_head:
            self._open(answer)
            if body:
                answer.arrived(body)

    def _take_turn(self) -> None:
        """Read on after a long read, unless its bytes still wait for a receiver."""
        if self._answer is None or not self._answer.is_full:
            self.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        reader, answer = self._reader, self._answer
        self._transport = self._answer = self._upload = None
        self._lost_by = exc
        self._owner.forget(self)
        if answer is not None:
            if reader.has_head and reader.lasts_until_close and exc is None:
                answer.over(b"", None)
            else:
                answer.is_stale = self.is_reused and not reader.head_bytes and not reader.has_head
                self._break(answer, exc)
        reader.close()

    def pause_writing(self) -> None:
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        self._is_writing_paused = False
        self._write_on()

    def _write_on(self) -> None:
        """Write what the transport takes of a long request body, at most one turn's share."""
        for _ in range(TURN_SLICES):
            transport = self._transport
            if not self._upload or self._is_writing_paused or transport is None or transport.is_closing():
                return
            part, self._upload = self._upload[:WRITE_BYTES], self._upload[WRITE_BYTES:]
            transport.write(part)
        self._loop.call_soon(self._write_on)

    def _is_uploading(self) -> bool:
        """Return True if a part of a long request body is not sent yet."""
        if self._upload is None or self._transport is None:
            return False
        return bool(self._upload) or self._transport.get_write_buffer_size() > 0

    def _open(self, answer: PushedAnswer) -> None:
        reader = self._reader
        answer.status, answer.headers = reader.status, reader.headers
        answer.content_encoding, answer.content_type = reader.content_encoding, reader.content_type
        answer.open()

    def _finish(self, answer: PushedAnswer, body: bytes, *, is_open: bool) -> None:
        """End a response that is complete or faulty.

        A fault in the read of the head is one of the whole response, unless a part of the body came before it.
        """
        self._answer = None
        reader = self._reader
        if reader.is_complete and reader.keeps_connection and not self._is_uploading():
            self.resume_reading()
            self._owner.release(self)
        else:
            self.abort()
        if not is_open and (reader.fault is not None and (reader.is_complete or not body)):
            answer.open(httpx.RemoteProtocolError(reader.fault.value.format(peer=self._peer)))
            return
        if not is_open:
            self._open(answer)
        answer.over(body, None if reader.is_complete else self._broken_off())

    def _break(self, answer: PushedAnswer, exc: Exception | None) -> None:
        """Report a lost connection."""
        if self._reader.has_head:
            answer.over(b"", self._broken_off())
        else:
            answer.open(self._loss(exc))

    def _loss(self, exc: Exception | None) -> httpx.ReadError:
        if exc is None:
            return httpx.ReadError(f"{self._peer} closed the connection before it answered")
        return httpx.ReadError(f"the connection to {self._peer} was lost: {cause_of(exc)}")

    def _broken_off(self) -> httpx.ReadError:
        return httpx.ReadError(f"{self._peer} broke off its answer")
