"""An httpx transport that answers from tapes: recorded exchanges, replayed read by read.

No network, no keys: what the tests, the demo and a developer on a train call instead of a provider.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import httpx

from bridge.upstream.tape_file import (
    Chunk,
    End,
    Ending,
    Head,
    Request,
    Tape,
    TapeError,
    check,
    pairs,
    read_tape,
    write_tape,
)
from bridge.upstream.tape_match import Asked, Key, miss

__all__ = [
    "Chunk",
    "End",
    "Ending",
    "Head",
    "Pace",
    "Request",
    "Tape",
    "TapeError",
    "TapeMiss",
    "TapeTransport",
    "check",
    "read_tape",
    "write_tape",
]

Pace = Literal["recorded", "instant"] | float
"""How long a replay takes: as recorded, no time at all, or that many times what was recorded."""

_STRETCH = {"recorded": 1.0, "instant": 0.0}


class TapeMiss(httpx.RemoteProtocolError):
    """No tape answers this request. The message names the nearest one and the difference; it holds no secret.

    To its caller it is an answer that nobody can use, for asking again would not help.
    """


class TapeTransport(httpx.AsyncBaseTransport):
    """Replays a folder of tapes, or several; a path may also be one tape.

    Tapes whose requests are alike play in the order of their paths, then the last one repeats. All are read at once:
    raises TapeError for the first that cannot be, and when there is none. `now` gives seconds, `sleep` takes them;
    without them the running loop's clock rules.
    """

    def __init__(
        self,
        folders: Path | Iterable[Path],
        *,
        pace: Pace = "recorded",
        now: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._tapes: defaultdict[Key, list[Tape]] = defaultdict(list)
        self._played: Counter[Key] = Counter()
        self._taped: list[tuple[str, Asked]] = []
        self._stretch = _STRETCH[pace] if isinstance(pace, str) else pace
        self._now = now
        self._sleep = sleep
        self._open: set[_Body] = set()
        for path in _paths([folders] if isinstance(folders, Path) else folders):
            self._take(path)

    @property
    def playing(self) -> int:
        """How many answers were begun and not closed yet."""
        return len(self._open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        clock = _Clock(self._now or asyncio.get_running_loop().time, self._sleep, self._stretch)
        tape = self._next(Asked(request.method, request.url, await request.aread()), request)
        connected = request.extensions.get("on_connected")
        if connected is not None:
            connected()
        if tape.head is None:
            await _end(tape.ending, clock, request)
            raise httpx.ReadError("The tape ends before an answer", request=request)
        await clock.until(tape.head.ms)
        body = _Body(tape, clock, request, self._open)
        return httpx.Response(tape.head.status, headers=pairs(tape.head.headers), stream=body, request=request)

    def _take(self, path: Path) -> None:
        tape = read_tape(path)
        asked = Asked(tape.request.method, httpx.URL(tape.request.url), tape.request.body)
        self._tapes[asked.key].append(tape)
        self._taped.append((f"{path.parent.name}/{path.name}", asked))

    def _next(self, asked: Asked, request: httpx.Request) -> Tape:
        key = asked.key
        if key not in self._tapes:
            raise TapeMiss(miss(asked, self._taped), request=request)
        tapes = self._tapes[key]
        turn = min(self._played[key], len(tapes) - 1)
        self._played[key] += 1
        return tapes[turn]


class _Clock:
    """Waits for instants, not for durations: what the reader of a replay does in between makes it no longer."""

    def __init__(self, now: Callable[[], float], sleep: Callable[[float], Awaitable[object]], stretch: float) -> None:
        self._now, self._sleep, self._stretch = now, sleep, stretch
        self._started_at = now()

    async def until(self, ms: int | None) -> None:
        if not self._stretch or ms is None:
            return
        delay_s = self._started_at + ms / 1000 * self._stretch - self._now()
        if delay_s > 0:
            await self._sleep(delay_s)


class _Body(httpx.AsyncByteStream):
    """The chunks of one tape, one per read, then its ending.

    No generator: one that is left half read is closed by the loop, in a task of its own and some time later.
    """

    def __init__(self, tape: Tape, clock: _Clock, request: httpx.Request, opened: "set[_Body]") -> None:
        """Stands in `opened` until it is closed."""
        self._tape, self._clock, self._request, self._opened = tape, clock, request, opened
        self._read = 0
        self._closed = False
        opened.add(self)

    def __aiter__(self) -> "_Body":
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise httpx.StreamClosed
        if self._read == len(self._tape.chunks):
            await _end(self._tape.ending, self._clock, self._request)
            raise StopAsyncIteration
        chunk = self._tape.chunks[self._read]
        await self._clock.until(chunk.ms)
        # Counted after the wait: a read that was cancelled takes nothing away from the next.
        self._read += 1
        return chunk.data

    async def aclose(self) -> None:
        self._closed = True
        self._opened.discard(self)


async def _end(ending: Ending, clock: _Clock, request: httpx.Request) -> None:
    """Returns at a clean end, raises at a broken one, and at a silent one waits until it is cancelled."""
    if ending.end in {End.STALL, End.CLIENT}:
        await asyncio.get_running_loop().create_future()
    await clock.until(ending.ms)
    if ending.end is End.RESET:
        raise httpx.ReadError("The tape ends with a reset", request=request)


def _paths(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        found = [folder] if folder.is_file() else sorted(folder.rglob("*.jsonl"))
        if not found:
            raise TapeError(folder, 0, "No tape here: a folder of *.jsonl, or one such file, is wanted")
        yield from found
