"""An httpx transport that passes exchanges on to another, and leaves a tape of each.

The loop keeps references to the chunks, and a clock's time beside each. Taking out secrets and writing is the work of
one thread: one, so that tapes are numbered in the order of their exchanges; a thread, because a disk makes one wait.
Nothing is written before its secrets are out; nothing that goes wrong with a tape is felt by its exchange.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from bridge.upstream.exchange import Answered, Exchange, Sent, taped, taped_request
from bridge.upstream.tape_file import End, Ending, Pairs
from bridge.upstream.tape_folder import TapeFolder

log = logging.getLogger("bridge.recording")

MAX_TAPE_BYTES: Final = 64 << 20
MAX_HELD_BYTES: Final = 256 << 20
"""Of all exchanges that are being recorded, or wait for the thread. One that goes past either bound is not recorded."""
EXCHANGE_BYTES: Final = 4096
READ_BYTES: Final = 128
"""What an exchange and a read weigh beside their bodies."""

_PLAIN_CODINGS: Final = {"", "identity"}


def recording_transport(inner: httpx.AsyncBaseTransport, folder: Path) -> "RecordingTransport":
    """`inner`, and in `folder` a tape of every exchange. Raises OSError when the folder cannot be made."""
    return RecordingTransport(inner, TapeFolder(folder))


class RecordingTransport(httpx.AsyncBaseTransport):
    """Owns `inner`, which undoes content codings, and `folder`.

    A connection that was never made is no exchange, and leaves no tape; nor does what is no HTTP.
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
        self._desk = _Desk(folder, max_tape_bytes, max_held_bytes)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        take = _Take(self._desk, request, await request.aread())
        request.extensions = {**request.extensions, "on_connected": take.connected}
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException as exc:
            take.fail(exc)
            raise
        take.answer(response)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Watched(response.stream, take, response.extensions.get("ended", bool))
        return response

    async def aclose(self) -> None:
        """Returns when all that has ended is written."""
        await self._inner.aclose()
        await self._desk.aclose()


class _Watched(httpx.AsyncByteStream):
    """A body whose reads go to a tape as well. Ends the take, whichever way it ends itself."""

    def __init__(self, stream: httpx.AsyncByteStream, take: "_Take", is_read: Callable[[], bool]) -> None:
        self._stream, self._take, self._is_read = stream, take, is_read
        self._reads = aiter(stream)

    def __aiter__(self) -> "_Watched":
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await anext(self._reads)
        except StopAsyncIteration:
            self._take.end(End.EOF)
            raise
        except httpx.RequestError as exc:
            self._take.end(_ending(exc) or End.RESET)
            raise
        self._take.read(data)
        return data

    async def aclose(self) -> None:
        # Who knows that the body is whole closes it without asking for its end.
        self._take.end(End.EOF if self._is_read() else End.CLIENT)
        await self._stream.aclose()


