"""Replay tapes over real sockets to clients that know nothing of tapes."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import aiohttp
import httpx
import orjson
import pytest
from yarl import URL

from bridge.replay.server import ReplayServer
from bridge.tapes.file import StreamEnd, Tape, TapeHead, pairs, read_tape
from bridge.tapes.library import Library
from tests.support.clock import advance, turns
from tests.support.paths import FIXTURES
from tests.support.tapes import BODY, chunk_data, folder_of, replaying, tape

FIXTURES = FIXTURES / "tapes"
TAPES = {folder.name: sorted(folder.rglob("*.jsonl")) for folder in FIXTURES.iterdir()}
PATH = "/v1/chat?a=1&b=2"
FRAMING = {"transfer-encoding", "connection", "content-length", "content-encoding"}
AT_ONCE = TapeHead(status=200, headers={"content-type": "text/plain"}, ms=0)

Pairs = list[tuple[str, str]]


@asynccontextmanager
async def server_of(folder: Path, *tapes: Tape, pace: float = 0.0) -> AsyncIterator[ReplayServer]:
    async with replaying(Library(folder_of(folder, *tapes), pace=pace)) as server:
        yield server


@asynccontextmanager
async def requested(
    server: ReplayServer,
    path: str = PATH,
    body: bytes = BODY,
    method: str = "POST",
    headers: Pairs | None = None,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a request and wait for the response's head; the test reads the body."""
    url = URL(server.url + path, encoded=True)
    async with (
        aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=["Content-Type"]) as session,
        session.request(method, url, data=BytesIO(body), headers=headers, allow_redirects=False) as response,
    ):
        yield response


async def chunks_of(response: aiohttp.ClientResponse, at_most: int = 1 << 30) -> list[bytes]:
    """Return the HTTP chunks of a response up to its end, or the first `count`."""
    chunks, part = list[bytes](), b""
    if at_most == 0:
        return chunks
    async for data, ends_chunk in response.content.iter_chunks():
        part += data
        if ends_chunk and part:
            chunks.append(part)
            part = b""
        if len(chunks) == at_most:
            break
    return chunks


async def said_by(server: ReplayServer, path: str, body: bytes = BODY, **headers: str) -> tuple[int, str]:
    """Return status and text. Underscores in names of headers stand for hyphens."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    async with requested(server, path, body, headers=named) as response:
        return response.status, await response.text()


class Line:
    """One TCP connection that is read byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def ask(self, *headers: str, body: bytes = BODY, size: int = len(BODY), http: str = "1.1") -> None:
        lines = (f"POST {PATH} HTTP/{http}", "Host: localhost", f"Content-Length: {size}", *headers, "", "")
        self.writer.write("\r\n".join(lines).encode() + body)

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")


