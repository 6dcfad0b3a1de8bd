"""Each fault of a provider, end to end: the client gets the right error, and other events continue."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bridge.server.server import Server
from tests.support.clock import advance, turns
from tests.support.event_harness import DONE, FINISH, ROLE, content, step
from tests.support.harness import Client, Frame, config_of, connected, running
from tests.support.sibling import Sibling, chunk
from tests.support.socket_provider import OK, Line, Provider, Script, sends

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CONFIG = """
[server]
max_item_bytes = 100_000
max_buffered_bytes = 1_000_000
[providers.openai]
base_url = "{scheme}://{host}:{port}/v1"
[providers.groq]
base_url = "http://127.0.0.1:{sibling}/v1"
"""


@asynccontextmanager
async def serving(
    folder: Path, provider: Provider | int, scheme: str = "http", host: str = "127.0.0.1"
) -> AsyncIterator[tuple[Client, Server]]:
    """Connect a client and start a sibling event, which has to succeed at the end of the test."""
    sibling, port = Sibling(), provider if isinstance(provider, int) else provider.port
    async with Provider(sibling.script) as other:
        text = CONFIG.format(scheme=scheme, host=host, port=port, sibling=other.port)
        async with running(config_of(text, folder)) as server, connected(server) as client:
            await sibling.start(client)
            yield client, server
            await sibling.check_completes(client)


async def call(client: Client, **changed: object) -> list[Frame]:
    return await client.call({"eventId": "a", **step(), **changed})


def body(data: bytes, content_type: str = "application/json", status: str = "200 OK", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(data)}", *headers, "", "")
    return "\r\n".join(lines).encode() + data


def coded(data: bytes, coding: str = "gzip", content_type: str = "application/json") -> bytes:
    return body(data, content_type, "200 OK", f"Content-Encoding: {coding}")


def send_then(end: Callable[[Line], Any], *parts: bytes) -> Script:
    """Return a script that sends the parts and ends the connection with `end`."""

    async def script(line: Line) -> None:
        await line.request()
        for part in parts:
            await line.send(part)
            await turns()  # so that each part is one read
        end(line)

    return script


async def hang_up_at_once(line: Line) -> None:
    line.reset()


# Connecting to the provider


@pytest.mark.parametrize(
    ("host", "scheme", "code"),
    [("127.0.0.1", "http", 9010), ("nobody.invalid", "http", 9010), ("127.0.0.1", "https", 9010)],
)
async def test_an_unreachable_provider_fails_the_event_with_9010(
    tmp_path: Path, host: str, scheme: str, code: int
) -> None:
    nobodys_port = 1
    async with serving(tmp_path, nobodys_port, scheme, host) as (client, _):
        [created] = await call(client)
        assert created["error"]["code"] == code
        assert created["error"] | {"message": ""} == {
            "code": code,
            "message": "",
            "source": "provider",
            "retryable": True,
        }
        assert created["metadata"]["status"] == 502


async def answer_in_plaintext(line: Line) -> None:
    await line.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(("script", "tls"), [(sends(OK), True), (answer_in_plaintext, False)])
async def test_a_failed_tls_handshake_fails_the_event_with_9011(tmp_path: Path, script: Script, tls: bool) -> None:
    """The provider has an untrusted certificate, or does not speak TLS."""
    async with Provider(script, tls=tls) as provider, serving(tmp_path, provider, "https") as (client, _):
        [created] = await call(client)
        assert (created["error"]["code"], created["error"]["retryable"]) == (9011, False)


async def test_a_stale_connection_is_replaced_without_counting_an_attempt(tmp_path: Path) -> None:
    """The provider closes the idle connection, and the next request detects it."""

    async def script(line: Line) -> None:
        await line.request()
        await line.send(body(b"{}"))
        await line.request()
        line.reset()

    async with Provider(script) as provider, serving(tmp_path, provider) as (client, _):
        for each in range(3):
            [created] = await client.call({"eventId": each, **step()})
            assert created["metadata"]["success"]
            assert "attempts" not in created["metadata"]
        assert provider.connections == 3


# Broken answers


class Case(NamedTuple):
    name: str
    script: Script
    types: str
    code: int
    status: int = 200


BREAKS = [
    Case("closed at once", send_then(Line.close), "created", 9012, 502),
    Case("reset at once", send_then(Line.reset), "created", 9012, 502),
    Case("reset while being asked", hang_up_at_once, "created", 9012, 502),
    Case("cut in its head", send_then(Line.close, b"HTTP/1.1 200 OK\r\nContent-"), "created", 9012, 502),
    Case("no HTTP", send_then(Line.close, b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "created", 9019, 502),
    Case("another protocol", send_then(Line.close, b"HTTP/1.1 101 Switching\r\n\r\n"), "created", 9019, 502),
    Case("closed after its head", send_then(Line.close, SSE), "created", 9012, 502),
    Case("reset after its head", send_then(Line.reset, SSE), "created", 9012, 502),
    Case("closed before an answer", send_then(Line.close, SSE, chunk(ROLE)), "created stream error", 9016),
    Case("closed in an answer", send_then(Line.close, SSE, chunk(content("a"))), "created stream error", 9016),
    Case("reset in an answer", send_then(Line.reset, SSE, chunk(content("a"))), "created stream error", 9016),
    Case(
        "closed in a chunk", send_then(Line.close, SSE, chunk(content("a")), b"ff\r\nhal"), "created stream error", 9016
    ),
    Case(
        "closed in a chunk's length",
        send_then(Line.close, SSE, chunk(content("a")), b"f"),
        "created stream error",
        9016,
    ),
    Case(
        "chunks framed wrongly",
        send_then(Line.close, SSE, chunk(content("a")), b"xyz\r\n"),
        "created stream error",
        9016,
    ),
    Case("no end mark", sends(SSE, chunk(content("a")), b"0\r\n\r\n"), "created stream error", 9016),
    Case("an empty stream", sends(SSE, b"0\r\n\r\n"), "created", 9016, 502),
    Case("JSON that is shorter than announced", send_then(Line.close, body(b"{}")[:-1]), "created", 9012, 502),
    Case("JSON without an end", send_then(Line.reset, body(b"{}")[:-1]), "created", 9012, 502),
    Case(
        "an unknown coding",
        sends(body(b"{}", "application/json", "200 OK", "Content-Encoding: rot13")),
        "created",
        9019,
        502,
    ),
    Case(
        "a damaged coding",
        sends(body(b"not gzip", "application/json", "200 OK", "Content-Encoding: gzip")),
        "created",
        9012,
        502,
    ),
]


@pytest.mark.parametrize("case", BREAKS, ids=lambda case: case.name)
async def test_a_broken_answer_fails_its_event_alone(tmp_path: Path, case: Case) -> None:
    async with Provider(case.script) as provider, serving(tmp_path, provider) as (client, _):
        frames = await call(client)
        types = " ".join(each["type"].removeprefix("universal.") for each in frames)
        last = frames[-1]
        assert (types, last["error"]["code"], last["metadata"]["status"]) == (case.types, case.code, case.status)
        assert last["error"]["source"] == "provider"
        assert last["metadata"]["success"] is False


# Silent providers


class Silent:
    """Send these parts, then nothing until the bridge disconnects."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts
        self.requested, self.left = asyncio.Event(), asyncio.Event()

    async def __call__(self, line: Line) -> None:
        await line.request()
        await line.send(*self._parts)
        self.requested.set()
        await line.gone()
        self.left.set()


