"""The client against a real bridge over tapes, and against bridges that misbehave."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer, unused_port

from bridge.client import Bridge, CannotConnect, ConnectionLost, Event, Frame, connect
from bridge.client.inbox import MAX_WAITING_BYTES
from bridge.upstream.tape import Chunk, End, Ending, Head, Request, Tape, TapeTransport, write_tape
from tests.clock import turns
from tests.harness import config_of, running

SSE = {"content-type": "text/event-stream"}


def ask(name: str) -> dict[str, object]:
    return {"provider": "openai", "endpoint": "chat/completions", "query": {"name": name}}


def item(text: str) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}) + b"\n\n"


def record(folder: Path, name: str, *chunks: bytes, end: End = End.EOF) -> None:
    """A tape that answers `ask(name)`."""
    request = Request.of("POST", "https://api.openai.com/v1/chat/completions", orjson.dumps({"name": name}))
    reads = tuple(Chunk.of(1, data) for data in chunks)
    write_tape(folder / f"{name}.jsonl", Tape(request, Head(status=200, headers=SSE, ms=0), reads, Ending(end=end)))


DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def bridge_over(folder: Path) -> AsyncIterator[tuple[Bridge, TapeTransport]]:
    """A client of a bridge that plays the folder's tapes."""
    tapes = TapeTransport(folder, pace="instant")
    async with running(config_of("", folder), tapes) as server, connect(f"{server.url}/v1/me/default") as bridge:
        yield bridge, tapes


