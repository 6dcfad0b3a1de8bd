"""A provider that sends endless interim responses, or an endless head, over a real socket (RFC 9110, section 15.2).

Written at the seam of httpx: whatever transport is behind it must hold this.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest

from bridge.errors import UnusableAnswer
from bridge.upstream.http import fault
from bridge.upstream.transport import HttpTransport
from tests.support.socket_provider import OK, Line, Provider, Script, sends

MOST = 16
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
FLOOD_BYTES = 30_000_000


@pytest.fixture
async def transport() -> AsyncIterator[httpx.AsyncBaseTransport]:
    async with HttpTransport() as opened:
        yield opened


async def asked(transport: httpx.AsyncBaseTransport, provider: Provider) -> bytes:
    request = httpx.Request("POST", f"http://127.0.0.1:{provider.port}/v1/chat", content=b"{}")
    response = await transport.handle_async_request(request)
    try:
        return await response.aread()
    finally:
        await response.aclose()


def flooding(part: bytes, *, first: bytes = b"") -> Script:
    """Answers a request with `first`, and then with `part` as long as anybody reads, at most FLOOD_BYTES."""

    async def script(line: Line) -> None:
        await line.request()
        with suppress(ConnectionError):
            await line.send(first)
            many = part * (262_144 // len(part) + 1)
            for _ in range(FLOOD_BYTES // len(many)):
                await line.send(many)
            await line.send(OK)
        await line.gone()

    return script


class LongestTurn:
    """The longest time that the loop spent on one turn while this was open, in seconds of this process's CPU time."""

    async def __aenter__(self) -> "LongestTurn":
        self.seconds = 0.0
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            before = time.process_time()
            await asyncio.sleep(0)
            self.seconds = max(self.seconds, time.process_time() - before)


@pytest.mark.parametrize("interim", [CONTINUE, PROCESSING, HINTS])
async def test_sixteen_interim_responses_are_skipped(transport: httpx.AsyncBaseTransport, interim: bytes) -> None:
    async with Provider(sends(interim * MOST + OK)) as provider:
        assert await asked(transport, provider) == b"ok"
        assert await asked(transport, provider) == b"ok", "the count is per request"
        assert provider.connections == 1


@pytest.mark.parametrize("interim", [CONTINUE, PROCESSING, HINTS, CONTINUE + PROCESSING + HINTS])
async def test_with_one_more_the_answer_is_unusable(transport: httpx.AsyncBaseTransport, interim: bytes) -> None:
    several = interim * (MOST + 1)
    async with Provider(sends(several + OK)) as provider:
        with pytest.raises(httpx.RemoteProtocolError, match="interim responses") as raised:
            await asked(transport, provider)
    assert isinstance(fault(raised.value), UnusableAnswer)
    assert fault(raised.value).code == 9019


@pytest.mark.parametrize("cut", [1, 7, 25])
async def test_they_are_counted_across_reads(transport: httpx.AsyncBaseTransport, cut: int) -> None:
    sent = CONTINUE * (MOST + 1)

    async def script(line: Line) -> None:
        await line.request()
        with suppress(ConnectionError):
            for start in range(0, len(sent), cut):
                await line.send(sent[start : start + cut])
        await line.gone()

    async with Provider(script) as provider:
        with pytest.raises(httpx.RemoteProtocolError):
            await asked(transport, provider)


@pytest.mark.parametrize("interim", [CONTINUE, PROCESSING, HINTS])
async def test_a_flood_of_them_neither_stops_the_loop_nor_is_read(
    transport: httpx.AsyncBaseTransport, interim: bytes
) -> None:
    async with Provider(flooding(interim)) as provider, LongestTurn() as longest:
        with pytest.raises(httpx.RemoteProtocolError):
            await asked(transport, provider)
    assert longest.seconds < 0.5  # a read of 30 MB in one go took 8 s


@pytest.mark.parametrize(
    ("first", "part"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"x-filler: aaaaaaaaaaaaaaaaaaaa\r\n", id="many fields"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx-filler: ", b"a" * 1024, id="one long field"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"a" * 1024, id="one long name"),
        pytest.param(b"HTTP/1.1 200 ", b"a" * 1024, id="a long reason"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n", b"link: </x>\r\n", id="many fields of an interim response"),
        pytest.param(b"", b"\r\n", id="empty lines before the status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"x: " + b"a" * 60_000 + b"\r\n", id="many long fields"),
    ],
)
async def test_an_endless_head_is_unusable(transport: httpx.AsyncBaseTransport, first: bytes, part: bytes) -> None:
    async with Provider(flooding(part, first=first)) as provider, LongestTurn() as longest:
        with pytest.raises(httpx.RemoteProtocolError) as raised:
            await asked(transport, provider)
    assert fault(raised.value).code == 9019
    assert longest.seconds < 0.5


@pytest.mark.parametrize("part", [CONTINUE, OK], ids=["interim responses", "answers"])
async def test_what_comes_after_an_answer_is_not_kept(transport: httpx.AsyncBaseTransport, part: bytes) -> None:
    """Such a connection is closed: nothing that stands on it can be told from the next request's answer."""
    is_closed = asyncio.Event()

    async def script(line: Line) -> None:
        await flooding(part, first=OK)(line)
        is_closed.set()

    async with Provider(script) as provider:
        assert await asked(transport, provider) == b"ok"
        await is_closed.wait()
