"""An httpx transport that answers from tapes: recorded exchanges, replayed read by read.

No network, no keys: what the tests, the demo and a developer on a train call instead of a provider.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import httpx

from bridge.tapes.fault_injection import BadFault, InjectedFault
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
    """No tape answers this request. The message names the nearest one and the difference; it holds no secret.

    To its caller it is an answer that nobody can use, for asking again would not help.
    """


class TapeTransport(httpx.AsyncBaseTransport):
    """Replays a folder of tapes, or several; a path may also be one tape.

    Tapes whose requests are alike play in the order of their paths, then the last one repeats, or none is left. All are
    read at once: raises TapeError for the first that cannot be, and when there is none. A request's own faults come in
    its header `x-bridge-fault`; httpx.LocalProtocolError says when they are none. `now` gives seconds, `sleep` takes
    them; without them the running loop's clock rules.
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
        """Whose sessions on sockets others may play."""
        self._now = now
        self._sleep = sleep
        self._open: set[_TapeBody] = set()

    @property
    def playing(self) -> int:
        """How many answers were begun and not closed yet."""
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
        headers = httpx.Headers(pairs(head.headers), encoding="latin-1")  # as HTTP has them; httpx takes ASCII alone
        return httpx.Response(head.status, headers=headers, stream=body, request=request)

    def _take(self, asked: ReplayRequest, request: httpx.Request) -> Tape:
        try:
            return self.library.take(asked)
        except Miss as miss:
            raise TapeMiss(str(miss), request=request) from None
        except BadFault as error:
            raise httpx.LocalProtocolError(str(error), request=request) from None


class _TapeBody(httpx.AsyncByteStream):
    """The chunks of one tape, one per read, then its ending.

    No generator: one that is left half read is closed by the loop, in a task of its own and some time later.
    """

    def __init__(self, playback: Playback, request: httpx.Request, opened: "set[_TapeBody]") -> None:
        """Stands in `opened` until it is closed."""
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
