"""One provider call: what is sent, what is read, what each fault is called, and that nothing stays open."""

import asyncio
import gc
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import httpx
import pytest

from bridge.errors import (
    BridgeError,
    BrokenStream,
    ConnectFailed,
    EndpointRefused,
    ResetBeforeAnswer,
    TlsFailed,
    UnusableAnswer,
)
from bridge.providers import Target
from bridge.upstream.answer import UpstreamResponse, public_headers, reads_of
from bridge.upstream.body import Reads
from bridge.upstream.http import MAX_CONNECTIONS, Call, HttpUpstreamResponse, Upstream
from bridge.upstream.transport import HttpTransport
from tests.support.socket_provider import OK, Line, Provider, Script, sends

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    opened = Upstream(HttpTransport())
    yield opened
    await opened.aclose()


def call(
    port: int,
    path: bytes = b"/v1/chat",
    *,
    host: str = "127.0.0.1",
    scheme: str = "http",
    headers: list[tuple[str, str]] | None = None,
    body: bytes = b"{}",
    on_connected: Callable[[], None] = lambda: None,
    max_connections: int = MAX_CONNECTIONS,
) -> Call:
    target = Target(scheme, host, port, path, f"{scheme}://{host}:{port}")
    return Call("POST", target, headers or [], body, on_connected, max_connections)


async def rest(answer: UpstreamResponse) -> bytes:
    """Return the rest of the body, and close the response."""
    try:
        return b"".join([data async for data in reads_of(answer)])
    finally:
        await answer.aclose()


async def test_a_call_is_sent_as_it_is_but_for_the_encodings_it_accepts(upstream: Upstream) -> None:
    seen = []

    async def script(line: Line) -> None:
        head = await line.head()
        seen.append((head, await line.body(head)))
        await line.send(OK)

    headers = [("Authorization", "Bearer k"), ("Accept-Encoding", "gzip, br"), ("X-Name", "Zoë")]
    async with Provider(script) as provider:
        asked = call(provider.port, b"/m/arn%3Aaws:x@1?q=+%2F'", headers=headers, body=b'{"a": 1}')
        assert await rest(await upstream.open(asked)) == b"ok"
    head, body = seen[0]
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /m/arn%3Aaws:x@1?q=+%2F' HTTP/1.1"
    assert lines[3:-2] == [b"Authorization: Bearer k", "X-Name: Zoë".encode(), b"accept-encoding: identity"]
    assert body == b'{"a": 1}'


async def test_an_answer_has_status_headers_and_bare_content_type(upstream: Upstream) -> None:
    head = b"HTTP/1.1 429 Slow\r\nContent-Type: Application/JSON; charset=utf-8\r\nX-Odd: caf\xe9\r\nX-Odd: 2\r\n"
    async with Provider(sends(head + b"Content-Length: 2\r\n\r\n{}")) as provider:
        answer = await upstream.open(call(provider.port))
        assert (answer.status, answer.content_type) == (429, "application/json")
        assert answer.headers[1:3] == [("x-odd", "café"), ("x-odd", "2")]
        assert answer.public_headers["x-odd"] == "café, 2"
        assert await rest(answer) == b"{}"


async def test_an_answer_has_ended_when_all_of_it_is_read(upstream: Upstream) -> None:
    went_on = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED, b"2\r\nhe\r\n")
        await went_on.wait()
        await line.send(b"3\r\nllo\r\n0\r\n\r\n")

    async with Provider(script) as provider:
        answer = await upstream.open(call(provider.port))
        assert await anext(Reads(answer)) == b"he"
        assert not answer.ended
        went_on.set()
        assert await rest(answer) == b"llo"
        assert answer.ended


async def test_an_answer_in_one_piece_has_ended_after_one_read(upstream: Upstream) -> None:
    async with Provider(sends(OK)) as provider:
        answer = await upstream.open(call(provider.port))
        assert not answer.ended
        assert await anext(Reads(answer)) == b"ok"
        assert answer.ended
        await answer.aclose()
        assert await rest(await upstream.open(call(provider.port))) == b"ok"
        assert provider.connections == 1


async def test_a_compressed_answer_is_read_plain_and_does_not_say_that_it_was(upstream: Upstream) -> None:
    coded = gzip.compress(b"plain" * 9)
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(coded)
    async with Provider(sends(head, coded)) as provider:
        answer = await upstream.open(call(provider.port))
        assert answer.headers == []
        assert await rest(answer) == b"plain" * 9
        assert answer.ended


# Faults


def ends(how: Callable[[Line], None], *parts: bytes) -> Script:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(*parts)
        how(line)

    return script