@pytest.mark.parametrize(
    ("parts", "config", "seen", "code"),
    [
        ([], {"requestTimeout": 9000}, 0, 9013),
        ([SSE], {"requestTimeout": 9000}, 0, 9013),
        ([SSE, chunk(b": wait\n\n")], {"requestTimeout": 9000}, 1, 9013),
        ([SSE, chunk(ROLE)], {"requestTimeout": 9000}, 2, 9013),
        ([SSE, chunk(content("a"))], {"idleTimeout": 9000}, 2, 9014),
        ([SSE, chunk(content("a"))], {"totalTimeout": 9000}, 2, 9015),
        ([body(b"{}")[:-1]], {"idleTimeout": 9000}, 0, 9014),
        ([], {"totalTimeout": 9000}, 0, 9015),
    ],
)
async def test_a_silent_provider_is_ended_by_the_timeout(
    tmp_path: Path, parts: list[bytes], config: dict[str, int], seen: int, code: int
) -> None:
    silent = Silent(*parts)
    async with Provider(silent) as provider, serving(tmp_path, provider) as (client, _):
        await client.create({"eventId": "a", **step(**config)})
        await silent.requested.wait()
        await turns(200)
        advance(8.5)
        await turns()
        assert not silent.left.is_set()
        advance(1)
        frames = await client.until_last("a")
        assert len(frames) == 1 + seen
        assert (frames[-1]["error"]["code"], frames[-1]["error"]["source"]) == (code, "provider")
        assert frames[-1]["metadata"]["status"] == (200 if seen else 504)
        await silent.left.wait()