@asynccontextmanager
async def scripted(script: Callable[[web.WebSocketResponse], Awaitable[None]]) -> AsyncIterator[Bridge]:
    """A client of something that takes one message and then does as the script says."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        await script(socket)
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    async with TestServer(app) as server, connect(str(server.make_url("/")), reconnect=False) as bridge:
        yield bridge


async def taken(event: Event) -> list[Frame]:
    return [frame async for frame in event]


def texts(frames: list[Frame]) -> str:
    return "".join(frame.response["choices"][0]["delta"]["content"] for frame in frames if frame.type == "stream")


async def test_an_event_gives_its_frames_in_order_and_as_they_came(tmp_path):
    record(tmp_path, "hello", item("Hel"), item("lo"), DONE)
    async with bridge_over(tmp_path) as (bridge, _), bridge.create(ask("hello")) as event:
        frames = await taken(event)
    assert [frame.type for frame in frames] == ["created", "stream", "stream", "done"]
    assert [frame.is_last for frame in frames] == [False, False, False, True]
    assert texts(frames) == "Hello"
    assert {frame.metadata.event_id for frame in frames} == {event.id}


async def test_events_on_one_socket_each_get_their_own_frames(tmp_path):
    names = [f"name-{number}" for number in range(20)]
    for name in names:
        record(tmp_path, name, *(item(f"{name} ") for _ in range(30)), DONE)

    async with bridge_over(tmp_path) as (bridge, _):

        async def said(name: str) -> str:
            async with bridge.create(ask(name)) as event:
                return texts(await taken(event))

        assert await asyncio.gather(*map(said, names)) == [f"{name} " * 30 for name in names]


async def test_a_request_may_be_a_chain_and_may_hold_json_that_stays_as_it_is(tmp_path):
    record(tmp_path, "second", item("two"), DONE)
    second = {**ask("second"), "query": orjson.Fragment(b'{ "name" : "second" }')}
    async with bridge_over(tmp_path) as (bridge, _):
        for chain in ([ask("on no tape"), second], {"steps": [ask("on no tape"), second]}):
            async with bridge.create(chain) as event:
                frames = await taken(event)
            assert frames[-1].metadata.step == "1"
            assert texts(frames) == "two"


async def test_leaving_early_cancels_and_the_socket_goes_on(tmp_path):
    record(tmp_path, "endless", item("on and on"), end=End.STALL)
    record(tmp_path, "hello", item("Hello"), DONE)
    async with bridge_over(tmp_path) as (bridge, tapes):
        async with bridge.create(ask("endless")) as event:
            async for frame in event:
                if frame.type == "stream":
                    break
        assert tapes.playing == 1
        async with bridge.create(ask("hello")) as event:
            assert texts(await taken(event)) == "Hello"
        await turns()
        assert tapes.playing == 0


async def test_a_cancelled_event_still_gives_its_last_frame(tmp_path):
    record(tmp_path, "endless", item("on and on"), end=End.STALL)
    async with bridge_over(tmp_path) as (bridge, tapes), bridge.create(ask("endless")) as event:
        frames = [await anext(event), await anext(event)]
        event.cancel()
        frames += await taken(event)
        assert [frame.type for frame in frames] == ["created", "stream", "error"]
        assert frames[-1].error is not None
        assert frames[-1].error.code == 9020
        assert tapes.playing == 0
        event.cancel()


async def test_a_failed_event_is_no_exception(tmp_path):
    record(tmp_path, "hello", DONE)
    async with bridge_over(tmp_path) as (bridge, _), bridge.create(ask("on no tape")) as event:
        [frame] = await taken(event)
    assert frame.error is not None
    assert (frame.error.code, frame.error.retryable) == (9019, False)
    assert "hello.jsonl" in frame.error.message


async def test_a_name_is_the_callers_and_may_be_used_again_once_its_event_is_over(tmp_path):
    record(tmp_path, "hello", item("Hello"), DONE)
    async with bridge_over(tmp_path) as (bridge, _):
        for _ in range(2):
            async with bridge.create({**ask("hello"), "eventId": 7}) as event:
                with pytest.raises(ValueError, match="7"):
                    await bridge.create(ask("hello"), 7).__aenter__()
                assert {frame.metadata.event_id for frame in await taken(event)} == {7}


@pytest.mark.parametrize(
    ("request_", "event_id", "code"),
    [
        (orjson.Fragment(b"{"), None, 9001),
        (ask("hello"), "x" * 257, 9003),
        (ask("hello"), "", 9003),
    ],
)
async def test_a_message_that_can_own_no_event_ends_the_event_that_it_was_meant_to_be(
    tmp_path, request_, event_id, code
):
    record(tmp_path, "hello", item("Hello"), DONE)
    async with bridge_over(tmp_path) as (bridge, _):
        async with bridge.create(ask("hello")) as event:
            await taken(event)
        async with bridge.create(request_, event_id) as event:
            [frame] = await taken(event)
        assert frame.error is not None
        assert frame.error.code == code


async def test_the_token_is_sent_and_a_wrong_one_is_told_in_the_bridges_words(tmp_path):
    record(tmp_path, "hello", item("Hello"), DONE)
    digest = hashlib.sha256(b"right").hexdigest()
    config = config_of(f'[gateways.mine.tokens]\nci = "sha256:{digest}"', tmp_path)
    async with running(config, TapeTransport(tmp_path, pace="instant")) as server:
        url = f"{server.url}/v1/me/mine"
        async with connect(url, "right") as bridge, bridge.create(ask("hello")) as event:
            assert texts(await taken(event)) == "Hello"
        with pytest.raises(CannotConnect, match=r"HTTP 401: Unauthorized: the token is not one of gateway 'mine'"):
            await connect(url, "wrong").__aenter__()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"ws://127.0.0.1:{unused_port()}/v1/me/default", "Connection refused"),
        ("ws://no-such-host.invalid/", "[Nn]ame"),
        ("127.0.0.1:8787", "no URL of a WebSocket"),
        ("ftp://127.0.0.1/", "no URL of a WebSocket"),
        ("", "no URL of a WebSocket"),
    ],
)
async def test_where_no_bridge_is_the_reason_is_told(url, why):
    with pytest.raises(CannotConnect, match=why):
        await connect(url).__aenter__()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (web.Response(text="no such page", status=404), "HTTP 404: Not Found"),
        (web.Response(text='{"message": 5}', status=500), "HTTP 500: 5"),
        (web.Response(status=302, headers={"Location": "/elsewhere"}), "HTTP 302: Found"),
        (web.Response(text="hello"), "HTTP 200: OK"),
    ],
)
async def test_what_does_not_upgrade_is_no_bridge_and_a_redirect_is_not_followed(answer, why):
    asked: list[str] = []

    async def serve(request: web.Request) -> web.Response:
        asked.append(request.path)
        return answer

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    async with TestServer(app) as server:
        with pytest.raises(CannotConnect, match=why):
            await connect(str(server.make_url("/here")), "secret").__aenter__()
    assert asked == ["/here"]


async def _close(socket: web.WebSocketResponse) -> None:
    await socket.close(code=1001, message=b"the bridge is shutting down")


async def _break(socket: web.WebSocketResponse) -> None:
    socket._req.transport.abort()  # as a crash would


async def _say_nonsense(socket: web.WebSocketResponse) -> None:
    await socket.send_str("hello")
    await socket.receive()


async def _say_a_list(socket: web.WebSocketResponse) -> None:
    await socket.send_str("[]")
    await socket.receive()


async def _say_bytes(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(b"\x00")
    await socket.receive()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (_close, "the bridge closed the socket: 1001 the bridge is shutting down"),
        (_break, "the connection to the bridge was lost"),
        (_say_nonsense, "no frame of a bridge"),
        (_say_a_list, "no frame of a bridge"),
        (_say_bytes, "no frame of a bridge"),
    ],
)
async def test_when_the_socket_ends_so_does_every_event_and_says_why(script, why):
    async with scripted(script) as bridge, bridge.create(ask("one")) as one, bridge.create(ask("two")) as two:
        for event in (one, two):
            with pytest.raises(ConnectionLost, match=why):
                await anext(event)
        with pytest.raises(ConnectionLost, match=why):
            await bridge.create(ask("three")).__aenter__()


async def test_leaving_the_bridge_ends_an_event_that_somebody_else_still_takes():
    async def wait(socket: web.WebSocketResponse) -> None:
        assert (await socket.receive()).type is WSMsgType.CLOSE

    async with scripted(wait) as bridge:
        event = await bridge.create(ask("one")).__aenter__()
        waiting = asyncio.create_task(taken(event))
    with pytest.raises(ConnectionLost, match="this client closed the socket"):
        await waiting


async def test_heartbeats_and_frames_of_nobody_are_passed_over():
    async def strange(socket: web.WebSocketResponse) -> None:
        await socket.send_json({"type": "universal.heartbeat", "events": []})
        await socket.send_json({"type": "universal.done", "metadata": {"eventId": "somebody-else"}})
        await socket.send_json({"type": "universal.stream"})
        await socket.send_json({"type": "universal.done", "metadata": {"eventId": "event-1"}})
        await socket.receive()

    async with scripted(strange) as bridge, bridge.create(ask("one")) as event:
        assert [frame.type for frame in await taken(event)] == ["done"]


BIG = "x" * (MAX_WAITING_BYTES // 4)


async def flood(socket: web.WebSocketResponse) -> None:
    """Frames for `slow`, twice as many as are kept for it, and then one for `quick`."""
    for _ in range(8):
        await socket.send_json({"type": "universal.stream", "metadata": {"eventId": "slow"}, "response": BIG})
    await socket.send_json({"type": "universal.done", "metadata": {"eventId": "quick"}})
    await socket.receive()


async def test_frames_that_nobody_takes_are_bounded_and_hold_up_the_others_until_their_event_is_left():
    async with scripted(flood) as bridge, bridge.create(ask("two"), "quick") as quick:
        async with bridge.create(ask("one"), "slow") as slow:
            await anext(slow)
            waiting = asyncio.create_task(anext(quick))
            await turns(200)
            assert not waiting.done()
        assert (await waiting).is_last
