"""Every fault that a provider can have, once over a real socket; and what a gateway must not do to a request."""

import asyncio
import gc
import gzip
import socket
import tracemalloc
import weakref
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import httpx
import pytest
import zstandard

from bridge.upstream.body import PushedBody
from bridge.upstream.dial import TlsError
from bridge.upstream.transport import HttpTransport
from tests.support.clock import turns, until
from tests.support.receivers import Collector
from tests.support.socket_provider import OK, Line, Provider, client_context, sends

pytestmark = pytest.mark.both_loops

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    async with HttpTransport(client_context()) as opened:
        yield opened


def post(
    provider: Provider | int,
    *,
    host: str = "127.0.0.1",
    scheme: str = "http",
    method: str = "POST",
    body: bytes = b"{}",
    target: bytes = b"/v1/chat",
    headers: list[tuple[bytes, bytes]] | None = None,
    on_connected: Callable[[], None] | None = None,
) -> httpx.Request:
    port = provider if isinstance(provider, int) else provider.port
    extensions = {"target": target, "on_connected": on_connected}
    url = httpx.URL(scheme=scheme, host=host, port=port)
    return httpx.Request(method, url, headers=headers, stream=httpx.ByteStream(body), extensions=extensions)


async def send(transport: HttpTransport, request: httpx.Request) -> bytes:
    """The whole body of the answer; the connection is kept or closed as the answer says."""
    response = await transport.handle_async_request(request)
    try:
        return await response.aread()
    finally:
        await response.aclose()


async def lost(transport: HttpTransport, *, idle: int = 0) -> None:
    """Returns when all connections but `idle` ones are closed on our side."""
    pool = transport._pool
    assert pool is not None
    await until(lambda: len(pool._open) == idle)  # nothing public tells


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


# What the provider sees


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/chat/completions",
        b"/v1beta/models/gemini-2.0:streamGenerateContent?alt=sse",
        b"/model/arn%3Aaws%3Abedrock%2Fx%3A0/invoke",
        b"/ai/run/@cf/meta/llama+3",
        b"/a%2Fb%2fc/%7e~%41?q=%2B+%20&x=%3A:@/?",
        b"//v1/../up/./here",
        b"/e%CC%81/%c3%a9?q='\"[]{}|^`",
        b"/v1?a=1&a=2&=&b",
        b"/",
    ],
)
async def test_the_target_arrives_as_it_was_written(transport: HttpTransport, target: bytes) -> None:
    seen = []

    async def script(line: Line) -> None:
        seen.append(await line.request())
        await line.send(OK)

    async with Provider(script) as provider:
        await send(transport, post(provider, target=target))
    assert seen[0].split(b"\r\n")[0] == b"POST " + target + b" HTTP/1.1"


async def test_headers_arrive_in_order_and_none_is_added_but_host_and_length(transport: HttpTransport) -> None:
    headers = [
        (b"X-Second", "zwölf".encode()),
        (b"authorization", b"Bearer k"),
        (b"X-Twice", b"1"),
        (b"x-twice", b"2"),
        (b"X-Empty", b""),
        (b"X-Latin", b"caf\xe9 \xff\t"),
    ]
    seen = []

    async def script(line: Line) -> None:
        seen.append(await line.request())
        await line.send(OK)

    async with Provider(script) as provider:
        await send(transport, post(provider, headers=headers))
        host = b"127.0.0.1:%d" % provider.port
    sent = [tuple(line.split(b": ", 1)) for line in seen[0].split(b"\r\n")[1:-2]]
    assert sent == [(b"Host", host), (b"Content-Length", b"2"), *headers]


@pytest.mark.parametrize(
    ("method", "framing"), [("GET", []), ("POST", [b"Content-Length: 0"]), ("DELETE", [b"Content-Length: 0"])]
)
async def test_without_a_body_only_methods_that_could_have_one_speak_of_its_length(
    transport: HttpTransport, method: str, framing: list[bytes]
) -> None:
    seen = []

    async def script(line: Line) -> None:
        seen.append(await line.request())
        await line.send(OK)

    async with Provider(script) as provider:
        await send(transport, post(provider, method=method, body=b""))
    assert seen[0].split(b"\r\n")[2:-2] == framing