@pytest.mark.parametrize(
    ("script", "path", "fault"),
    [
        (ends(Line.reset), b"/", ResetBeforeAnswer),
        (ends(Line.close), b"/", ResetBeforeAnswer),
        (ends(Line.close, b"HTTP/1.1 2"), b"/", ResetBeforeAnswer),
        (ends(Line.close, b"nothing like it\r\n"), b"/", UnusableAnswer),
        (sends(HEAD + b"Content-Encoding: compress\r\nContent-Length: 1\r\n\r\n!"), b"/", UnusableAnswer),
        (sends(OK), b"/a\r\nb", EndpointRefused),
        (sends(OK), b"/a#b", EndpointRefused),
    ],
)
async def test_what_keeps_an_answer_from_coming_has_a_code(
    upstream: Upstream, script: Script, path: bytes, fault: type[BridgeError]
) -> None:
    async with Provider(script) as provider:
        with pytest.raises(fault):
            await upstream.open(call(provider.port, path))


async def test_a_provider_that_is_not_there_is_named_with_the_cause(upstream: Upstream) -> None:
    async with Provider(sends(OK)) as provider:
        port = provider.port
    with pytest.raises(ConnectFailed, match=f"^cannot connect to 127.0.0.1:{port}: connection refused$"):
        await upstream.open(call(port))
    with pytest.raises(ConnectFailed, match=r"nonexistent\.invalid"):
        await upstream.open(call(443, host="nonexistent.invalid"))


async def test_a_certificate_that_is_not_accepted_is_a_tls_failure(upstream: Upstream) -> None:
    async with Provider(sends(OK), tls=True) as provider:
        with pytest.raises(TlsFailed, match=r"self.signed"):
            await upstream.open(call(provider.port, scheme="https"))


@pytest.mark.parametrize(
    "script",
    [
        ends(Line.reset, CHUNKED, b"2\r\nhe\r\n"),
        ends(Line.close, CHUNKED, b"2\r\nhe\r\n"),
        ends(Line.close, HEAD + b"Content-Length: 9\r\n\r\nhe"),
    ],
)
async def test_an_answer_that_breaks_off_is_a_broken_stream_ever_after(upstream: Upstream, script: Script) -> None:
    async with Provider(script) as provider:
        answer = await upstream.open(call(provider.port))
        assert await anext(Reads(answer)) == b"he"
        for _ in range(2):
            with pytest.raises(BrokenStream, match=rf"^127.0.0.1:{provider.port} broke off its answer$"):
                await anext(reads_of(answer))
        assert not answer.ended
        await answer.aclose()


async def test_no_message_holds_the_key_in_the_query(upstream: Upstream) -> None:
    async with Provider(ends(Line.reset)) as provider:
        port = provider.port
        with pytest.raises(BridgeError) as reset:
            await upstream.open(call(port, b"/v1?key=SECRET", headers=[("x-api-key", "SECRET")]))
    with pytest.raises(BridgeError) as refused:
        await upstream.open(call(port, b"/v1?key=SECRET", headers=[("x-api-key", "SECRET")]))
    assert "SECRET" not in f"{reset.value} {refused.value}"


# Any httpx transport


class Fake(httpx.AsyncBaseTransport):
    def __init__(self, answer: Callable[[httpx.Request], Awaitable[httpx.Response]]) -> None:
        self.handle_async_request = answer  # type: ignore[method-assign]  # the one method that a transport has


class Stream(httpx.AsyncByteStream):
    def __init__(self, *parts: bytes | Exception) -> None:
        self._parts = iter(parts)
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            if isinstance(part, Exception):
                raise part
            yield part

    async def aclose(self) -> None:
        self.closed += 1


async def test_an_empty_read_of_a_transport_is_not_the_end() -> None:
    stream = Stream(b"", b"a", b"", b"", b"b", b"")
    answer = HttpUpstreamResponse(httpx.Response(200, stream=stream), lambda: None)
    assert [data async for data in reads_of(answer)] == [b"a", b"b"]
    await answer.aclose()
    await answer.aclose()
    assert stream.closed == 1


async def test_the_url_is_whole_for_transports_that_look_at_it() -> None:
    seen = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b"ok")

    reached = await Upstream(Fake(answer)).open(call(8443, b"/v1/x?a=1", host="::1", scheme="https"))
    assert await rest(reached) == b"ok"
    assert str(seen[0].url) == "https://[::1]:8443/v1/x?a=1"
    assert await seen[0].aread() == b"{}"


# Limits and cancellation