class _Take:
    """One exchange that is being recorded. It begins when there is a connection; after its end it hears nothing."""

    def __init__(self, desk: "_Desk", request: httpx.Request, body: bytes) -> None:
        self._desk = desk
        self._sent = Sent(request.method, str(request.url), _pairs(request.headers), body)
        self._on_connected: Callable[[], None] | None = request.extensions.get("on_connected")
        self._now = asyncio.get_running_loop().time
        self._started_at = self._now()
        self._answered: Answered | None = None
        self._reads: list[tuple[int, bytes]] = []
        self._held_bytes = 0
        self._is_begun = self._is_over = False
        self._part: Path | None = None
        """The thread's own."""

    def connected(self) -> None:
        self._begin()
        if self._on_connected is not None:
            self._on_connected()

    def answer(self, response: httpx.Response) -> None:
        self._begin()
        headers = [pair for pair in _pairs(response.headers) if not _names_no_coding(*pair)]
        self._answered = Answered(response.status_code, headers, self._ms())

    def read(self, data: bytes) -> None:
        if not self._is_over:
            self._reads.append((self._ms(), data))
            self._hold(READ_BYTES + len(data))

    def fail(self, exc: BaseException) -> None:
        """There is no answer."""
        if how := _ending(exc):
            self.end(how)
        else:
            self.drop("it ended in a way that no tape can tell")

    def end(self, how: End) -> None:
        if how is not End.CLIENT:
            self._begin()  # a transport that never told of its connection had one
        if self._is_over:
            return
        self._is_over = True
        if self._is_begun:
            exchange = Exchange(self._sent, self._answered, self._reads, Ending(end=how, ms=self._ms()))
            self._desk.submit(partial(self._write, exchange), self._held_bytes)

    def drop(self, reason: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._reads = []
        if self._is_begun:
            log.warning("an exchange with %s is not recorded: %s", httpx.URL(self._sent.url).host, reason)
            self._desk.submit(self._unwrite, self._held_bytes)

    def _begin(self) -> None:
        if not self._is_begun and not self._is_over:
            self._is_begun = True
            self._desk.submit(self._write_beginning)
            self._hold(EXCHANGE_BYTES + len(self._sent.body))

    def _hold(self, size: int) -> None:
        self._held_bytes += size
        if problem := self._desk.hold(size, self._held_bytes):
            self.drop(problem)

    def _ms(self) -> int:
        return round((self._now() - self._started_at) * 1000)

    # In the thread, one after the other.

    def _write_beginning(self) -> None:
        self._part = self._desk.folder.begin(taped_request(self._sent))

    def _write(self, exchange: Exchange) -> None:
        if self._part is not None:  # else it could not be begun, and that has been said
            self._desk.folder.finish(self._part, taped(exchange))

    def _unwrite(self) -> None:
        if self._part is not None:
            self._desk.folder.drop(self._part)


class _Desk:
    """Where takes are handed in. Called by the loop; what it is handed runs in the thread, in that order."""

    def __init__(self, folder: TapeFolder, max_tape_bytes: int, max_held_bytes: int) -> None:
        self.folder = folder
        self._max_tape_bytes, self._max_held_bytes = max_tape_bytes, max_held_bytes
        self._held_bytes = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tapes")
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_closed = False

    def hold(self, size: int, of_take: int) -> str | None:
        """Count `size` bytes in, of a take that holds `of_take` now. Says why that is too much, when it is."""
        self._held_bytes += size
        if of_take > self._max_tape_bytes:
            return f"it is longer than {self._max_tape_bytes} bytes"
        if self._held_bytes > self._max_held_bytes:
            return "too many others wait to be written"
        return None

    def submit(self, job: Callable[[], None], frees: int = 0) -> None:
        """`frees` is counted out when the job is done. After the end nothing is done any more."""
        if self._is_closed:
            return
        waiting = asyncio.get_running_loop().run_in_executor(self._thread, job)
        self._waiting.add(waiting)
        waiting.add_done_callback(partial(self._done, frees))

    async def aclose(self) -> None:
        while self._waiting:
            await asyncio.wait(self._waiting)
        self._is_closed = True
        self._thread.shutdown()

    def _done(self, frees: int, waited: "asyncio.Future[None]") -> None:
        self._waiting.discard(waited)
        self._held_bytes -= frees
        if error := waited.exception():
            # Not its text, which may hold what was on its way to be taken out.
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            log.warning("a tape could not be written: %s", reason)


def _ending(exc: BaseException) -> End | None:
    if isinstance(exc, asyncio.CancelledError | httpx.TimeoutException):
        return End.CLIENT
    return End.RESET if isinstance(exc, httpx.ReadError | httpx.WriteError) else None


def _pairs(headers: httpx.Headers) -> Pairs:
    return [(name.lower().decode("latin-1"), value.decode("latin-1")) for name, value in headers.raw]


def _names_no_coding(name: str, value: str) -> bool:
    """Said so, but there was nothing to undo. A tape that names a coding would be a faulty one."""
    return name == "content-encoding" and value.strip().lower() in _PLAIN_CODINGS