async def test_framing_headers_of_an_httpx_client_are_not_sent_twice(transport: HttpTransport) -> None:
    seen = []

    async def script(line: Line) -> None:
        seen.append(await line.request())
        await line.send(OK)

    async with Provider(script) as provider, httpx.AsyncClient(transport=transport) as client:
        await client.post(f"http://127.0.0.1:{provider.port}/", content=b"{}")
    assert seen[0].lower().count(b"host: ") == seen[0].lower().count(b"content-length: ") == 1


async def test_a_cookie_set_for_one_caller_is_not_sent_for_the_next(transport: HttpTransport) -> None:
    seen = []

    async def script(line: Line) -> None:
        while True:
            seen.append(await line.request())
            await line.send(b"HTTP/1.1 200 OK\r\nSet-Cookie: tenant=one; Path=/\r\nContent-Length: 0\r\n\r\n")

    async with Provider(script) as provider:
        # A name, not an address: cookie jars ignore addresses.
        await send(transport, post(provider, host="localhost"))
        await send(transport, post(provider, host="localhost"))
    assert len(seen) == 2
    assert b"cookie" not in seen[1].lower()


async def test_a_redirect_is_an_answer(transport: HttpTransport) -> None:
    async with Provider(sends(b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n")) as provider:
        response = await transport.handle_async_request(post(provider, method="GET", body=b""))
        await response.aread()
        assert (response.status_code, response.headers["location"]) == (302, "/other")
        assert provider.connections == 1


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 3_000_000])
async def test_a_body_of_any_size_arrives_whole_with_its_length(transport: HttpTransport, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    seen = []

    async def script(line: Line) -> None:
        head = await line.head()
        seen.append((head, await line.body(head)))
        await line.send(OK)

    async with Provider(script) as provider:
        assert await send(transport, post(provider, body=body)) == b"ok"
    head, received = seen[0]
    assert b"Content-Length: %d\r\n" % size in head
    assert b"transfer-encoding" not in head.lower()
    assert received == body


async def test_64_mib_are_sent_without_a_copy(transport: HttpTransport) -> None:
    body = bytes(64 * 1024 * 1024)

    async def reads_in_slices(line: Line) -> None:
        head = await line.head()
        assert b"Content-Length: 67108864\r\n" in head
        for _ in range(1024):
            await line.take(65_536)
        await line.send(OK)

    async with Provider(reads_in_slices) as provider:
        request = post(provider, body=body)
        tracemalloc.start()
        try:
            assert await send(transport, request) == b"ok"
            assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
        finally:
            tracemalloc.stop()


async def test_an_answer_given_before_the_body_was_read_is_the_answer(transport: HttpTransport) -> None:
    async def script(line: Line) -> None:
        await line.head()
        await line.send(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nhuge")
        line.close()

    async with Provider(script) as provider:
        response = await transport.handle_async_request(post(provider, body=bytes(8_000_000)))
        assert (response.status_code, await response.aread()) == (413, b"huge")


async def test_an_upload_that_is_answered_early_is_broken_off(transport: HttpTransport) -> None:
    """What it has left to send is not flushed to a provider that reads no more."""
    begun, stuck, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def script(line: Line) -> None:
        await line.head()
        line.stop_reading()
        begun.set()
        await stuck.wait()
        await line.send(OK)
        await over.wait()

    async with Provider(script) as provider, Provider(sends(OK)) as other:
        uploading = asyncio.create_task(transport.handle_async_request(post(provider, body=bytes(50_000_000))))
        await begun.wait()
        # Round trips elsewhere, while which the kernel takes of the upload what it will.
        for _ in range(20):
            await send(transport, post(other))
        stuck.set()
        response = await uploading
        assert await response.aread() == b"ok"
        await lost(transport, idle=1)
        over.set()


# What the caller gets


async def test_every_read_is_what_the_network_gave(transport: HttpTransport) -> None:
    went_on = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED, b"3\r\nabc\r\n2\r\nde\r\n")
        await went_on.wait()
        await line.send(b"1\r\nf\r\n0\r\n\r\n")

    async with Provider(script) as provider:
        response = await transport.handle_async_request(post(provider))
        reads = aiter(response.stream)
        assert await anext(reads) == b"abcde"
        went_on.set()
        assert await anext(reads) == b"f"
        with pytest.raises(StopAsyncIteration):
            await anext(reads)
        with pytest.raises(StopAsyncIteration):
            await anext(reads)


async def test_headers_of_the_answer_come_as_they_were(transport: HttpTransport) -> None:
    head = HEAD + b"X-B: 2\r\nx-a: caf\xe9\r\nX-B: 3\r\nContent-Length: 0\r\n\r\n"
    async with Provider(sends(head)) as provider:
        response = await transport.handle_async_request(post(provider))
    assert response.headers.raw == [(b"X-B", b"2"), (b"x-a", b"caf\xe9"), (b"X-B", b"3"), (b"Content-Length", b"0")]


async def test_a_header_of_20_kb_is_taken(transport: HttpTransport) -> None:
    async with Provider(sends(HEAD + b"X-Long: " + b"x" * 20_000 + b"\r\nContent-Length: 0\r\n\r\n")) as provider:
        response = await transport.handle_async_request(post(provider))
    assert len(response.headers["x-long"]) == 20_000


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("POST", HEAD + b"Content-Length: 0\r\n\r\n"),
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("POST", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", HEAD + b"Content-Length: 5\r\nContent-Encoding: br\r\n\r\n"),
        ("POST", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HEAD + b"Content-Length: 0\r\n\r\n"),
    ],
)
async def test_an_answer_without_a_body_has_ended_and_keeps_its_connection(
    transport: HttpTransport, method: str, answer: bytes
) -> None:
    async with Provider(sends(answer)) as provider:
        for _ in range(2):
            response = await transport.handle_async_request(post(provider, method=method, body=b""))
            assert response.extensions["ended"]()
            assert await response.aread() == b""
        assert provider.connections == 1