@asynccontextmanager
async def line_to(server: ReplayServer) -> AsyncIterator[Line]:
    url = URL(server.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


# The answer.


@pytest.mark.parametrize("provider", sorted(TAPES))
async def test_the_tapes_of_a_provider_are_replayed_to_the_byte(provider: str) -> None:
    """Status, headers, chunks with their boundaries and the end are compared; the request has only the path."""
    async with replaying(Library(FIXTURES / provider, pace="instant")) as server:
        for path in TAPES[provider]:
            await check_replayed(server, read_tape(path))


async def check_replayed(server: ReplayServer, taped: Tape) -> None:
    request, head = taped.request, taped.head
    target = URL(request.url, encoded=True).raw_path_qs
    wanted = [data for data in chunk_data(taped) if data]
    received = requested(server, target, request.body, request.method, list(pairs(request.headers)))
    if head is None:
        await check_end(received.__aenter__(), taped.ending.end)
        return
    async with received as response:
        assert response.status == head.status, await response.text()
        expected = [(name.lower(), value) for name, value in pairs(head.headers) if name.lower() not in FRAMING]
        assert plain(response) == expected
        assert await chunks_of(response, len(wanted)) == wanted
        await check_end(response.content.read(), taped.ending.end)


def plain(response: aiohttp.ClientResponse) -> Pairs:
    """Return all headers except those of the framing, in order."""
    named = [(name.lower(), value) for name, value in response.headers.items()]
    return [(name, value) for name, value in named if name not in FRAMING]


async def check_end(rest: Coroutine[object, object, object], end: StreamEnd) -> None:
    """Check the end of a response. `rest` waits for data after the last chunk."""
    waiting = asyncio.create_task(rest)
    if end is StreamEnd.EOF:
        assert await waiting == b""
    elif end is StreamEnd.RESET:
        with pytest.raises(aiohttp.ClientError):
            await waiting
    else:
        await turns(50)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_headers_are_those_of_the_recording_but_for_its_framing(tmp_path: Path) -> None:
    recorded = [
        ("X-Double", "1"),
        ("Content-Length", "999"),
        ("X-Double", "2"),
        ("Transfer-Encoding", "gzip"),
        ("Content-Encoding", "br"),
        ("Connection", "close"),
        ("Keep-Alive", "timeout=5"),
        ("Set-Cookie", "a=b"),
        ("Server", "cloudflare"),
    ]
    async with (
        server_of(tmp_path, tape(b"text", head=TapeHead(status=201, headers=recorded, ms=0))) as server,
        requested(server) as response,
    ):
        assert (response.status, await response.read()) == (201, b"text")
        assert list(response.headers.items()) == [
            ("X-Double", "1"),
            ("X-Double", "2"),
            ("Set-Cookie", "a=b"),
            ("Server", "cloudflare"),
            ("Transfer-Encoding", "chunked"),
        ]


async def test_each_chunk_leaves_at_its_instant_in_a_write_of_its_own(tmp_path: Path) -> None:
    slow = tape(b"one", b"two" * 20_000, head=AT_ONCE, method="POST")
    async with server_of(tmp_path, slow, pace=100.0) as server, line_to(server) as line:
        line.ask()
        assert (await line.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        for written in (b"3\r\none\r\n", b"ea60\r\n" + b"two" * 20_000 + b"\r\n", b"0\r\n\r\n"):
            early = asyncio.create_task(line.reader.readexactly(len(written)))
            await turns()
            assert not early.done()
            advance(20 if written.startswith(b"3") else 10)
            assert await early == written


async def test_an_empty_chunk_does_not_end_the_response(tmp_path: Path) -> None:
    async with server_of(tmp_path, tape(b"one", b"", b"two")) as server, requested(server) as response:
        assert await chunks_of(response) == [b"one", b"two"]


async def test_a_recorded_reset_is_replayed_after_all_data_before_it(tmp_path: Path) -> None:
    large = b"x" * 1_000_000
    async with server_of(tmp_path, tape(b"one", large, end=StreamEnd.RESET)) as server, line_to(server) as line:
        line.ask()
        await line.head()
        written = b"3\r\none\r\n" + b"f4240\r\n" + large + b"\r\n"
        assert await line.reader.readexactly(len(written)) == written
        with pytest.raises(ConnectionResetError):
            await line.reader.read()


async def test_a_reset_before_the_head_sends_no_byte(tmp_path: Path) -> None:
    async with server_of(tmp_path, tape(head=None, end=StreamEnd.RESET)) as server, line_to(server) as line:
        line.ask()
        with pytest.raises(ConnectionResetError):
            await line.reader.read(1)


@pytest.mark.parametrize("end", [StreamEnd.STALL, StreamEnd.CLIENT])
async def test_a_stall_lasts_until_the_client_leaves(tmp_path: Path, end: StreamEnd) -> None:
    async with server_of(tmp_path, tape(b"one", end=end)) as server:
        async with requested(server) as response:
            assert await chunks_of(response, 1) == [b"one"]
            advance(86_400)
            await turns()
            assert server.playing == 1
        while server.playing:
            await turns()


async def test_stopping_does_not_wait_for_answers(tmp_path: Path) -> None:
    server = ReplayServer(Library(folder_of(tmp_path, tape(b"one", end=StreamEnd.STALL)), pace="instant"))
    await server.start()
    async with requested(server) as response:
        assert await chunks_of(response, 1) == [b"one"]
        await server.stop()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert server.playing == 0


async def test_a_connection_serves_one_answer_after_the_other(tmp_path: Path) -> None:
    async with server_of(tmp_path, tape(b"one"), tape(b"two")) as server, line_to(server) as line:
        for text in (b"one", b"two"):
            line.ask()
            await line.head()
            assert await line.reader.readuntil(b"0\r\n\r\n") == b"3\r\n" + text + b"\r\n0\r\n\r\n"


async def test_a_client_of_http_1_0_gets_the_plain_body(tmp_path: Path) -> None:
    async with server_of(tmp_path, tape(b"one", b"two")) as server, line_to(server) as line:
        line.ask(http="1.0")
        assert b"chunked" not in await line.head()
        assert await line.reader.read() == b"onetwo"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 204), ("GET", 304)])
async def test_a_response_that_must_not_have_a_body_has_none(tmp_path: Path, method: str, status: int) -> None:
    bodyless = tape(b"body", method=method, head=TapeHead(status=status, headers={"x-kept": "yes"}, ms=0))
    async with server_of(tmp_path, bodyless) as server, requested(server, method=method) as response:
        assert (response.status, response.headers["x-kept"]) == (status, "yes")
        assert await response.read() == b""


# The request.


@pytest.mark.parametrize("body", [b"\x00\xff" * 1_000_000, gzip.compress(b"text", mtime=0), b""])
async def test_a_body_arrives_as_it_was_sent_however_large(tmp_path: Path, body: bytes) -> None:
    async with server_of(tmp_path, tape(b"one", body=body)) as server:
        assert await said_by(server, PATH, body, content_encoding="gzip") == (200, "one")