# Errors and unusual answers


@pytest.mark.parametrize(
    ("answer", "status", "code", "retryable", "response"),
    [
        (body(b'{"error":{"message":"no"}}', status="400 Bad"), 400, 400, False, {"error": {"message": "no"}}),
        (body(b'{"error":"key"}', status="401 No"), 401, 401, False, {"error": "key"}),
        (body(b"{}", "application/json", "429 Slow", "Retry-After: 7"), 429, 429, True, {}),
        (body(b"<h1>Bad</h1>", "text/html", "502 Bad"), 502, 502, True, "<h1>Bad</h1>"),
        (body(b"", "text/plain", "503 No"), 503, 503, True, None),
        (body(b"\x00\xff", "image/png", "500 No"), 500, 500, True, "AP8="),
        (body(b"moved", "text/plain", "302 Found", "Location: http://127.0.0.1:1/"), 302, 9019, False, "moved"),
        (body(b"", "text/plain", "304 Not Modified"), 304, 9019, False, None),
    ],
)
async def test_an_error_answer_is_passed_on_unchanged(
    tmp_path: Path, answer: bytes, status: int, code: int, retryable: bool, response: object
) -> None:
    async with Provider(sends(answer)) as provider, serving(tmp_path, provider) as (client, _):
        [created] = await call(client)
        assert created["type"] == "universal.created"
        assert (created["metadata"]["status"], created["metadata"]["success"]) == (status, False)
        assert (created["error"]["code"], created["error"]["source"]) == (code, "provider")
        assert created["error"]["retryable"] is retryable
        assert created["response"] == response
        assert created["error"].get("retryAfterMs") == (7000 if status == 429 else None)


@pytest.mark.parametrize(
    ("answer", "response"),
    [
        (body(b'{"a": 1}'), {"a": 1}),
        (body(b"not json", "text/plain"), "not json"),
        (body(b'"\xff"'), '"\ufffd"'),
        (body(b"", "text/plain", "204 No Content"), None),
        (coded(gzip.compress(b'{"a": 1}')), {"a": 1}),
        (body(b"{}", "application/json", "200 OK", "X-Long: " + "x" * 20_000), {}),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" + body(b"{}"), {}),
        (b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n[]", []),
    ],
)
async def test_an_unusual_answer_is_passed_on(tmp_path: Path, answer: bytes, response: object) -> None:
    async with Provider(send_then(Line.close, answer)) as provider, serving(tmp_path, provider) as (client, _):
        [created] = await call(client)
        assert created["metadata"]["success"], created
        assert created["response"] == response
        assert "x-long" not in created["metadata"]["headers"]


async def test_an_answer_with_invalid_json_fails_with_9019(tmp_path: Path) -> None:
    async with Provider(sends(body(b"not json"))) as provider, serving(tmp_path, provider) as (client, _):
        [created] = await call(client)
        assert (created["metadata"]["success"], created["error"]["code"]) == (False, 9019)
        assert (created["response"], created["malformed"]) == ("not json", True)


async def test_bytes_after_an_answer_are_not_read_as_the_next_answer(tmp_path: Path) -> None:
    answer = body(b'{"a": 1}') + body(b'{"poison": 1}')
    async with Provider(sends(answer)) as provider, serving(tmp_path, provider) as (client, _):
        for each in range(3):
            [created] = await client.call({"eventId": each, **step()})
            assert created["response"] == {"a": 1}


# Unusual items of streams


LONG_INTEGER = str(1 << 90).encode()


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b'{"a":', b'"{\\"a\\":","malformed":true'),
        (b'{"a":"\xff"}', '"{\\"a\\":\\"\ufffd\\"}","malformed":true'.encode()),
        (b'{"a":"\\ud83d"}', b'{"a":"\\ud83d"}'),
        (b'{"n":%b}' % LONG_INTEGER, b'{"n":%b}' % LONG_INTEGER),
        (b'{"n":1e999,"m":0.10}', b'{"n":1e999,"m":0.10}'),
        (b"{}\xe2\x80\xa8{}", '"{}\u2028{}","malformed":true'.encode()),
        (b"NaN", b'"NaN"'),
    ],
)
async def test_an_unusual_item_reaches_the_client_unchanged_or_as_text(
    tmp_path: Path, data: bytes, field: bytes
) -> None:
    parts = SSE, chunk(content("a")), chunk(b"data: " + data + b"\n\n"), chunk(FINISH + DONE), b"0\r\n\r\n"
    async with Provider(sends(*parts)) as provider, serving(tmp_path, provider) as (client, _):
        await client.create({"eventId": "a", **step()})
        await client.receive()
        await client.receive()
        odd = (await client.socket.receive()).data.encode()
        assert odd == b'{"type":"universal.stream","metadata":{"eventId":"a"},"response":' + field + b"}"
        assert (await client.until_last("a"))[-1]["type"] == "universal.done"


