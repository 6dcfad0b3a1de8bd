"""An httpx transport that answers from tapes: recorded exchanges, replayed read by read.

It needs no network and no keys. Tests, the demo and offline development use it in place of a provider.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import httpx

from bridge.tapes.fault_injection import InjectedFault, InvalidFault
from bridge.tapes.file import (
    StreamEnd,
    Tape,
    TapeChunk,
    TapeEnding,
    TapeError,
    TapeHead,
    TapeRequest,
    check,
    pairs,
    read_tape,
    write_tape,
)
from bridge.tapes.library import Exhausted, Library, Miss, Pace
from bridge.tapes.matching import STRICT, Matching, ReplayRequest
from bridge.tapes.playback import Broken, Playback

__all__ = [
    "Exhausted",
    "InjectedFault",
    "Matching",
    "Pace",
    "StreamEnd",
    "Tape",
    "TapeChunk",
    "TapeEnding",
    "TapeError",
    "TapeHead",
    "TapeMiss",
    "TapeRequest",
    "TapeTransport",
    "check",
    "read_tape",
    "write_tape",
]


class TapeMiss(httpx.RemoteProtocolError):
    """No tape answers the request. The message gives the nearest tape and the difference; it contains no secret.

    It is a protocol error, so that callers do not retry.
    """


class TapeTransport(httpx.AsyncBaseTransport):
    """Replays the tapes of one or more folders; a path may also be a single tape.

    Tapes with equal requests play in the order of their paths; then the last one repeats, or requests miss. All tapes
    are read at once: raises TapeError for the first invalid one, and if there is none. A request's own faults are in
    its header `x-bridge-fault`; invalid ones raise httpx.LocalProtocolError. `now` and `sleep` use seconds and default
    to the running loop's clock.
    """

    def __init__(
        self,
        folders: Path | Iterable[Path],
        *,
        pace: Pace = "recorded",
        matching: Matching = STRICT,
        exhausted: Exhausted = "repeat",
        faults: Iterable[InjectedFault] = (),
        now: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.library = Library(folders, pace=pace, matching=matching, exhausted=exhausted, faults=faults)
        """Tapes, also of realtime sessions, which other code plays."""
        self._now = now
        self._sleep = sleep
        self._open: set[_TapeBody] = set()

    @property
    def playing(self) -> int:
        """Return the number of responses that are open."""
        return len(self._open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        tape = self._take(ReplayRequest(request.method, request.url, await request.aread(), request.headers), request)
        playback = Playback(tape, self._now or asyncio.get_running_loop().time, self._sleep)
        connected = request.extensions.get("on_connected")
        if connected is not None:
            connected()
        try:
            head = await playback.head()
        except Broken as broken:
            raise httpx.ReadError(str(broken), request=request) from None
        body = _TapeBody(playback, request, self._open)
        headers = httpx.Headers(
            pairs(head.headers), encoding="latin-1"
        )  # as on the wire; httpx itself accepts only ASCII
        return httpx.Response(head.status, headers=headers, stream=body, request=request)

    def _take(self, replayed: ReplayRequest, request: httpx.Request) -> Tape:
        try:
            return self.library.take(replayed)
        except Miss as miss:
            raise TapeMiss(str(miss), request=request) from None
        except InvalidFault as error:
            raise httpx.LocalProtocolError(str(error), request=request) from None


class _TapeBody(httpx.AsyncByteStream):
    """Yields the chunks of one tape, one per read, then its ending.

    It is not a generator, because the loop would close an unfinished one later, in another task.
    """

    def __init__(self, playback: Playback, request: httpx.Request, opened: "set[_TapeBody]") -> None:
        """Register the body in `opened` until it is closed."""
        self._playback, self._request, self._opened = playback, request, opened
        self._closed = False
        opened.add(self)

    def __aiter__(self) -> "_TapeBody":
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise httpx.StreamClosed
        try:
            data = await self._playback.read()
        except Broken as broken:
            raise httpx.ReadError(str(broken), request=self._request) from None
        if data is None:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        self._closed = True
        self._opened.discard(self)