async def test_trailers_are_read_past(transport: HttpTransport) -> None:
    async with Provider(sends(CHUNKED, b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")) as provider:
        assert await send(transport, post(provider)) == b"ok"
        assert await send(transport, post(provider)) == b"ok"
        assert provider.connections == 1


async def test_a_body_may_last_until_the_connection_closes(transport: HttpTransport) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.0 200 OK\r\n\r\n", b"all of it")
        line.close()

    async with Provider(script) as provider:
        assert await send(transport, post(provider)) == b"all of it"


# Faults before the answer


async def test_a_refused_connection_names_peer_and_cause(transport: HttpTransport) -> None:
    port = free_port()
    with pytest.raises(httpx.ConnectError, match=f"^cannot connect to 127.0.0.1:{port}: connection refused$"):
        await send(transport, post(port))


async def test_a_name_without_address_is_a_failed_connection(transport: HttpTransport) -> None:
    with pytest.raises(httpx.ConnectError, match=r"^no address found for nonexistent\.invalid:80$"):
        await send(transport, post(80, host="nonexistent.invalid"))


async def test_a_certificate_of_nobody_known_is_a_tls_fault() -> None:
    async with Provider(sends(OK), tls=True) as provider, HttpTransport() as distrustful:
        with pytest.raises(TlsError, match=r"the certificate of 127\.0\.0\.1:\d+ is not accepted: self.signed"):
            await send(distrustful, post(provider, scheme="https"))


async def test_a_peer_that_speaks_no_tls_is_a_tls_fault(transport: HttpTransport) -> None:
    async def script(line: Line) -> None:
        await line.send(b"SSH-2.0-OpenSSH_9.9\r\n")

    async with Provider(script) as provider:
        with pytest.raises(TlsError, match="no TLS with"):
            await send(transport, post(provider, scheme="https"))


async def test_a_reset_in_the_handshake_is_a_failed_connection(transport: HttpTransport) -> None:
    async def script(line: Line) -> None:
        line.reset()

    async with Provider(script) as provider:
        with pytest.raises(httpx.ConnectError) as caught:
            await send(transport, post(provider, scheme="https"))
        assert not isinstance(caught.value, TlsError)


@pytest.mark.parametrize("how", [Line.close, Line.reset])
@pytest.mark.parametrize("before", [b"", b"HTTP/1", HEAD + b"X-Half: "])
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_new_connection_lost_before_the_answer_is_not_dialled_again(
    transport: HttpTransport, method: str, before: bytes, how: Callable[[Line], None]
) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(before)
        how(line)

    async with Provider(script) as provider:
        with pytest.raises(httpx.ReadError, match=f"127.0.0.1:{provider.port}"):
            await send(transport, post(provider, method=method))
        assert provider.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        HEAD + b"No colon\r\n\r\n",
        OK + b"and more, in the same read",
        CHUNKED + b"zz\r\nabc\r\n",
        HEAD + b"Content-Length: many\r\n\r\n",
        HEAD + b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_no_answer(transport: HttpTransport, answer: bytes) -> None:
    closed = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(answer)
        await line.gone()
        closed.set()

    async with Provider(script) as provider:
        with pytest.raises(httpx.RemoteProtocolError):
            await send(transport, post(provider))
        await closed.wait()


@pytest.mark.parametrize(
    "request_",
    [
        post(1, target=b"/a\r\nX-Smuggled: 1"),
        post(1, target=b"/a#b"),
        post(1, target="/é".encode()),
        post(1, headers=[(b"X-Split", b"a\r\nb: c")]),
        post(1, headers=[(b"X Space", b"a")]),
        post(1, headers=[(b"", b"a")]),
        post(1, headers=[(b"X-Null", b"a\0b")]),
        post(1, target=b"/a b"),
        post(1, target=b"a"),
        post(1, target=b""),
        post(1, method="GET /"),
        post(1, host="a" * 64 + ".invalid"),
    ],
)
async def test_a_request_that_cannot_be_written_is_not_sent(transport: HttpTransport, request_: httpx.Request) -> None:
    async with Provider(sends(OK)) as provider:
        request_.url = request_.url.copy_with(port=provider.port)
        with pytest.raises(httpx.LocalProtocolError, match=r"^the request cannot be sent as it is$"):
            await send(transport, request_)


# Faults in the answer


@pytest.mark.parametrize("how", [Line.close, Line.reset])
@pytest.mark.parametrize(
    ("head", "part"),
    [
        (CHUNKED, b"3\r\nabc\r\n"),
        (CHUNKED, b"9\r\nabc"),
        (HEAD + b"Content-Length: 30\r\n\r\n", b"abc"),
        (HEAD + b"Content-Length: 30\r\n\r\n", b""),
    ],
)
async def test_a_body_cut_short_gives_what_came_and_then_breaks(
    transport: HttpTransport, head: bytes, part: bytes, how: Callable[[Line], None]
) -> None:
    taken = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(head, part)
        await taken.wait()
        how(line)

    async with Provider(script) as provider:
        response = await transport.handle_async_request(post(provider))
        reads = aiter(response.stream)
        if part:
            assert await anext(reads) == b"abc"
        taken.set()
        for _ in range(2):
            with pytest.raises(httpx.ReadError, match=f"127.0.0.1:{provider.port} broke off its answer"):
                await anext(reads)
        await response.aclose()


@pytest.mark.parametrize("head", [CHUNKED + b"7\r\n", HEAD + b"Content-Length: 30\r\n\r\n", HEAD + b"\r\n"])
async def test_what_came_before_a_reset_is_read_even_when_the_reader_was_late(
    transport: HttpTransport, head: bytes
) -> None:
    closed = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(head, b"the end")
        await closed.wait()
        line.reset()

    async with Provider(script) as provider:
        response = await transport.handle_async_request(post(provider))
        # Not read yet: the connection is lost with the data that is held for the reader.
        closed.set()
        await lost(transport)
        reads = aiter(response.stream)
        assert await anext(reads) == b"the end"
        with pytest.raises(httpx.ReadError):
            await anext(reads)
        assert not response.extensions["ended"]()
        await response.aclose()


async def test_chunks_framed_wrongly_break_the_answer(transport: HttpTransport) -> None:
    taken = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED, b"3\r\nabc\r\n")
        await taken.wait()
        await line.send(b"zz\r\nabc\r\n")
        await line.gone()

    async with Provider(script) as provider:
        response = await transport.handle_async_request(post(provider))
        reads = aiter(response.stream)
        assert await anext(reads) == b"abc"
        taken.set()
        with pytest.raises(httpx.ReadError):
            await anext(reads)
        await response.aclose()


@pytest.mark.parametrize("late", [b"and more", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
async def test_what_comes_on_an_idle_connection_is_not_the_next_answer(transport: HttpTransport, late: bytes) -> None:
    taken, sent = asyncio.Event(), asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)
        if line.number == 0:
            await taken.wait()
            await line.send(late)
            sent.set()

    async with Provider(script) as provider, Provider(sends(OK)) as other:
        assert await send(transport, post(provider)) == b"ok"
        taken.set()
        await sent.wait()
        # A round trip elsewhere: after it, the loop has seen what came on the first connection.
        await send(transport, post(other))
        assert await send(transport, post(provider)) == b"ok"
        assert provider.connections == 2


TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"


@pytest.mark.parametrize("body", [b"", b"<html>408 Request Time-out</html>"])
async def test_a_408_on_a_reused_connection_is_dialled_once_more(transport: HttpTransport, body: bytes) -> None:
    """As haproxy and others close an idle connection, while the next request is on its way."""

    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)
        if line.number == 0:
            await line.request()
            await line.send(TIMED_OUT % (len(body), body))

    async with Provider(script) as provider:
        assert await send(transport, post(provider)) == b"ok"
        assert await send(transport, post(provider)) == b"ok"
        assert provider.connections == 2


async def test_a_408_on_a_new_connection_is_the_answer(transport: HttpTransport) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK if line.number == 0 else TIMED_OUT % (0, b""))
        if line.number == 0:
            await line.request()
            await line.send(TIMED_OUT % (0, b""))

    async with Provider(script) as provider:
        assert await send(transport, post(provider)) == b"ok"
        answer = await transport.handle_async_request(post(provider))
        assert answer.status_code == 408
        await answer.aclose()
        assert provider.connections == 2