async def test_a_too_long_item_ends_its_event_with_9018(tmp_path: Path) -> None:
    endless = [chunk(b"x" * 60_000)] * 50
    async with (
        Provider(Silent(SSE, chunk(content("a")), chunk(b"data: "), *endless)) as provider,
        serving(tmp_path, provider) as (client, _),
    ):
        frames = await call(client)
        assert (frames[-1]["type"], frames[-1]["error"]["code"]) == ("universal.error", 9018)


@pytest.mark.parametrize(
    ("content_type", "plain", "code"),
    [
        ("text/event-stream", b"data: ", 9018),
        ("application/x-ndjson", b"", 9018),
        ("application/json", b"", 9008),
        ("image/png", b"", 9008),
    ],
)
async def test_a_decompression_bomb_ends_its_event(tmp_path: Path, content_type: str, plain: bytes, code: int) -> None:
    bomb = gzip.compress(plain + bytes(20_000_000))
    assert len(bomb) < 20_000
    answer = coded(bomb, "gzip", content_type)
    async with Provider(sends(answer)) as provider, serving(tmp_path, provider) as (client, _):
        last = (await call(client))[-1]
        assert last["error"]["code"] == code
        assert last["metadata"]["success"] is False


async def test_bytes_after_an_answer_close_the_connection(tmp_path: Path) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(body(b"{}"))
        await turns()
        await line.send(body(b'{"poison": 1}'))
        await line.gone()

    async with Provider(script) as provider, serving(tmp_path, provider) as (client, _):
        for each in range(3):
            [created] = await client.call({"eventId": each, **step()})
            assert created["response"] == {}
            await turns(100)
        assert provider.connections == 3


# Requests as the provider receives them


@pytest.mark.parametrize(
    "endpoint",
    ["a%3Ab/c", "@cf/meta/llama", "models/gemini:streamGenerateContent?alt=sse", "a+b/c%20d", "a%2Fb%2fc?q=%2B+%3D&x="],
)
async def test_an_endpoint_is_sent_as_written(tmp_path: Path, endpoint: str) -> None:
    seen = []

    async def script(line: Line) -> None:
        seen.append((await line.request()).split(b"\r\n")[0])
        await line.send(body(b"{}"))

    async with Provider(script) as provider, serving(tmp_path, provider) as (client, _):
        [created] = await call(client, endpoint=endpoint)
        assert created["metadata"]["success"]
    assert seen == [b"POST /v1/%b HTTP/1.1" % endpoint.encode()]


async def test_a_cookie_is_not_sent_with_later_requests(tmp_path: Path) -> None:
    seen = []

    async def script(line: Line) -> None:
        while True:
            seen.append(await line.request())
            await line.send(body(b"{}", "application/json", "200 OK", "Set-Cookie: tenant=one; Path=/"))

    async with Provider(script) as provider, serving(tmp_path, provider, host="localhost") as (client, server):
        [created] = await call(client)
        assert "set-cookie" not in created["metadata"]["headers"]
        async with connected(server) as other:
            await call(other)
    assert len(seen) == 2
    assert not any(b"tenant" in head for head in seen)


async def test_150_concurrent_streams_of_one_host_are_relayed(tmp_path: Path) -> None:
    requested, all_requested = [], asyncio.Event()

    async def script(line: Line) -> None:
        requested.append(await line.request())
        await line.send(SSE, chunk(content("a")))
        if len(requested) == 150:
            all_requested.set()
        await all_requested.wait()
        await line.send(chunk(FINISH + DONE), b"0\r\n\r\n")

    async with Provider(script) as provider, serving(tmp_path, provider) as (client, _):
        for each in range(150):
            await client.create({"eventId": each, **step()})
        for each in range(150):
            assert (await client.until_last(each))[-1]["type"] == "universal.done"
        assert provider.connections == 150