async def test_a_call_over_the_limit_waits_until_another_is_closed(upstream: Upstream) -> None:
    async with Provider(sends(OK)) as provider:
        first = await upstream.open(call(provider.port, max_connections=1))
        connected = []
        asked = call(provider.port, max_connections=1, on_connected=lambda: connected.append(1))
        second = asyncio.create_task(upstream.open(asked))
        other = await upstream.open(call(provider.port, host="localhost", max_connections=1))
        assert connected == []
        await first.aclose()
        await first.aclose()
        third = asyncio.create_task(upstream.open(asked))
        assert await rest(await second) == b"ok"
        assert await rest(await third) == b"ok"
        await other.aclose()


@pytest.mark.parametrize(
    ("parts", "how", "read_on"),
    [
        ((OK,), None, True),
        ((HEAD + b"Content-Length: 9\r\n\r\nhe",), None, False),
        ((HEAD + b"Content-Length: 9\r\n\r\nhe",), Line.close, True),
        ((), Line.reset, True),
        ((b"no answer",), None, True),
    ],
    ids=["ended", "left half read", "broken off", "reset before the answer", "no answer"],
)
async def test_every_way_to_end_gives_the_place_back(
    upstream: Upstream, parts: tuple[bytes, ...], how: Callable[[Line], None] | None, read_on: bool
) -> None:
    async def script(line: Line) -> None:
        await line.request()
        if line.number == 0:
            await line.send(CHUNKED)
            await line.gone()
        if line.number == 1:
            await line.send(*parts)
            if how is not None:
                how(line)
            await line.request()
        await line.send(OK)

    async with Provider(script) as provider:
        one_of_two = call(provider.port, max_connections=2)
        # Open all the while: with the last holder the semaphore would go.
        other = await upstream.open(one_of_two)
        with suppress(BridgeError):
            answer = await upstream.open(one_of_two)
            await (rest(answer) if read_on else answer.aclose())
        assert await rest(await upstream.open(one_of_two)) == b"ok"
        await other.aclose()


async def test_waiting_for_a_place_can_be_cancelled(upstream: Upstream) -> None:
    async with Provider(sends(OK)) as provider:
        one = call(provider.port, max_connections=1)
        first = await upstream.open(one)
        waiting = asyncio.create_task(upstream.open(one))
        await asyncio.wait([waiting], timeout=0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await rest(first) == b"ok"
        assert await rest(await upstream.open(one)) == b"ok"


async def test_hosts_that_are_no_longer_called_are_forgotten(upstream: Upstream) -> None:
    async with Provider(sends(OK)) as provider:
        answer = await upstream.open(call(provider.port))
        assert len(upstream._slots) == 1
        await rest(answer)
        del answer
        gc.collect()
        assert len(upstream._slots) == 0


async def test_a_cancelled_call_closes_its_connection_and_gives_its_place_back(upstream: Upstream) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        if line.number == 0:
            await line.send(CHUNKED)
            await line.gone()
        if line.number == 1:
            asked.set()
            await line.gone()
            closed.set()
        await line.send(OK)

    async with Provider(script) as provider:
        one_of_two = call(provider.port, max_connections=2)
        other = await upstream.open(one_of_two)
        waiting = asyncio.create_task(upstream.open(one_of_two))
        await asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await closed.wait()
        assert await rest(await upstream.open(one_of_two)) == b"ok"
        await other.aclose()


async def test_100_calls_opened_and_dropped_leave_no_task_and_no_connection(upstream: Upstream) -> None:
    gone = asyncio.Barrier(101)

    async def script(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED, b"2\r\nhe\r\n")
        await line.gone()
        await gone.wait()

    async with Provider(script) as provider:
        before = asyncio.all_tasks()
        answers = await asyncio.gather(*(upstream.open(call(provider.port)) for _ in range(100)))
        for answer in answers:
            await answer.aclose()
        await gone.wait()
        left = asyncio.all_tasks() - before
        assert len([task for task in left if not task.get_coro().__qualname__.startswith("Provider")]) == 0


# What the client gets to see


def test_public_headers_are_joined_and_rid_of_what_concerns_the_connection() -> None:
    headers = [
        ("content-type", "text/plain"),
        ("connection", "close, X-Hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
        ("content-encoding", "gzip"),
        ("set-cookie", "a=b"),
        ("x-limit", "1"),
        ("X-Limit".lower(), "2"),
        ("trailer", "x"),
        ("upgrade", "h2c"),
        ("te", "x"),
    ]
    assert public_headers(headers) == {"content-type": "text/plain", "x-limit": "1, 2"}


def test_public_headers_stop_at_16_kib() -> None:
    public = public_headers([(f"x-{number:03}", "v" * 95) for number in range(300)])
    assert len(public) == 163
    assert list(public)[-1] == "x-162"