async def test_closing_the_transport_breaks_what_is_being_read() -> None:
    transport = HttpTransport()
    async with Provider(sends(CHUNKED, b"3\r\nabc\r\n")) as provider:
        response = await transport.handle_async_request(post(provider))
        reads = aiter(response.stream)
        assert await anext(reads) == b"abc"
        reading = asyncio.ensure_future(anext(reads))
        await transport.aclose()
        with pytest.raises(httpx.ReadError):
            await reading
        await response.aclose()


async def test_closing_the_transport_breaks_what_waits_for_an_answer() -> None:
    transport, asked = HttpTransport(), asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        asked.set()
        await line.gone()

    async with Provider(script) as provider:
        waiting = asyncio.create_task(send(transport, post(provider)))
        await asked.wait()
        await transport.aclose()
        with pytest.raises(httpx.ReadError):
            await waiting


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"", httpx.ReadError),
        (b"SSH-2.0-OpenSSH_9.9\r\n", httpx.RemoteProtocolError),
        (HEAD + b"Content-Encoding: compress\r\nContent-Length: 9\r\n\r\nabc", httpx.DecodingError),
        (None, httpx.ConnectError),
    ],
)
async def test_a_request_that_failed_is_freed_without_the_garbage_collector(
    transport: HttpTransport, answer: bytes | None, fault: type[Exception]
) -> None:
    """A traceback refers to its frames, and they may refer to the error: such a cycle would delay the release."""

    async def script(line: Line) -> None:
        await line.request()
        await line.send(answer or b"")
        line.reset()

    async with Provider(script) as provider:
        request = post(provider if answer is not None else free_port())
        freed = weakref.ref(request)
        gc.disable()
        try:
            with pytest.raises(fault):
                await send(transport, request)
            del request
            await turns()
            assert freed() is None
        finally:
            gc.enable()


