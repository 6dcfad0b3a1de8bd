"""Handle one HTTP request as one event: the request to the provider, and the response."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import orjson
import pytest

from bridge.errors import RateLimited
from bridge.relay.interfaces import Admission, Services
from bridge.relay.summary import EventSummary
from bridge.server.server import Server
from bridge.upstream.http import Upstream
from tests.support.clock import advance, turns, until
from tests.support.event_harness import COMPLETE, DONE, FINISH, OVERLOADED, ROLE, content, step
from tests.support.harness import config_of, running
from tests.support.provider_script import (
    JSON,
    RESET,
    SILENCE,
    SSE,
    ScriptedProvider,
    ScriptedResponse,
    answers,
    refuses,
    streams,
)
from tests.support.raw_http import CHAT, CHAT_BODY, GATEWAY, HttpResult, connect_http
from tests.support.socket_provider import OK, Line, Provider


async def response_to(
    folder: Path, *plays: ScriptedResponse, config: str = "", **asking: object
) -> tuple[HttpResult, ScriptedProvider]:
    """Send one request to a bridge whose provider plays a script."""
    provider = ScriptedProvider(*plays)
    async with running(config_of(config, folder), provider) as server, connect_http(server) as client:
        response = await client(**asking)
    assert provider.open_streams == 0
    return response, provider


@asynccontextmanager
async def started(server: Server) -> AsyncIterator[None]:
    await server.start()
    try:
        yield
    finally:
        await server.stop()


# What reaches the provider


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "/",
        "/v1/chat/completions",
        "/v1/files/a%2Fb%20c",
        "/v1/models/x:streamGenerateContent?alt=sse",
        "/@cf/meta/llama-3.1-8b-instruct",
        "/v1/x?a=%2F&b=+&c=%e4&a=2",
        "/v1/x?q=a/b?c",
        "/v1/a;b=c/d,e/(f)!g*h'i~j",
    ],
)
async def test_the_endpoint_reaches_the_provider_as_it_was_written(tmp_path: Path, endpoint: str) -> None:
    heads: list[bytes] = []

    async def script(line: Line) -> None:
        heads.append(await line.request())
        await line.send(OK)

    async with Provider(script) as provider:
        config = config_of(f'[providers.custom-own]\nbase_url = "http://127.0.0.1:{provider.port}/base"', tmp_path)
        async with running(config) as server, connect_http(server) as client:
            assert (await client("GET", f"{GATEWAY}/custom-own{endpoint}", None)).body == b"ok"
    target = "/base" + ("" if endpoint == "/" else endpoint)
    assert heads[0].startswith(f"GET {target} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_reaches_the_provider_with_the_bytes_of_its_body(tmp_path: Path, method: str) -> None:
    body = bytes(range(256)) * 300
    seen: list[tuple[bytes, bytes]] = []

    async def script(line: Line) -> None:
        head = await line.head()
        seen.append((head, await line.body(head)))
        await line.send(OK)

    async with Provider(script) as provider:
        config = config_of(f'[providers.openai]\nbase_url = "http://127.0.0.1:{provider.port}"', tmp_path)
        async with running(config) as server, connect_http(server) as client:
            headers = {"Content-Type": "application/octet-stream", "Content-Encoding": "zstd"}
            await client(method, f"{GATEWAY}/openai/x", body, headers)
    [(head, arrived)] = seen
    assert head.startswith(method.encode() + b" /x HTTP/1.1\r\n")
    assert b"content-encoding: zstd\r\n" in head
    assert arrived == body


async def test_an_upload_of_several_parts_arrives_as_it_was_sent(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers())
    async with running(config_of("", tmp_path), provider) as server, httpx.AsyncClient() as client:
        url = server.url.replace("ws", "http", 1) + f"{GATEWAY}/openai/v1/files"
        sent = client.build_request(
            "POST", url, files={"file": ("a.bin", bytes(range(256)))}, data={"purpose": "batch"}
        )
        body = await sent.aread()
        assert (await client.send(sent)).json() == {"ok": True}
    assert provider.requests[0].content == body
    assert provider.requests[0].headers["content-type"] == sent.headers["content-type"]


async def test_a_chunked_body_arrives_complete(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers())
    async with running(config_of("", tmp_path), provider) as server, connect_http(server) as client:
        await client.send_request(body=None, headers={"Transfer-Encoding": "chunked"})
        await client.raw.send(b"5\r\nhello\r\n")
        await turns()
        await client.raw.send(b"6;x=y\r\n world\r\n0\r\n\r\n")
        assert (await client.read_response()).status == 200
    assert provider.requests[0].content == b"hello world"


async def test_the_provider_gets_the_clients_headers_without_those_of_proxies(tmp_path: Path) -> None:
    ours = {
        "cf-aig-max-attempts": "2",
        "CF-AIG-Metadata": '{"a":1}',
        "cf-cache-ttl": "60",
        "Accept-Encoding": "gzip, br",
        "Connection": "keep-alive, X-Mine-Alone",
        "X-Mine-Alone": "1",
        "TE": "trailers",
        "Cookie": "session=1",
        "Origin": "http://localhost:3000",
        "Referer": "http://localhost:3000/page",
        "Sec-Fetch-Mode": "cors",
        "X-Forwarded-For": "10.0.0.1",
        "Via": "1.1 proxy",
        "Proxy-Authorization": "Basic x",
        "Expect": "100-continue",
    }
    theirs = {"Authorization": "Bearer key", "User-Agent": "sdk/1", "OpenAI-Beta": "a=b", "X-Stainless-Lang": "python"}
    _, provider = await response_to(
        tmp_path, answers(), headers={**ours, **theirs, "anthropic-beta": "a", "Anthropic-Beta": "b"}
    )
    assert dict(provider.requests[0].headers) == {
        **{name.lower(): value for name, value in theirs.items()},
        "anthropic-beta": "a, b",
        "accept-encoding": "identity",
    }


@pytest.mark.parametrize(
    ("slug", "host"),
    [("openai", "api.openai.com"), ("google", "generativelanguage.googleapis.com"), ("custom-mine", "mine.test")],
)
async def test_any_provider_is_called_by_its_slug(tmp_path: Path, slug: str, host: str) -> None:
    config = '[providers.custom-mine]\nbase_url = "https://mine.test"'
    _, provider = await response_to(tmp_path, answers(), config=config, path=f"{GATEWAY}/{slug}/x")
    assert httpx.URL(provider.requests[0].url).host == host


ONE = step()
TWO = step("anthropic")


@pytest.mark.parametrize("path", [GATEWAY, f"{GATEWAY}/"])
@pytest.mark.parametrize(
    ("body", "calls"),
    [
        (ONE, 1),
        ([ONE], 1),
        ([ONE, TWO], 2),
        ({"steps": [ONE, TWO], "headers": {"x-of": "the chain"}}, 2),
    ],
)
async def test_steps_are_posted_as_on_a_socket(tmp_path: Path, path: str, body: object, calls: int) -> None:
    plays = [answers(status=500)] * (calls - 1) + [answers()]
    response, provider = await response_to(
        tmp_path, *plays, path=path, body=orjson.dumps(body), headers={"Authorization": "Bearer outer", "X-Outer": "1"}
    )
    assert (response.status, response.body) == (200, b'{"ok":true}')
    assert response.headers["cf-aig-step"] == str(calls - 1)
    for received in provider.requests:
        assert received.headers["authorization"] == "Bearer none"
        assert "x-outer" not in received.headers
        assert received.content == b'{"model":"small","stream":true}'


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"", 9001, "not valid JSON"),
        (b"{", 9001, "not valid JSON"),
        (b'"x"', 9003, "request: expected an object or a list of steps"),
        (b"[]", 9003, "the list of steps is empty"),
        (b"[{}]", 9003, "request[0].provider"),
        (b'{"provider":"nobody","endpoint":""}', 2008, "nobody"),
        (b"[" * 600 + b"]" * 600, 9006, "deep"),
        (b'{"eventId":[],"provider":"openai"}', 9003, "eventId"),
        (orjson.dumps([ONE] * 33), 9006, "more than 32 steps"),
    ],
)
async def test_a_body_without_steps_is_refused(tmp_path: Path, body: bytes, code: int, field: str) -> None:
    response, _ = await response_to(tmp_path, path=GATEWAY, body=body)
    assert (response.code, response.status) == (code, {9006: 413}.get(code, 400))
    assert field in orjson.loads(response.body)["message"]
    assert response.headers["cf-aig-log-id"]


# What comes back


async def test_a_response_has_the_providers_headers_and_those_of_the_event(tmp_path: Path) -> None:
    theirs = {
        "x-request-id": "1",
        "date": "Mon, 01 Jan 2024 00:00:00 GMT",
        "set-cookie": "a=b",
        "connection": "x-hop",
        "x-hop": "1",
        "alt-svc": 'h3=":443"',
        "strict-transport-security": "max-age=1",
        "access-control-allow-origin": "*",
        "cf-aig-step": "7",
    }
    response, _ = await response_to(tmp_path, ScriptedResponse([b"x"], 201, "text/plain; Charset=UTF-8", theirs))
    log_id = response.headers["cf-aig-log-id"]
    assert response.status == 201
    assert response.headers == {
        "content-type": "text/plain; Charset=UTF-8",
        "x-request-id": "1",
        "date": "Mon, 01 Jan 2024 00:00:00 GMT",
        "cf-aig-step": "0",
        "cf-aig-log-id": log_id,
        "cf-aig-request-id": log_id,
        "cf-aig-event-id": log_id,
        "cf-aig-cache-status": "MISS",
        "content-length": "1",
    }


@pytest.mark.parametrize(
    ("header", "body", "echoed"),
    [
        ("mine", step(), "mine"),
        ("caf\u00e9".encode().decode("latin-1"), step(), "caf\u00e9".encode().decode("latin-1")),
        (None, {"eventId": "inner", **step()}, "inner"),
        (None, {"eventId": 7, **step()}, "7"),
        ("outer", [{"eventId": "inner", **step()}], "inner"),
        (None, {"eventId": "gr\u00fcn", **step()}, "gr\u00fcn".encode().decode("latin-1")),
    ],
)
async def test_the_clients_event_id_is_echoed(tmp_path: Path, header: str | None, body: object, echoed: str) -> None:
    headers = {"cf-aig-event-id": header} if header else {}
    response, _ = await response_to(tmp_path, answers(), path=GATEWAY, body=orjson.dumps(body), headers=headers)
    assert response.headers["cf-aig-event-id"] == echoed


@pytest.mark.parametrize("name", [r"a\r\nx-evil: 1", r"half of \ud83d"])
async def test_an_event_id_that_no_header_can_hold_is_left_out(tmp_path: Path, name: str) -> None:
    body = b'{"eventId":"%b",%b' % (name.encode(), orjson.dumps(step())[1:])
    response, _ = await response_to(tmp_path, answers(), path=GATEWAY, body=body)
    assert response.body == b'{"ok":true}'
    assert "cf-aig-event-id" not in response.headers
    assert "x-evil" not in response.headers


@pytest.mark.parametrize("name", ["", "x" * 257])
async def test_an_invalid_event_id_is_refused(tmp_path: Path, name: str) -> None:
    response, _ = await response_to(tmp_path, headers={"cf-aig-event-id": name})
    assert (response.status, response.code) == (400, 9003)


async def test_a_providers_error_is_passed_on_unchanged(tmp_path: Path) -> None:
    response, _ = await response_to(tmp_path, answers(b'{"error":{"message":"no"}}', 429, retry_after="7", x_more="1"))
    assert (response.status, response.body) == (429, b'{"error":{"message":"no"}}')
    assert (response.headers["retry-after"], response.headers["x-more"]) == ("7", "1")


async def test_a_redirect_is_passed_on_and_not_followed(tmp_path: Path) -> None:
    response, provider = await response_to(tmp_path, answers(b"", 302, location="https://files.example/x"))
    assert (response.status, response.headers["location"]) == (302, "https://files.example/x")
    assert len(provider.requests) == 1


async def test_the_bridges_own_error_has_its_status_and_its_body(tmp_path: Path) -> None:
    response, _ = await response_to(tmp_path, refuses(), headers={"cf-aig-event-id": "mine"})
    assert (response.status, response.code) == (502, 9010)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cf-aig-event-id"] == "mine"


class Closed:
    """A limiter that refuses every event for 1.5 seconds."""

    async def admit(self, *_: object) -> Admission:
        raise RateLimited("Rate limited", retry_after_ms=1500)


async def test_retry_after_is_in_whole_seconds(tmp_path: Path) -> None:
    server = Server(config_of("", tmp_path), Upstream(ScriptedProvider()), Services(limiter=Closed()))
    async with started(server), connect_http(server) as client:
        response = await client()
    assert (response.status, response.code, response.headers["retry-after"]) == (429, 2003, "2")


@pytest.mark.parametrize(
    ("level", "message"),
    [(0, "within 30 ms"), (1, "within 31 ms"), (2, "within 32 ms"), (3, "within 33 ms")],
    ids=["the gateway's", "the request's", "the step's headers'", "the step's config's"],
)
async def test_settings_of_a_step_override_the_request_and_those_override_the_gateway(
    tmp_path: Path, level: int, message: str
) -> None:
    headers = {"cf-aig-request-timeout": "31"} if level > 0 else {}
    inner = {"headers": {"cf-aig-request-timeout": "32"}} if level > 1 else {}
    config = {"config": {"requestTimeout": 33}} if level > 2 else {}
    body = orjson.dumps([{**step(), **inner, **config}])
    response, _ = await response_to(
        tmp_path,
        streams(SILENCE),
        config="[gateways.gateway]\nrequest_timeout = 30",
        path=GATEWAY,
        body=body,
        headers=headers,
    )
    assert (response.status, response.code) == (504, 9013)
    assert message in orjson.loads(response.body)["message"]


async def test_headers_of_the_request_are_the_settings_of_its_one_step(tmp_path: Path) -> None:
    plays = [answers(status=500), answers(status=503), answers()]
    response, provider = await response_to(
        tmp_path, *plays, headers={"cf-aig-max-attempts": "3", "cf-aig-retry-delay": "0"}
    )
    assert (response.status, len(provider.requests)) == (200, 3)


async def test_an_invalid_setting_is_reported(tmp_path: Path) -> None:
    response, _ = await response_to(tmp_path, headers={"cf-aig-max-attempts": "many"})
    assert (response.status, response.code) == (400, 9003)


# Streams


async def test_each_read_of_a_stream_is_passed_on_at_once(tmp_path: Path) -> None:
    gate = asyncio.Event()
    parts = [b": hello\n\n", ROLE[:20], ROLE[20:], content("a") + content("b"), FINISH, DONE]
    provider = ScriptedProvider(
        ScriptedResponse([*parts[:4], gate, *parts[4:]], 200, "text/event-stream; charset=utf-8")
    )
    async with running(config_of("", tmp_path), provider) as server, connect_http(server) as client:
        await client.send_request()
        status, headers = await client.read_head()
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert [await client.read_chunk() for _ in range(4)] == parts[:4]
        gate.set()
        assert [await client.read_chunk() for _ in range(3)] == [*parts[4:], b""]


async def test_a_fallback_inside_a_stream_is_visible_in_a_header_only(tmp_path: Path) -> None:
    """The header names the step that answered."""
    response, _ = await response_to(
        tmp_path, streams(ROLE, OVERLOADED), streams(*COMPLETE), path=GATEWAY, body=orjson.dumps([ONE, TWO])
    )
    assert (response.body, response.is_complete) == (b"".join(COMPLETE), True)
    assert response.headers["cf-aig-step"] == "1"


async def test_items_held_back_are_sent_after_a_while(tmp_path: Path) -> None:
    provider = ScriptedProvider(streams(ROLE, SILENCE))
    async with running(config_of("", tmp_path), provider) as server, connect_http(server) as client:
        await client.send_request(path=GATEWAY, body=orjson.dumps([ONE, TWO]))
        await until(lambda: provider.requests and provider.requests[0].reads)
        await turns()
        advance(10.1)
        assert (await client.read_head())[0] == 200
        assert await client.read_chunk() == ROLE


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    "parts",
    [
        [ROLE, content("a")],
        [ROLE, content("a"), RESET],
        [content("a"), OVERLOADED],
    ],
    ids=["no mark", "cut", "an error inside"],
)
async def test_a_broken_stream_ends_incomplete(tmp_path: Path, version: str, parts: list[bytes]) -> None:
    response, _ = await response_to(tmp_path, streams(*parts), version=version)
    sent = b"".join(part for part in parts if isinstance(part, bytes))
    assert response.is_complete is False
    assert sent.startswith(response.body)
    if version == "1.1":
        assert response.body == sent


async def test_onbreak_restart_has_no_effect_over_http(tmp_path: Path) -> None:
    body = orjson.dumps([step(onBreak="restart"), TWO])
    response, provider = await response_to(tmp_path, streams(content("a")), path=GATEWAY, body=body)
    assert (response.is_complete, len(provider.requests)) == (False, 1)


async def test_httpx_sees_that_a_stream_broke(tmp_path: Path) -> None:
    provider = ScriptedProvider(streams(content("a")))
    async with running(config_of("", tmp_path), provider) as server, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(server.url.replace("ws", "http", 1) + CHAT, json={})


@pytest.mark.parametrize("content_type", ["audio/mpeg", "application/x-ndjson", SSE, "text/plain"])
async def test_binary_bytes_are_passed_on_unchanged(tmp_path: Path, content_type: str) -> None:
    body = {SSE: b"".join(COMPLETE), "application/x-ndjson": b'{"done":true}\n'}.get(content_type, bytes(range(256)))
    response, _ = await response_to(tmp_path, ScriptedResponse([body[:7], body[7:]], content_type=content_type))
    assert (response.body, response.is_complete, response.headers["content-type"]) == (body, True, content_type)


# Files


class File(httpx.AsyncBaseTransport, httpx.AsyncByteStream):
    """A provider's file of some MiB, with or without a Content-Length."""

    def __init__(self, mebibytes: int, *, with_length: bool) -> None:
        self.left = mebibytes * 16
        self.headers = {"content-type": "application/octet-stream"}
        if with_length:
            self.headers["content-length"] = str(mebibytes << 20)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["on_connected"]()
        return httpx.Response(200, headers=self.headers, stream=self)

    def __aiter__(self) -> "File":
        return self

    async def __anext__(self) -> bytes:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        await asyncio.sleep(0)
        return bytes(65_536)

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("with_length", [True, False], ids=["length told", "length unknown"])
async def test_a_file_of_300_mib_is_relayed_with_a_budget_of_16(tmp_path: Path, with_length: bool) -> None:
    config = "[server]\nmemory_budget_bytes = 16_777_216"
    async with (
        running(config_of(config, tmp_path), File(300, with_length=with_length)) as server,
        httpx.AsyncClient() as client,
    ):
        url = server.url.replace("ws", "http", 1) + f"{GATEWAY}/openai/v1/files/x/content"
        async with client.stream("GET", url) as response:
            assert response.status_code == 200
            size = 0
            async for data in response.aiter_raw():
                size += len(data)
        assert size == 300 << 20
        assert server._app.state.memory.used == 0


