"""An httpx transport that forwards exchanges to another transport and records a tape of each.

The loop only keeps references to the chunks with their times. One thread redacts and writes: a thread because disks
block, a single one so that tapes are numbered in the order of their exchanges. Secrets are removed before anything is
written, and a failure to record never affects the exchange.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from bridge.tapes.exchange import ReceivedHead, RecordedExchange, SentRequest, tape_exchange, tape_request
from bridge.tapes.file import Pairs, StreamEnd, TapeEnding
from bridge.tapes.folder import TapeFolder
from bridge.tapes.writer import MAX_HELD_BYTES, MAX_TAPE_BYTES, RecordingThread
from bridge.upstream.body import BodyReceiver, PushedBody, pushed

log = logging.getLogger("bridge.recording")

EXCHANGE_BYTES: Final = 4096
READ_BYTES: Final = 128
"""Memory of an exchange and of a read besides their bodies."""

_PLAIN_CODINGS: Final = {"", "identity"}


def recording_transport(inner: httpx.AsyncBaseTransport, folder: Path) -> "RecordingTransport":
    """Return a transport that records every exchange of `inner` in `folder`. Raises OSError if it cannot be created."""
    return RecordingTransport(inner, TapeFolder(folder))


class RecordingTransport(httpx.AsyncBaseTransport):
    """Owns `inner`, which decodes content codings, and `folder`.

    A failed connection and an invalid HTTP response leave no tape.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        folder: TapeFolder,
        *,
        max_tape_bytes: int = MAX_TAPE_BYTES,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self._inner = inner
        self.recording_thread = RecordingThread(folder, max_tape_bytes, max_held_bytes)
        """Thread for other recorders; it runs until this transport is closed."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        recording = _Recording(self.recording_thread, request, await request.aread())
        request.extensions = {**request.extensions, "on_connected": recording.connected}
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException as exc:
            recording.fail(exc)
            raise
        recording.answer(response)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _RecordedBody(pushed(response.stream), recording)
        return response

    async def aclose(self) -> None:
        """Close the transport and wait until all ended exchanges are written."""
        await self._inner.aclose()
        await self.recording_thread.aclose()


class _RecordedBody(PushedBody):
    """Body that is recorded as it is delivered. It ends the recording in every case."""

    def __init__(self, body: PushedBody, recording: "_Recording") -> None:
        self._body, self._recording = body, recording
        self._receiver: BodyReceiver

    @property
    def ended(self) -> bool:
        return self._body.ended

    def deliver(self, receiver: BodyReceiver) -> None:
        self._receiver = receiver
        self._body.deliver(self)

    def pause(self) -> None:
        self._body.pause()

    def resume(self) -> None:
        self._body.resume()

    async def aclose(self) -> None:
        # A reader that knows that the body is complete closes it without waiting for the end.
        self._recording.end(StreamEnd.EOF if self._body.ended else StreamEnd.CLIENT)
        await self._body.aclose()

    def data(self, data: bytes) -> None:
        self._recording.read(data)
        self._receiver.data(data)

    def end(self) -> None:
        self._recording.end(StreamEnd.EOF)
        self._receiver.end()

    def failed(self, error: Exception) -> None:
        self._recording.end(_ending(error) or StreamEnd.RESET)
        self._receiver.failed(error)


class _Recording:
    """Records one exchange, from the connection to the end. Later calls do nothing."""

    def __init__(self, recording_thread: RecordingThread, request: httpx.Request, body: bytes) -> None:
        self._recording_thread = recording_thread
        self._sent = SentRequest(request.method, str(request.url), _pairs(request.headers), body)
        self._on_connected: Callable[[], None] | None = request.extensions.get("on_connected")
        self._now = asyncio.get_running_loop().time
        self._started_at = self._now()
        self._answered: ReceivedHead | None = None
        self._reads: list[tuple[int, bytes]] = []
        self._held_bytes = 0
        self._is_begun = self._is_over = False
        self._ended: RecordedExchange | None = None
        self._part: Path | None = None
        """Used only by the recording thread."""

    def connected(self) -> None:
        self._begin()
        if self._on_connected is not None:
            self._on_connected()

    def answer(self, response: httpx.Response) -> None:
        self._begin()
        headers = [pair for pair in _pairs(response.headers) if not _names_no_coding(*pair)]
        self._answered = ReceivedHead(response.status_code, headers, self._ms())

    def read(self, data: bytes) -> None:
        if not self._is_over:
            self._reads.append((self._ms(), data))
            self._hold(READ_BYTES + len(data))

    def fail(self, exc: BaseException) -> None:
        """End the recording of an exchange without a response."""
        if how := _ending(exc):
            self.end(how)
        else:
            self.drop("tapes cannot represent its end")

    def end(self, how: StreamEnd) -> None:
        if how is not StreamEnd.CLIENT:
            self._begin()  # a transport that does not report connections had one
        if self._is_over:
            return
        self._is_over = True
        if self._is_begun:
            self._ended = RecordedExchange(self._sent, self._answered, self._reads, TapeEnding(end=how, ms=self._ms()))
            self._recording_thread.submit_last(partial(self._write, self._ended), self._held_bytes)

    def drop(self, reason: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._reads = []
        if self._is_begun:
            log.warning("an exchange with %s is not recorded: %s", httpx.URL(self._sent.url).host, reason)
            self._recording_thread.submit(self._unwrite, self._held_bytes)

    def _begin(self) -> None:
        if not self._is_begun and not self._is_over:
            self._is_begun = True
            self._recording_thread.submit(self._write_beginning)
            self._hold(EXCHANGE_BYTES + len(self._sent.body))

    def _hold(self, size: int) -> None:
        self._held_bytes += size
        if problem := self._recording_thread.hold(size, self._held_bytes):
            self.drop(problem)

    def _ms(self) -> int:
        return round((self._now() - self._started_at) * 1000)

    # The following methods run in the recording thread.

    def _write_beginning(self) -> None:
        if self._ended is None:
            self._part = self._recording_thread.folder.begin(tape_request(self._sent))
        else:  # the thread is behind: one write takes half the time
            self._recording_thread.folder.keep(tape_exchange(self._ended))

    def _write(self, exchange: RecordedExchange) -> None:
        if self._part is not None:  # otherwise the beginning failed, which has been logged
            self._recording_thread.folder.finish(self._part, tape_exchange(exchange))

    def _unwrite(self) -> None:
        if self._part is not None:
            self._recording_thread.folder.drop(self._part)


def _ending(exc: BaseException) -> StreamEnd | None:
    if isinstance(exc, asyncio.CancelledError | httpx.TimeoutException):
        return StreamEnd.CLIENT
    return StreamEnd.RESET if isinstance(exc, httpx.ReadError | httpx.WriteError) else None


def _pairs(headers: httpx.Headers) -> Pairs:
    return [(name.lower().decode("latin-1"), value.decode("latin-1")) for name, value in headers.raw]


def _names_no_coding(name: str, value: str) -> bool:
    """Return true for a content-encoding without effect; a tape with this header would be faulty."""
    return name == "content-encoding" and value.strip().lower() in _PLAIN_CODINGS