# Connections


async def test_an_answer_read_to_its_end_leaves_its_connection_to_the_next(transport: HttpTransport) -> None:
    async with Provider(sends(CHUNKED, b"2\r\nok\r\n0\r\n\r\n")) as provider:
        for _ in range(3):
            assert await send(transport, post(provider)) == b"ok"
        assert provider.connections == 1


async def test_150_streams_to_one_host_run_at_once(transport: HttpTransport) -> None:
    everybody = asyncio.Barrier(150)

    async def script(line: Line) -> None:
        await line.request()
        await everybody.wait()
        await line.send(OK)

    async with Provider(script) as provider:
        assert await asyncio.gather(*(send(transport, post(provider)) for _ in range(150))) == [b"ok"] * 150


async def test_a_connection_that_the_provider_closed_while_idle_is_not_used(transport: HttpTransport) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)
        line.close()

    async with Provider(script) as provider:
        for _ in range(5):
            assert await send(transport, post(provider, body=b"x" * 200_000)) == b"ok"


@pytest.mark.parametrize("body", [b"", b"{}", bytes(1_000_000)])
@pytest.mark.parametrize("how", [Line.close, Line.reset])
async def test_a_kept_connection_that_fails_is_dialled_once_more_past_all_other_kept_ones(
    transport: HttpTransport, how: Callable[[Line], None], body: bytes
) -> None:
    """Three connections wait in the pool, and the provider drops each when it is used again."""
    together = asyncio.Barrier(3)

    async def script(line: Line) -> None:
        await line.request()
        if line.number < 3:
            await together.wait()
        await line.send(OK)
        await line.head()
        how(line)

    connected = []
    async with Provider(script) as provider:
        await asyncio.gather(*(send(transport, post(provider)) for _ in range(3)))
        request = post(provider, body=body, on_connected=lambda: connected.append(1))
        assert await send(transport, request) == b"ok"
        assert provider.connections == 4
    assert connected == [1]


