"""A provider that plays a script: an httpx transport whose answers continue when the test allows it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import httpx


class Silence(Enum):
    SILENCE = auto()


SILENCE = Silence.SILENCE

Part = bytes | asyncio.Event | BaseException | Silence
"""Bytes are one read; an event is waited for; an exception is raised in their place; silence goes on for ever."""

RESET = httpx.ReadError("the provider reset the connection")
REFUSED = httpx.ConnectError("the provider refused the connection")

SSE = "text/event-stream"
JSON = "application/json"


@dataclass(frozen=True)
class Plays:
    """The script of one answer: what happens before the connection, before the head, and then the body."""

    body: Sequence[Part] = ()
    status: int = 200
    content_type: str = SSE
    headers: dict[str, str] = field(default_factory=dict)
    connecting: Sequence[Part] = ()
    waiting: Sequence[Part] = ()


def streams(*body: Part, content_type: str = SSE) -> Plays:
    return Plays(body, content_type=content_type)


def answers(body: bytes = b'{"ok":true}', status: int = 200, **headers: str) -> Plays:
    """Answer in one piece. Underscores in a header's name stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Plays([body], status, JSON, named)


def refuses() -> Plays:
    return Plays(connecting=[REFUSED])


class Played:
    """One request, and the state of its answer."""

    def __init__(self, request: httpx.Request) -> None:
        self.url = str(request.url)
        self.headers = request.headers
        self.content = request.read()
        self.at = asyncio.get_running_loop().time()
        self.is_connected = False
        self.over = asyncio.Event()
        """The connection is not in use any more: read to its end, broken or closed."""
        self.was_read_to_its_end = False
        self.reads = 0

    async def part(self, part: Part) -> bytes:
        if isinstance(part, BaseException):
            self.over.set()
            raise type(part)(*part.args)  # not the script's own: its traceback would keep all this alive
        if isinstance(part, bytes):
            return part
        await (asyncio.get_running_loop().create_future() if part is SILENCE else part.wait())
        return b""


class ScriptedProvider(httpx.AsyncBaseTransport):
    """Play one script per request, in order; an additional request is an error of the test."""

    def __init__(self, *plays: Plays) -> None:
        self._plays = list(plays)
        self.tells_of_connections = True
        """As our own transports do, and no other."""
        self.played: list[Played] = []

    @property
    def open_streams(self) -> int:
        return sum(not played.over.is_set() for played in self.played)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        assert len(self.played) < len(self._plays), f"nobody expected a call of {request.url}"
        play, played = self._plays[len(self.played)], Played(request)
        self.played.append(played)
        try:
            for part in play.connecting:
                await played.part(part)
            played.is_connected = True
            if self.tells_of_connections:
                request.extensions["on_connected"]()
            for part in play.waiting:
                await played.part(part)
        except BaseException:
            played.over.set()
            raise
        headers = {"content-type": play.content_type, **play.headers}
        return httpx.Response(play.status, headers=headers, stream=_Body(play, played))


class _Body(httpx.AsyncByteStream):
    def __init__(self, play: Plays, played: Played) -> None:
        self._left = list(play.body)
        self._played = played

    def __aiter__(self) -> "_Body":
        return self

    async def __anext__(self) -> bytes:
        assert not self._played.over.is_set(), "read after its end"
        while self._left:
            data = await self._played.part(self._left[0])
            del self._left[0]  # after the wait: a read that was cancelled takes nothing away
            if data:
                self._played.reads += 1
                return data
        self._played.over.set()
        self._played.was_read_to_its_end = True
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._played.over.set()
