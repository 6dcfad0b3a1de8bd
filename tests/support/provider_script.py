"""A scripted provider: an httpx transport whose responses pause until the test releases them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import httpx


class Silence(Enum):
    SILENCE = auto()


SILENCE = Silence.SILENCE

Part = bytes | asyncio.Event | BaseException | Silence
"""Bytes are returned by one read, an event is waited for, an exception is raised, and silence never ends."""

RESET = httpx.ReadError("the provider reset the connection")
REFUSED = httpx.ConnectError("the provider refused the connection")

SSE = "text/event-stream"
JSON = "application/json"


@dataclass(frozen=True)
class ScriptedResponse:
    """Script of one response: the parts before the connection and before the head, and those of the body."""

    body: Sequence[Part] = ()
    status: int = 200
    content_type: str = SSE
    headers: dict[str, str] = field(default_factory=dict)
    before_connect: Sequence[Part] = ()
    before_head: Sequence[Part] = ()


def streams(*body: Part, content_type: str = SSE) -> ScriptedResponse:
    return ScriptedResponse(body, content_type=content_type)


def answers(body: bytes = b'{"ok":true}', status: int = 200, **headers: str) -> ScriptedResponse:
    """Return a JSON response in one piece. Underscores in header names stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ScriptedResponse([body], status, JSON, named)


def refuses() -> ScriptedResponse:
    return ScriptedResponse(before_connect=[REFUSED])


class ReceivedRequest:
    """One request, and the state of its response."""

    def __init__(self, request: httpx.Request) -> None:
        self.url = str(request.url)
        self.headers = request.headers
        self.content = request.read()
        self.at = asyncio.get_running_loop().time()
        self.is_connected = False
        self.closed = asyncio.Event()
        """Set once the response was read fully, broke, or was closed."""
        self.was_read_fully = False
        self.reads = 0

    async def run_part(self, part: Part) -> bytes:
        if isinstance(part, BaseException):
            self.closed.set()
            raise type(part)(*part.args)  # a copy, because a traceback would keep the test's objects alive
        if isinstance(part, bytes):
            return part
        await (asyncio.get_running_loop().create_future() if part is SILENCE else part.wait())
        return b""


class ScriptedProvider(httpx.AsyncBaseTransport):
    """Answers each request with the next response, in order. An additional request fails the test."""

    def __init__(self, *responses: ScriptedResponse) -> None:
        self._responses = list(responses)
        self.reports_connections = True
        """True for a transport that calls `on_connected`, as those of the bridge do; other transports do not."""
        self.requests: list[ReceivedRequest] = []

    @property
    def open_streams(self) -> int:
        return sum(not request.closed.is_set() for request in self.requests)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        assert len(self.requests) < len(self._responses), f"unexpected call of {request.url}"
        response, received = self._responses[len(self.requests)], ReceivedRequest(request)
        self.requests.append(received)
        try:
            for part in response.before_connect:
                await received.run_part(part)
            received.is_connected = True
            if self.reports_connections:
                request.extensions["on_connected"]()
            for part in response.before_head:
                await received.run_part(part)
        except BaseException:
            received.closed.set()
            raise
        headers = {"content-type": response.content_type, **response.headers}
        return httpx.Response(response.status, headers=headers, stream=_Body(response, received))


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: ScriptedResponse, received: ReceivedRequest) -> None:
        self._remaining = list(response.body)
        self._received = received

    def __aiter__(self) -> "_Body":
        return self

    async def __anext__(self) -> bytes:
        assert not self._received.closed.is_set(), "read after the end"
        while self._remaining:
            data = await self._received.run_part(self._remaining[0])
            del self._remaining[0]  # after the wait, so that a cancelled read loses nothing
            if data:
                self._received.reads += 1
                return data
        self._received.closed.set()
        self._received.was_read_fully = True
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._received.closed.set()