async def test_the_second_dial_is_the_last(transport: HttpTransport) -> None:
    async def script(line: Line) -> None:
        await line.request()
        if line.number == 0:
            await line.send(OK)
            await line.request()
        line.reset()

    async with Provider(script) as provider:
        await send(transport, post(provider))
        with pytest.raises(httpx.ReadError):
            await send(transport, post(provider))
        assert provider.connections == 2


async def test_a_kept_connection_that_fails_in_its_answer_is_not_dialled_again(transport: HttpTransport) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)
        await line.request()
        await line.send(b"HTTP/1.1 200")
        line.close()

    async with Provider(script) as provider:
        await send(transport, post(provider))
        with pytest.raises(httpx.ReadError):
            await send(transport, post(provider))
        assert provider.connections == 1


async def test_on_connected_is_called_once_before_the_answer(transport: HttpTransport) -> None:
    connected = asyncio.Event()
    calls = []

    def on_connected() -> None:
        calls.append(1)
        connected.set()

    async def script(line: Line) -> None:
        while True:
            await line.request()
            await connected.wait()
            connected.clear()
            await line.send(OK)

    async with Provider(script) as provider:
        for expected in ([1], [1, 1]):  # on a new connection, and on a kept one
            await send(transport, post(provider, on_connected=on_connected))
            assert calls == expected


# Nobody wants it any more


@pytest.mark.parametrize("tls", [False, True])
async def test_closing_an_answer_half_read_closes_its_connection_at_once(transport: HttpTransport, tls: bool) -> None:
    closed = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED, b"3\r\nabc\r\n")
        await line.gone()
        closed.set()

    async with Provider(script, tls=tls) as provider:
        response = await transport.handle_async_request(post(provider, scheme="https" if tls else "http"))
        await anext(aiter(response.stream))
        await response.aclose()
        await closed.wait()


async def test_closing_an_answer_does_not_wait_for_a_goodbye_in_tls(transport: HttpTransport) -> None:
    """From a provider that reads no more, none would come."""

    async def script(line: Line) -> None:
        await line.request()
        line.stop_reading()
        await line.send(CHUNKED, b"3\r\nabc\r\n")

    async with Provider(script, tls=True) as provider:
        response = await transport.handle_async_request(post(provider, scheme="https"))
        await anext(aiter(response.stream))
        await response.aclose()
        await lost(transport)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("size", [2, 50_000_000])
async def test_cancelling_the_wait_for_the_answer_closes_the_connection_at_once(
    transport: HttpTransport, size: int, tls: bool
) -> None:
    """Also when the provider has stopped to read what is being sent."""
    asked, closed = asyncio.Event(), asyncio.Event()

    async def script(line: Line) -> None:
        await line.head()
        asked.set()
        with suppress(asyncio.CancelledError):
            await line.gone()
        closed.set()

    async with Provider(script, tls=tls) as provider:
        request = post(provider, scheme="https" if tls else "http", body=bytes(size))
        waiting = asyncio.create_task(send(transport, request))
        await asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await closed.wait()


