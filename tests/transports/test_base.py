"""What an SDK gets over the bridge is what it would get from the provider itself, and what goes wrong is told in the
words of its own HTTP library."""

import asyncio
import gc
import gzip
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx as library
import pytest

import bridge.transports
from bridge.transports.httpx import AsyncBridgeTransport, BridgeTransport
from tests.support.clock import turns, until
from tests.support.socket_provider import Line, Provider
from tests.support.transport_variants import (
    GATEWAY,
    BridgeWithProvider,
    Client,
    LibraryVariant,
    bridge_with_provider,
    dropping_bridge,
    each,
    every_variant,
    free_port,
    opened,
    recording_script,
)

HIDDEN = {"content-length", "content-encoding", "transfer-encoding", "connection"}
"""Not carried: what they say is not so any more."""


def sized(body: bytes, *head: bytes, status: bytes = b"200 OK") -> bytes:
    lines = (b"HTTP/1.1 " + status, *head, b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


LAST_CHUNK = b"0\r\n\r\n"


def chunked(*parts: bytes, of: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % of
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + LAST_CHUNK


JSON = b"Content-Type: application/json"
SSE = (
    b": hello\n\n",
    b'data: {"choices":[{"index":0,"delta":{"content":"caf\xc3\xa9"},"finish_reason":"stop"}]}\r\n\r\n',
    b"data: [DONE]\n\n",
)

ANSWERS = {
    "JSON": sized(b' {"a" : 1.0}\n', JSON, b"X-Request-Id: one", b"x-twice: 1", b"X-Twice: 2"),
    "headers of UTF-8": sized(b"{}", JSON, 'Content-Disposition: attachment; filename="\u62a5\u544a.pdf"'.encode()),
    "headers of Latin-1": sized(b"{}", JSON, b"X-City: Z\xfcrich"),
    "an error whose headers are of UTF-8": sized(
        b"{}", JSON, b"X-City: Z\xc3\xbcrich", status=b"429 Too Many Requests"
    ),
    "JSON null": sized(b"null", JSON),
    "no JSON after all": sized(b'{"a":', JSON),
    "no JSON and no UTF-8": sized(b'{"a":\xff', JSON),
    "nothing": sized(b"", JSON),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "text": sized(b'"quoted"', b"Content-Type: text/plain; charset=utf-8"),
    "text of another charset": sized(b"caf\xe9", b"Content-Type: text/plain; charset=latin-1"),
    "bytes": sized(bytes(range(256)), b"Content-Type: application/octet-stream"),
    "without a type": sized(b'"abc"'),
    "compressed": sized(gzip.compress(b'{"a":1}'), JSON, b"Content-Encoding: gzip"),
    "in chunks": chunked(b'{"a"', b":1}", of=b"application/json"),
    "a stream": chunked(*SSE, of=b"text/event-stream; charset=utf-8"),
    "a stream in one go": sized(b"".join(SSE), b"Content-Type: text/event-stream"),
    "lines": chunked(b'{"a":1}\n{"a"', b":2}\n", of=b"application/x-ndjson"),
    "audio": chunked(bytes(range(256)), b"\0\1", of=b"audio/mpeg"),
    "not now": sized(
        b'{"error":{}}', JSON, b"Retry-After: 7", b"x-should-retry: true", status=b"429 Too Many Requests"
    ),
    "headers in UTF-8": sized(
        b'{"error":{}}', JSON, "x-why: 报告 🚀".encode(), b"x-should-retry: false", status=b"429 Too Many Requests"
    ),
    "headers in Latin-1": sized(b"%PDF", b"content-disposition: attachment; filename=caf\xe9.pdf"),
    "not ever": sized(b"<h1>no</h1>", b"Content-Type: text/html", status=b"404 Not Found"),
    "broken inside": sized(b'{"error":{"message":"m"}}', JSON, status=b"500 Internal Server Error"),
    "elsewhere": sized(b"", b"Location: https://api.openai.com/v1/x", status=b"302 Found"),
    "not modified": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
}


def shown_headers(headers: Any) -> Mapping[str, str]:
    return {name: value for name, value in headers.items() if name not in HIDDEN and not name.startswith("cf-aig-")}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@every_variant
async def test_an_answer_is_that_of_direct_http(way: LibraryVariant, answer: bytes, tmp_path: Path) -> None:
    async with bridge_with_provider(recording_script([], answer), tmp_path) as at:

        async def script(client: Client) -> tuple[object, ...]:
            response = await client.get("POST", f"{at.base}/files", json={"a": 1})
            return response.status_code, shown_headers(response.headers), response.content

        direct = await way.use(None, script)
        assert await way.use(way.transport(at.url, routes=at.routes), script) == direct


REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a query": ("GET", "/files?limit=2&after=a%2Fb", {}),
    "a head": ("HEAD", "/files", {}),
    "JSON": ("POST", "/chat:stream", {"json": {"model": "é", "stream": True}}),
    "JSON as it is": (
        "POST",
        "/chat",
        {"content": b'{"a":  1.0,\n"a":2}', "headers": {"content-type": "application/json"}},
    ),
    "a form": ("PATCH", "/x", {"data": {"a": "1 2", "b": "é"}}),
    "bytes": ("PUT", "/x", {"content": bytes(range(256))}),
    "files": (
        "POST",
        "/files",
        {"data": {"purpose": "batch"}, "files": {"file": ("a.bin", bytes(range(256)), "audio/wav")}},
    ),
    "an empty body": ("POST", "/files/f/cancel", {}),
    "nothing to say": ("DELETE", "/files/f", {}),
    "headers": ("GET", "/x", {"headers": [("authorization", "Bearer k"), ("x-a", "1"), ("x-a", "2"), ("accept", "b")]}),
}
ON_THE_WAY = {b"host", b"accept-encoding", b"connection", b"content-length"}


def parsed_head(head: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    line, *fields = head.rstrip().split(b"\r\n")
    headers: dict[bytes, bytes] = {}
    for name, _, value in (field.partition(b": ") for field in fields):
        if name.lower() not in ON_THE_WAY:
            headers[name.lower()] = headers[name.lower()] + b", " + value if name.lower() in headers else value
    return line, headers


@pytest.mark.parametrize(("method", "path", "arguments"), REQUESTS.values(), ids=REQUESTS)
@every_variant
async def test_a_request_is_that_of_direct_http(
    way: LibraryVariant,
    method: str,
    path: str,
    arguments: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.urandom", bytes)  # of which the boundary of several parts is made
    requests: list[tuple[bytes, bytes]] = []
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with bridge_with_provider(recording_script(requests, answer), tmp_path) as at:

        async def script(client: Client) -> None:
            assert (await client.get(method, at.base + path, **arguments)).status_code == 200

        await way.use(None, script)
        await way.use(way.transport(at.url, routes=at.routes), script)
    direct, bridged = ((parsed_head(head), body) for head, body in requests)
    assert bridged == direct


@every_variant
async def test_runs_come_as_the_provider_sends_them(way: LibraryVariant, tmp_path: Path) -> None:
    """The second is not sent before the first is with the client."""
    gate, loop = asyncio.Event(), asyncio.get_running_loop()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(EVENTS, b"data: 1\n\n")
        await gate.wait()
        await line.send(b"data: 2\n\n")
        line.close()

    async with bridge_with_provider(script, tmp_path) as at:

        async def read(client: Client) -> list[bytes]:
            runs = []
            async for run in client.runs(await client.send("GET", at.base)):
                runs.append(run)
                loop.call_soon_threadsafe(gate.set)
            return runs

        runs = await way.use(way.transport(at.url, routes=at.routes), read)
    assert runs == [b"data: 1\n\n", b"data: 2\n\n"]


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@every_variant
async def test_to_close_an_answer_early_ends_the_providers_work(way: LibraryVariant, tmp_path: Path) -> None:
    """And costs the others on the socket nothing."""
    gone = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        if line.number == 0:
            await line.send(EVENTS, b"data: 1\n\n")
            await line.gone()
            gone.set()
        else:
            await line.send(sized(b"{}", JSON))

    async with bridge_with_provider(script, tmp_path) as at:

        async def leave(client: Client) -> Any:
            response = await client.send("GET", at.base)
            async for _ in client.runs(response):
                break
            await client.close(response)
            return (await client.get("GET", at.base)).status_code

        assert await way.use(way.transport(at.url, routes=at.routes), leave) == 200
        async with asyncio.timeout(5):
            await gone.wait()


async def abandoned(way: LibraryVariant, tmp_path: Path, abandon: Callable[[Client, Any], Awaitable[None]]) -> None:
    """The provider of an abandoned stream is left, and the next request on the same socket is answered."""
    gone, loop = asyncio.Event(), asyncio.get_running_loop()

    async def script(line: Line) -> None:
        await line.request()
        if line.number == 0:
            await line.send(EVENTS, b"data: 1\n\n")
            await line.gone()
            gone.set()
        else:
            await line.send(sized(b"{}", JSON))

    async with bridge_with_provider(script, tmp_path) as at:

        async def leave(client: Client) -> list[int]:
            await abandon(client, await client.send("GET", at.base))
            left = asyncio.run_coroutine_threadsafe(asyncio.wait_for(gone.wait(), 5), loop)
            await asyncio.wrap_future(left)
            return [(await client.get("GET", at.base)).status_code, len(at.server.connections)]

        assert await way.use(way.transport(at.url, routes=at.routes), leave) == [200, 1]


@every_variant
async def test_a_stream_that_is_left_by_break_ends_the_providers_work(way: LibraryVariant, tmp_path: Path) -> None:
    async def abandon(client: Client, response: Any) -> None:
        if way.is_async:
            async for _ in response.aiter_raw():
                break
        else:
            for _ in response.iter_raw():
                break

    await abandoned(way, tmp_path, abandon)


@every_variant
async def test_a_collected_response_cancels_the_provider_call(way: LibraryVariant, tmp_path: Path) -> None:
    """The caller neither reads nor closes it, and drops the last reference."""

    async def abandon(client: Client, response: Any) -> None:
        del response
        asyncio.get_running_loop().call_later(0, gc.collect)

    await abandoned(way, tmp_path, abandon)


@pytest.mark.parametrize("how", ["cancel", "wait_for"])
@pytest.mark.parametrize("way", [way for way in every_variant.args[1] if way.values[0].is_async])
async def test_a_stream_whose_reader_is_cancelled_ends_the_providers_work(
    way: LibraryVariant, how: str, tmp_path: Path
) -> None:
    async def abandon(client: Client, response: Any) -> None:
        runs = response.aiter_raw()
        assert await anext(runs) == b"data: 1\n\n"
        reading = asyncio.ensure_future(anext(runs))
        await turns()
        if how == "cancel":
            reading.cancel()
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await asyncio.wait_for(reading, 0)

    await abandoned(way, tmp_path, abandon)


@every_variant
async def test_an_answer_closed_early_never_looks_complete(way: LibraryVariant, tmp_path: Path) -> None:
    """Its last frame may have come by then: what was dropped cannot be read."""
    async with bridge_with_provider(
        recording_script([], sized(b"x" * 100, b"Content-Type: audio/mpeg")), tmp_path
    ) as at:

        async def read(client: Client) -> None:
            response = await client.send("GET", at.base)
            await client.close(response)
            with pytest.raises(way.library.RemoteProtocolError, match="closed before its end"):
                async for _ in each(response.stream._stream):
                    pass

        await way.use(way.transport(at.url, routes=at.routes), read)


@every_variant
async def test_many_requests_at_once_share_one_socket(way: LibraryVariant, tmp_path: Path) -> None:
    async with bridge_with_provider(recording_script([], sized(b"{}", JSON)), tmp_path) as at:

        async def ask(client: Client) -> int:
            async def one() -> None:
                assert (await client.get("POST", at.base, json={})).json() == {}

            if way.is_async:
                await asyncio.gather(*(one() for _ in range(20)))
            else:
                await asyncio.gather(*(asyncio.to_thread(asyncio.run, one()) for _ in range(20)))
            return len(at.server.connections)

        assert await way.use(way.transport(at.url, routes=at.routes), ask) == 1


@every_variant
async def test_a_redirect_is_followed_by_the_library_over_the_bridge(way: LibraryVariant, tmp_path: Path) -> None:
    requests: list[bytes] = []

    async def script(line: Line) -> None:
        moved = sized(b"", b"Location: /v1/there?x=1", status=b"307 Temporary Redirect")
        for answer in (moved, sized(b"{}", JSON)):
            head = await line.head()
            requests.append(head.partition(b" HTTP")[0] + b" " + await line.body(head))
            await line.send(answer)

    async with bridge_with_provider(script, tmp_path) as at:

        async def ask(client: Client) -> Any:
            return (await client.get("POST", f"{at.base}/here", json=[1])).status_code

        transport = way.transport(at.url, routes=at.routes)
        assert await way.use(transport, ask, follow_redirects=True) == 200
    assert requests == [b"POST /v1/here [1]", b"POST /v1/there?x=1 [1]"]


@pytest.mark.parametrize(("config", "attempts"), [({}, 1), ({"maxAttempts": 2, "retryDelay": 0}, 2)], ids=["", "asked"])
@every_variant
async def test_the_bridge_tries_once_whatever_the_gateway_says(
    way: LibraryVariant, config: dict[str, int], attempts: int, tmp_path: Path
) -> None:
    """For the SDK tries again; but who asks for more gets it."""
    requests: list[tuple[bytes, bytes]] = []
    busy = sized(b"{}", JSON, status=b"503 Service Unavailable")
    async with bridge_with_provider(
        recording_script(requests, busy), tmp_path, more="[gateways.gateway]\nmax_attempts = 3"
    ) as at:

        async def ask(client: Client) -> Any:
            return (await client.get("POST", at.base, json={})).status_code

        assert await way.use(way.transport(at.url, routes=at.routes, config=config), ask) == 503
    assert len(requests) == attempts


def test_the_two_libraries_have_one_implementation() -> None:
    """The modules differ only in the name of the library."""
    folder = Path(bridge.transports.__file__).parent
    written = (folder / "httpx.py").read_text()
    assert (folder / "httpx2.py").read_text() == _for_httpx2(written)


def _for_httpx2(module: str) -> str:
    renamed = module.replace("httpx", "httpx2").replace("Httpx", "Httpx2")
    return renamed.replace("BridgeTransport", "Httpx2BridgeTransport")


# What goes wrong.


async def fails(way: LibraryVariant, url: str, transport: Any, **options: Any) -> Any:
    """What the library says of a request whose body is read."""

    async def ask(client: Client) -> Exception:
        with pytest.raises(Exception) as raised:
            await client.get("POST", url, json={})
        return raised.value

    error: Any = await way.use(transport, ask, **options)
    assert error.request.url == url
    return error


NOT_WHOLE = {
    "cut": (SSE[0] + b'data: {"choices":[]}\n\n', False, "cut"),
    "cut in an item": (SSE[0] + b'data: {"cho', False, "cut"),
    "ended without its mark": (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', True, "without its end mark"),
    "an error inside": (b'data: {"error":{"message":"too busy"}}\n\n', True, "too busy"),
}


@pytest.mark.parametrize(("body", "is_ended", "why"), NOT_WHOLE.values(), ids=NOT_WHOLE)
@every_variant
async def test_a_broken_stream_never_looks_complete(
    way: LibraryVariant, body: bytes, is_ended: bool, why: str, tmp_path: Path
) -> None:
    """What came of it comes, and then an exception."""
    answer = chunked(body, of=b"text/event-stream")
    answer = answer if is_ended else answer.removesuffix(LAST_CHUNK)
    async with bridge_with_provider(recording_script([], answer, hang_up=True), tmp_path) as at:

        async def read(client: Client) -> tuple[bytes, Exception | None]:
            response, came = await client.send("POST", at.base), b""
            try:
                async for run in client.runs(response):
                    came += run
            except way.library.RemoteProtocolError as error:
                return came, error
            return came, None

        came, error = await way.use(way.transport(at.url, routes=at.routes), read)
    assert (came, why in str(error)) == (body, True)


@every_variant
async def test_an_error_of_the_bridge_is_an_http_error_with_its_body(way: LibraryVariant, tmp_path: Path) -> None:
    async with opened(BridgeWithProvider(free_port(), tmp_path)) as at:

        async def ask(client: Client) -> Any:
            return await client.get("POST", at.base, json={})

        response = await way.use(way.transport(at.url, routes=at.routes), ask)
    body = response.json()
    assert (response.status_code, body["internalCode"]) == (502, 9010)
    assert body["error"] == {"message": body["message"], "type": "AiGatewayError", "code": 9010}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-should-retry"] == "true"


@every_variant
async def test_a_wrong_token_is_an_http_error_too(way: LibraryVariant, tmp_path: Path) -> None:
    """An SDK tells it at once; a connection that failed it would try again."""
    digest = hashlib.sha256(b"right").hexdigest()
    async with bridge_with_provider(
        recording_script([]), tmp_path, more=f'[gateways.gateway.tokens]\nci = "sha256:{digest}"'
    ) as at:

        async def ask(client: Client) -> Any:
            return await client.get("POST", at.base, json={})

        response = await way.use(way.transport(at.url, "wrong", routes=at.routes), ask)
    body = response.json()
    assert (response.status_code, body["internalCode"]) == (401, 2009)
    assert body["error"] == {"message": body["message"], "type": "AiGatewayError", "code": 2009}
    assert "HTTP 401: Unauthorized" in body["message"]


@every_variant
async def test_no_bridge_is_a_connection_that_failed(way: LibraryVariant) -> None:
    transport = way.transport(f"ws://127.0.0.1:{free_port()}{GATEWAY}")
    error = await fails(way, "https://api.openai.com/v1/x", transport)
    assert type(error) is way.library.ConnectError


@every_variant
async def test_a_bridge_that_does_not_answer_is_a_timeout_of_the_connection(way: LibraryVariant) -> None:
    async def silent(line: Line) -> None:
        await line.gone()

    async with Provider(silent) as bridge:
        transport = way.transport(f"ws://127.0.0.1:{bridge.port}{GATEWAY}")
        timeout = way.library.Timeout(None, connect=0.05)
        error = await fails(way, "https://api.openai.com/v1/x", transport, timeout=timeout)
    assert type(error) is way.library.ConnectTimeout


@pytest.mark.parametrize("message", [b"", EVENTS + b"data: 1\n\n"], ids=["before the head", "inside the body"])
@every_variant
async def test_silence_is_a_timeout_of_reading_and_cancels(way: LibraryVariant, message: bytes, tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(message)
        await line.gone()
        gone.set()

    async with bridge_with_provider(script, tmp_path) as at:
        timeout = way.library.Timeout(None, read=0.05)
        error = await fails(way, at.base, way.transport(at.url, routes=at.routes), timeout=timeout)
        async with asyncio.timeout(5):
            await gone.wait()
    assert type(error) is way.library.ReadTimeout


@every_variant
async def test_an_unknown_host_gets_no_request(way: LibraryVariant) -> None:
    error = await fails(way, "https://llm.example/v1/x", way.transport("ws://127.0.0.1:1/v1/a/g"))
    assert type(error) is way.library.UnsupportedProtocol
    assert "routes={'https://llm.example': 'SLUG'}" in str(error)


@every_variant
async def test_a_request_on_a_socket_that_is_lost_is_not_sent_again(way: LibraryVariant, tmp_path: Path) -> None:
    messages: list[bytes] = []
    async with dropping_bridge(messages) as url:
        error = await fails(way, "https://api.openai.com/v1/x", way.transport(url))
    assert type(error) is way.library.RemoteProtocolError
    assert len(messages) == 1


@every_variant
async def test_a_socket_that_was_lost_meanwhile_is_dialled_again(way: LibraryVariant, tmp_path: Path) -> None:
    """The bridge was started anew between two requests: nobody notices."""
    loop = asyncio.get_running_loop()
    async with bridge_with_provider(recording_script([], sized(b"{}", JSON)), tmp_path) as at:

        async def ask(client: Client) -> list[int]:
            first = await client.get("POST", at.base, json={})
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(at.restart(), loop))
            return [first.status_code, (await client.get("POST", at.base, json={})).status_code]

        assert await way.use(way.transport(at.url, routes=at.routes), ask) == [200, 200]


# Whose loop, whose thread.


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "bridge client"]


async def test_a_collected_transport_leaves_no_thread(tmp_path: Path) -> None:
    async with bridge_with_provider(recording_script([], sized(b"{}", JSON)), tmp_path) as at:

        def ask() -> list[str]:
            client = library.Client(transport=BridgeTransport(at.url, routes=at.routes))
            assert client.get(at.base).status_code == 200
            return threads()

        assert len(await asyncio.to_thread(ask)) == 1
        await until(lambda: gc.collect() >= 0 and not threads())


async def test_an_asynchronous_transport_may_be_used_on_one_loop_after_another(tmp_path: Path) -> None:
    """As scripts do that call asyncio.run for every question; each has a socket of its own."""
    async with bridge_with_provider(recording_script([], sized(b"{}", JSON)), tmp_path) as at:
        client = library.AsyncClient(transport=AsyncBridgeTransport(at.url, routes=at.routes))

        def ask() -> int:
            return asyncio.run(client.get(at.base)).status_code

        assert [await asyncio.to_thread(ask) for _ in range(2)] == [200, 200]


async def test_a_program_may_end_without_closing_anything(tmp_path: Path) -> None:
    async with bridge_with_provider(recording_script([], sized(b"{}", JSON)), tmp_path) as at:
        program = PROGRAM.format(url=at.url, base=at.base)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", program, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert await process.communicate() == (b"200\n", b"")


PROGRAM = """
import httpx
from bridge.transports.httpx import BridgeTransport

client = httpx.Client(transport=BridgeTransport("{url}", routes={{"{base}": "custom-own"}}))
print(client.get("{base}").status_code)
"""


FORKS = """
import asyncio, os, sys
import {library} as library
from bridge.transports.{library} import Async{name} as AsyncTransport, {name} as Transport

url, base = sys.argv[1:]
routes = {{base: "custom-own"}}
client = library.Client(transport=Transport(url, routes=routes))
concurrent = library.AsyncClient(transport=AsyncTransport(url, routes=routes))

def ask(who):
    print(who, client.get(base).status_code, asyncio.run(concurrent.get(base)).status_code, flush=True)

ask("before")
if os.fork() == 0:
    ask("child")
    client.close()
    sys.exit()
os.wait()
ask("parent")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    ("library_name", "class_name"),
    [
        ("httpx", "BridgeTransport"),
        pytest.param("httpx2", "Httpx2BridgeTransport", marks=pytest.mark.needs("pip-httpx2")),
    ],
)
async def test_a_transport_that_was_made_before_a_fork_works_in_the_child(
    library_name: str, class_name: str, tmp_path: Path
) -> None:
    async with bridge_with_provider(recording_script([], sized(b"{}", JSON)), tmp_path) as at:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning"),
            *("-c", FORKS.format(library=library_name, name=class_name), at.url, at.base),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(30):
                out, errors = await process.communicate()
        except TimeoutError:
            process.kill()
            raise
    assert (out, errors) == (b"before 200 200\nchild 200 200\nparent 200 200\n", b"")


async def test_closed_twice_is_closed(tmp_path: Path) -> None:
    async with bridge_with_provider(recording_script([], sized(b"{}", JSON)), tmp_path) as at:
        transport = BridgeTransport(at.url, routes=at.routes)
        client = library.Client(transport=transport)
        assert (await asyncio.to_thread(client.get, at.base)).status_code == 200
        for _ in range(2):
            await asyncio.to_thread(transport.close)
        assert not threads()
        with pytest.raises(library.RemoteProtocolError, match="this client closed the socket"):
            await asyncio.to_thread(client.get, at.base)