async def test_a_client_that_expects_100_continue_gets_it(tmp_path: Path) -> None:
    async with server_of(tmp_path, tape(b"one")) as server, line_to(server) as line:
        line.ask("Expect: 100-continue", body=b"", size=len(BODY))
        assert await line.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.writer.write(BODY)
        assert (await line.head()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_any_method_and_path_is_replayed(tmp_path: Path) -> None:
    odd = "https://api.example.com/v1/models/@cf/meta%2Fllama%0A:run?q=a%20b"
    async with (
        server_of(tmp_path, tape(b"one", url=odd, method="PATCH")) as server,
        requested(server, odd.removeprefix("https://api.example.com"), method="PATCH") as response,
    ):
        assert await response.text() == "one"


async def test_httpx_is_answered_like_any_client(tmp_path: Path) -> None:
    async with server_of(tmp_path, tape(b"one", b"two")) as server, httpx.AsyncClient(trust_env=False) as client:
        response = await client.post(f"{server.url}/v1/chat?b=2&a=1", content=BODY)
        assert (response.status_code, response.text, response.headers["content-type"]) == (200, "onetwo", "text/plain")


# The host.

OTHER = "https://other.example.com:8443/v1/chat?a=1&b=2"


@pytest.mark.parametrize(
    ("path", "headers", "text"),
    [
        ("/api.example.com" + PATH, {}, "one"),
        ("/other.example.com:8443" + PATH, {}, "two"),
        (PATH, {"x_bridge_host": "api.example.com"}, "one"),
        (PATH, {"x_bridge_host": "other.example.com:8443"}, "two"),
    ],
)
async def test_the_host_is_chosen_by_path_or_header(
    tmp_path: Path, path: str, headers: dict[str, str], text: str
) -> None:
    async with server_of(tmp_path, tape(b"one"), tape(b"two", url=OTHER)) as server:
        assert await said_by(server, path, **headers) == (200, text)


async def test_ambiguous_hosts_are_named_to_a_client_that_chose_none(tmp_path: Path) -> None:
    async with server_of(tmp_path, tape(b"one"), tape(b"two", url=OTHER)) as server:
        status, text = await said_by(server, PATH)
    assert status == 404
    assert "in the header x-bridge-host: api.example.com, other.example.com:8443" in text


# What is not answered.


async def test_a_miss_is_an_error_that_no_client_retries_and_names_the_nearest_tape(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with server_of(tmp_path, tape(b"one")) as server, requested(server, body=b'{"model":"large"}') as response:
        assert (response.status, response.content_type) == (404, "application/json")
        assert await response.json() == {
            "type": "error",
            "error": {
                "type": "tape_miss",
                "code": "tape_miss",
                "message": "No tape for POST /v1/chat?a=1&b=2\n"
                f"The nearest is {tmp_path.name}/case-0.jsonl; sent ≠ taped:\n"
                '  model: "large" ≠ "small"\n'
                '  messages: (absent) ≠ [{"role": "user", "content": "Say hello"}]',
            },
        }
    assert 'model: "large" ≠ "small"' in caplog.text


@pytest.mark.parametrize(
    ("path", "headers", "status", "words"),
    [
        ("/v1/chats", {}, 404, "No tape for this path; there are tapes for:"),
        (PATH, {"x_bridge_host": "unknown.example"}, 404, "No tape for this host and path; there are tapes for:"),
        (PATH, {"x_bridge_host": "[::1"}, 400, "Invalid URL"),
        (PATH, {"x_bridge_fault": "explode"}, 400, "invalid fault 'explode'"),
    ],
)
async def test_an_invalid_request_gets_a_json_error(
    tmp_path: Path, path: str, headers: dict[str, str], status: int, words: str
) -> None:
    async with server_of(tmp_path, tape(b"one")) as server:
        received, text = await said_by(server, path, **headers)
    assert received == status
    assert words in text


async def test_a_port_in_use_is_refused_and_nothing_stays_open(tmp_path: Path) -> None:
    library = Library(folder_of(tmp_path, tape(b"one")))
    async with replaying(library) as server:
        with pytest.raises(OSError, match="address already in use"):
            await ReplayServer(library, port=URL(server.url).port or 0).start()


async def test_tapes_of_an_ipv6_address_are_replayed(tmp_path: Path) -> None:
    server = ReplayServer(Library(folder_of(tmp_path, tape(b"one")), pace="instant"), host="::1")
    try:
        await server.start()
    except OSError:
        pytest.skip("no IPv6 here")
    assert server.url.startswith("http://[::1]:")
    assert await said_by(server, PATH) == (200, "one")
    await server.stop()


async def test_the_nearest_tape_is_named_as_the_readme_shows() -> None:
    taped = read_tape(FIXTURES / "openai" / "chat-plain.jsonl")
    async with replaying(Library(FIXTURES, pace="instant")) as server:
        status, text = await said_by(
            server, "/api.openai.com/v1/chat/completions", taped.request.body.replace(b"Say hello.", b"Say hi.")
        )
    assert status == 404
    assert orjson.loads(text)["error"]["message"].splitlines()[1:] == [
        "The nearest is openai/chat-plain.jsonl; sent ≠ taped:",
        '  messages[0].content: "Say hi." ≠ "Say hello."',
    ]