async def test_cancelling_a_dial_closes_its_socket_at_once(transport: HttpTransport) -> None:
    """The provider takes the connection and leaves the TLS handshake unanswered."""
    dialled, closed = asyncio.Event(), asyncio.Event()

    async def script(line: Line) -> None:
        await line.take(1)
        dialled.set()
        await line.gone()
        closed.set()

    async with Provider(script) as provider:
        waiting = asyncio.create_task(send(transport, post(provider, scheme="https")))
        await dialled.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await closed.wait()


async def test_cancelling_a_read_takes_nothing_away(transport: HttpTransport) -> None:
    went_on = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED)
        await went_on.wait()
        await line.send(b"2\r\nok\r\n0\r\n\r\n")

    async with Provider(script) as provider:
        response = await transport.handle_async_request(post(provider))
        reading = asyncio.ensure_future(anext(aiter(response.stream)))
        await asyncio.wait([reading], timeout=0)
        reading.cancel()
        await asyncio.wait([reading])
        went_on.set()
        assert await response.aread() == b"ok"


# Pauses


@pytest.mark.parametrize("tls", [False, True])
async def test_a_paused_body_stops_its_provider_and_loses_nothing(transport: HttpTransport, tls: bool) -> None:
    size = 30_000_000
    sent, finished = [], asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(HEAD + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size // 100_000):
            await line.send(bytes(100_000))
            sent.append(100_000)
        finished.set()

    async with Provider(script, tls=tls) as provider, Provider(sends(OK)) as other:
        response = await transport.handle_async_request(post(provider, scheme="https" if tls else "http"))
        assert isinstance(response.stream, PushedBody)
        received = Collector(response.stream).start()
        received.pause()
        for _ in range(200):  # round trips elsewhere, while which the kernel takes of the body what it will
            await send(transport, post(other))
        assert len(received.text) + sum(sent) < size / 2
        received.resume()
        await finished.wait()
        await until(lambda: received.is_ended)
        assert sum(map(len, received.reads)) == size
        await response.aclose()


async def test_an_address_of_ipv6_is_dialled(transport: HttpTransport) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    seen = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        writer.close()

    async with await asyncio.start_server(answer, "::1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await send(transport, post(port, host="::1", body=b"")) == b"ok"
    assert b"\r\nHost: [::1]:%d\r\n" % port in seen[0]


# Content codings


def raw_deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()


@pytest.mark.parametrize(
    ("coding", "coded"),
    [(b"gzip", gzip.compress(b"plain" * 99)), (b"Deflate", raw_deflate(b"plain" * 99)), (b"identity", b"plain" * 99)],
)
async def test_a_coded_body_is_handed_out_plain(transport: HttpTransport, coding: bytes, coded: bytes) -> None:
    answer = HEAD + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding, len(coded))
    async with Provider(sends(answer, coded)) as provider:
        for _ in range(2):
            response = await transport.handle_async_request(post(provider))
            assert b"".join([part async for part in response.stream]) == b"plain" * 99
        assert provider.connections == 1


HIDDEN = {
    "gzip": gzip.compress(b"plain" * 99),
    "zstd": zstandard.ZstdCompressor().compress(b"plain" * 99),
}
TYPES = [
    "application/json",
    "text/event-stream; charset=utf-8",
    "TEXT/plain",
    "application/x-ndjson",
    "application/jsonl",
    "application/stream+json",
]


def labelled(type_: str, body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (status, type_.encode(), len(body)) + body


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("coded", HIDDEN.values(), ids=HIDDEN)
async def test_a_body_that_is_coded_without_saying_so_is_handed_out_plain(
    transport: HttpTransport, type_: str, coded: bytes
) -> None:
    async with Provider(sends(labelled(type_, coded))) as provider:
        for _ in range(2):
            response = await transport.handle_async_request(post(provider))
            assert b"".join([part async for part in response.stream]) == b"plain" * 99
            assert response.extensions["ended"]()
        assert provider.connections == 1


async def test_a_hidden_coding_may_hold_nothing(transport: HttpTransport) -> None:
    async with Provider(sends(labelled("application/json", gzip.compress(b"")))) as provider:
        assert await send(transport, post(provider)) == b""


async def test_its_first_bytes_may_come_one_by_one(transport: HttpTransport) -> None:
    coded = HIDDEN["gzip"]

    async def script(line: Line) -> None:
        await line.request()
        answer = labelled("application/json", coded)
        await line.send(answer[: -len(coded)])
        for byte in coded:
            await line.send(bytes([byte]))
            await asyncio.sleep(0)

    async with Provider(script) as provider:
        assert await send(transport, post(provider)) == b"plain" * 99


UNTOUCHED = {
    "a part of a file": labelled("application/json", HIDDEN["gzip"], b"206 Partial Content"),
    "another type": labelled("application/octet-stream", HIDDEN["gzip"]),
    "an image": labelled("image/png", HIDDEN["zstd"]),
    "no type": HEAD + b"Content-Length: %d\r\n\r\n" % len(HIDDEN["gzip"]) + HIDDEN["gzip"],
    "no gzip after all": labelled("text/plain", b"\x1f\x8b\x08 and something else"),
    "no zstd after all": labelled("text/plain", b"\x28\xb5\x2f\xfd\xff\xff\xff\xff"),
    "the beginning of a mark": labelled("text/plain", b"\x1f\x8b"),
    "plain": labelled("application/json", b"{}"),
}


@pytest.mark.parametrize("answer", UNTOUCHED.values(), ids=UNTOUCHED)
async def test_other_bodies_stay_as_they_came(transport: HttpTransport, answer: bytes) -> None:
    async with Provider(sends(answer)) as provider:
        response = await transport.handle_async_request(post(provider))
        assert b"".join([part async for part in response.stream]) == answer.partition(b"\r\n\r\n")[2]
        assert response.extensions["ended"]()


async def test_an_answer_to_head_is_not_looked_into(transport: HttpTransport) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n"
    async with Provider(sends(answer)) as provider:
        response = await transport.handle_async_request(post(provider, method="HEAD", body=b""))
        assert response.extensions["ended"]()


async def test_a_hidden_coding_that_breaks_off_breaks_the_body(transport: HttpTransport) -> None:
    async with Provider(sends(labelled("application/json", HIDDEN["gzip"][:-9]))) as provider:
        with pytest.raises(httpx.ReadError):
            await send(transport, post(provider))


async def test_a_hidden_bomb_comes_in_bounded_pieces(transport: HttpTransport) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    async with Provider(sends(labelled("application/json", bomb))) as provider:
        response = await transport.handle_async_request(post(provider))
        sizes = [len(piece) async for piece in response.stream]
    assert (sum(sizes), max(sizes)) == (20_000_000, 65_536)


async def test_an_unknown_coding_is_a_fault_and_closes_the_connection(transport: HttpTransport) -> None:
    closed = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(HEAD + b"Content-Encoding: compress\r\nContent-Length: 99\r\n\r\nabc")
        await line.gone()
        closed.set()

    async with Provider(script) as provider:
        with pytest.raises(httpx.DecodingError, match="compress"):
            await send(transport, post(provider))
        await closed.wait()


async def test_a_bomb_lets_the_others_have_their_turns(transport: HttpTransport) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with Provider(
        sends(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb), bomb)
    ) as provider:
        response = await transport.handle_async_request(post(provider))
        await anext(reads := aiter(response.stream))
        running = asyncio.create_task(other())
        sizes = [len(piece) async for piece in reads]
        running.cancel()
    assert max(sizes) <= 65_536
    assert turns >= len(sizes) - 10


@pytest.mark.parametrize(
    ("coded", "fault"), [(gzip.compress(b"x" * 999)[:-9], httpx.ReadError), (b"not gzip", httpx.DecodingError)]
)
async def test_a_coded_body_that_is_not_whole_breaks(
    transport: HttpTransport, coded: bytes, fault: type[Exception]
) -> None:
    answer = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(coded)
    async with Provider(sends(answer, coded)) as provider:
        with pytest.raises(fault):
            await send(transport, post(provider))