async def test_a_client_that_stops_reading_a_file_stops_the_provider(tmp_path: Path) -> None:
    file = File(300, with_length=True)
    async with running(config_of("", tmp_path), file) as server, connect_http(server, receive_bytes=4096) as client:
        await client.send_request("GET", f"{GATEWAY}/openai/v1/files/x/content", None)
        await client.read_head()
        left = -1
        while left != file.left:
            left = file.left
            await turns(200)
        assert left > 250 * 16


# The same services


async def test_an_answer_from_the_cache_is_the_same_but_for_one_header(tmp_path: Path) -> None:
    provider = ScriptedProvider(ScriptedResponse(COMPLETE, headers={"x-request-id": "1"}))
    async with running(config_of("", tmp_path), provider) as server, connect_http(server) as client:
        first, second = [await client(headers={"cf-aig-cache-ttl": "60"}) for _ in range(2)]
    assert [response.headers["cf-aig-cache-status"] for response in (first, second)] == ["MISS", "HIT"]
    assert (second.status, second.body, second.is_complete) == (200, b"".join(COMPLETE), True)
    assert first.headers["x-request-id"] == second.headers["x-request-id"] == "1"


# Whom the log sees


async def test_an_event_over_http_is_logged_with_its_transport(tmp_path: Path) -> None:
    entries: list[EventSummary] = []

    class Log:
        def begun(self, *_: object) -> None: ...

        def on_event_end(self, entry: EventSummary) -> None:
            entries.append(entry)

    provider = ScriptedProvider(answers())
    server = Server(config_of("", tmp_path), Upstream(provider), Services(observers=(Log(),)))
    async with started(server), connect_http(server) as client:
        response = await client(path=f"{GATEWAY}/openai/v1/chat/completions?x=1")
    [entry] = entries
    assert (entry.transport, entry.status, entry.method) == ("http", 200, "POST")
    assert (entry.provider, entry.path, entry.model) == ("openai", "v1/chat/completions", "small")
    assert (entry.request_bytes, entry.answer_bytes) == (len(CHAT_BODY), 11)
    assert response.headers["cf-aig-log-id"] == entry.log_id == entry.event_id
    assert entry.answer_content_type == JSON


@pytest.mark.parametrize("path", [CHAT, GATEWAY])
async def test_an_error_in_http_200_has_the_status_that_it_stands_for(tmp_path: Path, path: str) -> None:
    error = b'{"error":{"message":"too many","code":429}}'
    body = orjson.dumps([step()]) if path == GATEWAY else CHAT_BODY
    response, _ = await response_to(tmp_path, answers(error), path=path, body=body)
    assert (response.status, response.body) == (429, error)
