"""Write responses: framing, clients that leave or are slow, and shutdown."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from bridge.server.server import Server
from bridge.upstream.http import Upstream
from tests.support.clock import advance, turns, until
from tests.support.event_harness import COMPLETE, DONE, FINISH, content
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import SILENCE, ScriptedProvider, ScriptedResponse, answers, streams
from tests.support.raw_client import UPGRADE, connect_raw
from tests.support.raw_http import CHAT, CHAT_BODY, GATEWAY, HttpClient, connect_http, request
from tests.support.socket_provider import TLS, client_context


@asynccontextmanager
async def serving(
    folder: Path, *plays: ScriptedResponse, config: str = "", receive_bytes: int = 65_536
) -> AsyncIterator[tuple[Server, ScriptedProvider, HttpClient]]:
    provider = ScriptedProvider(*plays)
    async with running(config_of(config, folder), provider) as server:
        async with connect_http(server, receive_bytes=receive_bytes) as client:
            yield server, provider, client
        await until(lambda: not provider.open_streams and not len(server.connections))
        assert server._app.state.memory.used == 0


async def let_go_of(client: HttpClient) -> None:
    """A client that was answered before its body arrived has some time to read the response."""
    await turns()
    advance(11)
    assert await client.raw.read_to_end() == b""


# Framing


async def test_a_complete_response_has_its_length_and_the_connection_is_kept(tmp_path: Path) -> None:
    async with serving(tmp_path, *[answers()] * 3) as (_, _, client):
        for _ in range(3):
            response = await client()
            assert (response.headers["content-length"], response.body) == ("11", b'{"ok":true}')
            assert "connection" not in response.headers


async def test_a_stream_is_chunked_and_the_connection_is_kept(tmp_path: Path) -> None:
    async with serving(tmp_path, streams(*COMPLETE), streams(*COMPLETE)) as (_, _, client):
        for _ in range(2):
            response = await client()
            assert (response.headers["transfer-encoding"], response.is_complete) == ("chunked", True)


@pytest.mark.parametrize("plays", [answers(), streams(*COMPLETE)], ids=["one piece", "stream"])
async def test_a_request_with_connection_close_closes_the_connection(tmp_path: Path, plays: ScriptedResponse) -> None:
    async with serving(tmp_path, plays) as (_, _, client):
        response = await client(headers={"Connection": "close"})
        assert (response.headers["connection"], response.is_complete) == ("close", True)
        assert await client.raw.read_to_end() == b""


async def test_a_stream_over_http_1_0_ends_with_the_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, streams(*COMPLETE)) as (_, _, client):
        response = await client(version="1.0", headers={"Connection": "keep-alive"})
        assert (response.body, response.is_complete) == (b"".join(COMPLETE), True)
        assert "transfer-encoding" not in response.headers


async def test_http_1_0_may_keep_the_connection_where_the_length_is_known(tmp_path: Path) -> None:
    async with serving(tmp_path, answers(), answers()) as (_, _, client):
        assert (await client(version="1.0", headers={"Connection": "keep-alive"})).headers["connection"] == "keep-alive"
        assert (await client(version="1.0")).headers["connection"] == "close"
        assert await client.raw.read_to_end() == b""


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "audio/mpeg"])
async def test_a_response_to_head_has_no_body(tmp_path: Path, content_type: str) -> None:
    async with serving(tmp_path, ScriptedResponse(content_type=content_type), answers()) as (_, _, client):
        response = await client("HEAD", CHAT, None)
        assert (response.status, response.headers["content-type"], response.body) == (200, content_type, b"")
        assert not {"content-length", "transfer-encoding"} & response.headers.keys()
        assert (await client()).status == 200


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_without_a_body_has_no_framing(tmp_path: Path, status: int) -> None:
    async with serving(tmp_path, ScriptedResponse(status=status), answers()) as (_, _, client):
        response = await client("GET", CHAT, None)
        assert response.status == status
        assert not {"content-length", "transfer-encoding"} & response.headers.keys()
        assert (await client()).status == 200


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    """The second request arrives before the first is answered, and in the middle of a stream."""
    gate = asyncio.Event()
    plays = [streams(content("a"), gate, FINISH, DONE), *[answers(b'{"n":%d}' % n) for n in range(3)]]
    async with serving(tmp_path, *plays) as (_, provider, client):
        await client.send_request()
        await client.read_head()
        assert await client.read_chunk() == content("a")
        requests = [request("POST", CHAT, CHAT_BODY, {})] * 3
        await client.raw.send(b"".join(requests))
        await turns()
        gate.set()
        assert [await client.read_chunk() for _ in range(3)] == [FINISH, DONE, b""]
        for n in range(3):
            client.methods[:] = ["POST"]
            assert (await client.read_response()).body == b'{"n":%d}' % n
        assert len(provider.requests) == 4


async def test_a_long_complete_response_arrives_complete(tmp_path: Path) -> None:
    body = orjson.dumps({"x": "y" * 5_000_000})
    async with serving(tmp_path, answers(body)) as (_, _, client):
        assert (await client()).body == body


@pytest.mark.parametrize("parts", [COMPLETE, COMPLETE[:2]], ids=["whole", "broken"])
async def test_an_incomplete_response_is_visible_over_tls(tmp_path: Path, parts: tuple[bytes, ...]) -> None:
    config = f'[server]\ntls_cert = "{TLS}/localhost.pem"\ntls_key = "{TLS}/localhost-key.pem"'
    provider = ScriptedProvider(streams(*parts))
    async with (
        running(config_of(config, tmp_path), provider) as server,
        connect_raw(server, receive_bytes=65_536, tls=client_context()) as raw,
    ):
        response = await HttpClient(raw)()
        assert (response.body, response.is_complete) == (b"".join(parts), parts == COMPLETE)


# Bodies that come


async def test_a_client_that_expects_100_continue_gets_it(tmp_path: Path) -> None:
    async with serving(tmp_path, answers()) as (_, provider, client):
        await client.raw.send(request("POST", CHAT, None, {"Content-Length": "5", "Expect": "100-continue"}))
        assert await client.read_head() == (100, {})
        await client.raw.send(b"hello")
        client.methods.append("POST")
        assert (await client.read_response()).status == 200
        assert provider.requests[0].content == b"hello"


@pytest.mark.parametrize("path", [f"{GATEWAY}/openai/x", GATEWAY])
async def test_a_body_that_is_too_long_gets_no_100_continue(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, config="[server]\nmax_message_bytes = 1024") as (_, _, client):
        await client.send_request(path=path, body=None, headers={"Content-Length": "1025", "Expect": "100-continue"})
        response = await client.read_response()
        assert (response.status, response.code, response.headers["connection"]) == (413, 9006, "close")
        await let_go_of(client)


async def test_a_body_that_grows_too_long_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, config="[server]\nmax_message_bytes = 1024") as (_, _, client):
        await client.send_request(body=None, headers={"Transfer-Encoding": "chunked"})
        await client.raw.send(b"400\r\n" + bytes(1024) + b"\r\n")
        await turns()
        await client.raw.send(b"1\r\nx\r\n0\r\n\r\n")
        response = await client.read_response()
        assert (response.status, response.code) == (413, 9006)


async def test_a_buffered_body_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, config="[server]\nmax_message_bytes = 1024") as (_, _, client):
        framed = b"401\r\n" + bytes(1025) + b"\r\n0\r\n\r\n"
        await client.raw.send(request("POST", CHAT, None, {"Transfer-Encoding": "chunked"}) + framed)
        client.methods.append("POST")
        assert (await client.read_response()).status == 413


async def test_a_body_of_the_maximum_length_is_accepted(tmp_path: Path) -> None:
    async with serving(tmp_path, answers(), config="[server]\nmax_message_bytes = 1024") as (_, _, client):
        assert (await client(body=bytes(1024))).status == 200


async def test_bodies_count_in_the_memory_of_the_process(tmp_path: Path) -> None:
    config = "[server]\nmemory_budget_bytes = 100_000"
    async with (
        serving(tmp_path, answers(), config=config) as (server, _, client),
        connect_http(server) as slow,
        connect_http(server) as third,
    ):
        await slow.raw.send(request("POST", CHAT, None, {"Content-Length": "80000"}) + bytes(79_000))
        await until(lambda: server._app.state.memory.used == 79_000)
        response = await third(body=bytes(40_000))
        assert (response.status, response.code) == (503, 9008)
        assert (await client(body=bytes(10_000))).status == 200


async def test_a_body_that_stops_arriving_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, _, client):
        await client.raw.send(request("POST", CHAT, None, {"Content-Length": "100000"}) + bytes(50_000))
        for _ in range(3):
            await turns()
            advance(25)
            await client.raw.send(b"x")
        client.methods.append("POST")
        response = await client.read_response()
        assert (response.status, response.code, response.headers["connection"]) == (408, 9001, "close")
        await let_go_of(client)


async def test_a_slow_body_that_keeps_arriving_is_accepted(tmp_path: Path) -> None:
    async with serving(tmp_path, answers()) as (_, _, client):
        await client.raw.send(request("POST", CHAT, None, {"Content-Length": "200000"}))
        for _ in range(10):
            await client.raw.send(bytes(20_000))
            await turns(50)
            advance(50)
        client.methods.append("POST")
        assert (await client.read_response()).status == 200


@pytest.mark.parametrize("framing", [b"x\r\n", b"5\r\nhelloX\r\n"])
async def test_a_body_with_invalid_framing_is_refused(tmp_path: Path, framing: bytes) -> None:
    async with serving(tmp_path) as (_, _, client):
        await client.send_request(body=None, headers={"Transfer-Encoding": "chunked"})
        await turns()
        await client.raw.send(framing)
        await turns()
        advance(61)
        response = await client.read_response()
        assert (response.status, response.code, response.headers["connection"]) == (408, 9001, "close")
        await let_go_of(client)


# Who leaves, and who is slow


@pytest.mark.parametrize(
    "plays",
    [
        streams(content("a"), SILENCE),
        ScriptedResponse(before_head=[SILENCE]),
        ScriptedResponse(before_connect=[SILENCE]),
        ScriptedResponse([b"{", SILENCE], content_type="application/json"),
    ],
    ids=["in a stream", "before an answer", "before a connection", "in an answer"],
)
@pytest.mark.parametrize("leaves", ["abort", "send_eof"])
async def test_when_the_client_leaves_the_providers_connection_is_closed(
    tmp_path: Path, plays: ScriptedResponse, leaves: str
) -> None:
    async with serving(tmp_path, plays) as (server, provider, client):
        await client.send_request()
        await until(lambda: provider.requests)
        await turns()
        assert provider.open_streams == 1
        getattr(client.raw, leaves)()
        await until(lambda: not provider.open_streams)
        await until(lambda: not len(server.connections))


async def test_a_client_that_leaves_while_it_sends_causes_no_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as (server, provider, client):
        await client.raw.send(request("POST", CHAT, None, {"Content-Length": "100"}) + b"x")
        await until(lambda: len(server.connections))
        client.raw.abort()
        await until(lambda: not len(server.connections))
        assert not provider.requests
    assert not caplog.records


async def test_a_client_that_has_left_already_causes_no_call(tmp_path: Path) -> None:
    """A request and the end of its connection in one packet."""
    async with serving(tmp_path) as (server, provider, client):
        await client.raw.send(request("POST", CHAT, CHAT_BODY, {}))
        client.raw.abort()
        await turns(100)
        assert not len(server.connections)
        assert not provider.requests


async def test_a_client_that_reads_nothing_is_disconnected(tmp_path: Path) -> None:
    endless = streams(*[content("x" * 10_000)] * 5000)
    async with serving(tmp_path, endless, receive_bytes=4096) as (_, provider, client):
        await client.send_request()
        reads = -1
        while reads != (reads := provider.requests[0].reads if provider.requests else -2):
            await turns(50)
        assert reads < 2000
        for _ in range(11):
            advance(5)
            await turns(20)
            assert provider.open_streams
        for _ in range(200):
            advance(5)
            await turns(20)
            if not provider.open_streams:
                break
        assert not provider.open_streams


async def test_a_client_that_reads_slowly_is_served(tmp_path: Path) -> None:
    gate = [content("x" * 10_000)] * 600
    async with serving(tmp_path, streams(*gate, FINISH, DONE), receive_bytes=4096) as (_, _, client):
        await client.send_request()
        await client.read_head()
        received_bytes = 0
        while data := await client.read_chunk():
            received_bytes += len(data)
            if received_bytes % 50 == 0:
                advance(20)
            await turns(2)
        assert received_bytes == sum(map(len, [*gate, FINISH, DONE]))


async def test_the_remaining_output_of_a_closing_connection_has_a_deadline(tmp_path: Path) -> None:
    """The response is short enough to be written at once, and the client reads none of it."""
    body = orjson.dumps("x" * 3_000_000)
    async with serving(tmp_path, answers(body), receive_bytes=4096) as (server, provider, client):
        await client.send_request(headers={"Connection": "close"})
        await until(lambda: provider.requests and provider.requests[0].closed.is_set())
        handlers = server._runner.server
        assert handlers is not None
        for _ in range(200):
            advance(5)
            await turns(20)
            if not handlers.connections:
                break
        assert not handlers.connections


# Bounds


async def test_requests_count_towards_max_sockets(tmp_path: Path) -> None:
    plays = [streams(content("a"), SILENCE), answers()]
    async with (
        serving(tmp_path, *plays, config="[server]\nmax_sockets = 2") as (server, _, client),
        connected(server, GATEWAY),
        connect_http(server) as third,
    ):
        await client.send_request()
        await client.read_head()
        response = await third()
        assert (response.status, response.code) == (503, 9008)
        client.raw.abort()
        await until(lambda: len(server.connections) == 1)
        assert (await third()).status == 200


async def test_a_connection_between_two_requests_is_kept_for_a_while(tmp_path: Path) -> None:
    async with serving(tmp_path, answers(), answers()) as (_, _, client):
        await client()
        advance(74)
        await turns()
        assert (await client()).status == 200
        advance(76)
        assert await client.raw.read_to_end() == b""


async def test_a_handshake_may_follow_an_answer_on_the_same_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, answers()) as (_, _, client):
        await client()
        assert (await client.raw.request(GATEWAY, UPGRADE)).status == 101


# The way down


@asynccontextmanager
async def stopping(
    folder: Path, *plays: ScriptedResponse
) -> AsyncIterator[tuple[Server, ScriptedProvider, HttpClient, HttpClient]]:
    """Run a bridge with one client whose response is being written and one idle client; the test stops it."""
    provider = ScriptedProvider(answers(), *plays)
    server = Server(config_of("[server]\ndrain_timeout = 9_000\n", folder), Upstream(provider))
    await server.start()
    try:
        async with connect_http(server) as busy, connect_http(server) as idle:
            await idle()
            await busy.send_request()
            await until(lambda: len(provider.requests) == 2)
            yield server, provider, busy, idle
    finally:
        await server.stop()
        assert provider.open_streams == 0


async def test_a_drain_finishes_responses_and_refuses_new_requests(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with stopping(tmp_path, ScriptedResponse(before_head=[gate], body=list(COMPLETE))) as (server, _, busy, idle):
        down = asyncio.create_task(server.stop())
        await turns()
        response = await idle()
        assert (response.status, response.code, response.headers["connection"]) == (503, 9022, "close")
        assert await idle.raw.read_to_end() == b""
        gate.set()
        response = await busy.read_response()
        assert (response.body, response.is_complete, response.headers["connection"]) == (
            b"".join(COMPLETE),
            True,
            "close",
        )
        await down
        assert await busy.raw.read_to_end() == b""


async def test_a_stream_that_exceeds_the_drain_is_cut_off(tmp_path: Path) -> None:
    async with stopping(tmp_path, streams(content("a"), SILENCE)) as (server, _, busy, idle):
        await busy.read_head()
        down = asyncio.create_task(server.stop())
        await turns()
        assert not down.done()
        advance(9.1)
        await down
        assert await busy.read_chunk() == content("a")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await busy.read_chunk()
        assert await idle.raw.read_to_end() == b""


async def test_an_event_without_an_answer_at_the_end_of_a_drain_gets_an_error(tmp_path: Path) -> None:
    async with stopping(tmp_path, ScriptedResponse(before_head=[SILENCE])) as (server, _, busy, _):
        down = asyncio.create_task(server.stop())
        await turns()
        advance(9.1)
        response = await busy.read_response()
        assert (response.status, response.code, response.headers["connection"]) == (503, 9022, "close")
        await down


async def test_a_body_that_is_incomplete_at_the_end_of_a_drain_is_dropped(tmp_path: Path) -> None:
    async with stopping(tmp_path, answers()) as (server, _, busy, idle):
        await idle.raw.send(request("POST", CHAT, None, {"Content-Length": "100"}) + b"x")
        await busy.read_response()
        await until(lambda: len(server.connections) == 1)
        down = asyncio.create_task(server.stop())
        await turns()
        advance(9.1)
        await down
        assert await idle.raw.read_to_end() == b""


async def test_idle_connections_do_not_delay_a_shutdown(tmp_path: Path) -> None:
    async with serving(tmp_path, answers()) as (server, _, client):
        await client()
        await server.stop()
        assert await client.raw.read_to_end() == b""
