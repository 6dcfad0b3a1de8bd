"""The client against a real bridge over tapes, and against bridges that misbehave."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from aiohttp import WSMsgType, web

from bridge.client import Bridge, ConnectionLost, Event, Frame, connect
from bridge.tapes.transport import (
    StreamEnd,
    Tape,
    TapeChunk,
    TapeEnding,
    TapeHead,
    TapeRequest,
    TapeTransport,
    write_tape,
)
from tests.support.client_harness import after_message, crash, fake_bridge
from tests.support.clock import turns, until
from tests.support.harness import config_of, running

SSE = {"content-type": "text/event-stream"}


def ask(name: str) -> dict[str, object]:
    return {"provider": "openai", "endpoint": "chat/completions", "query": {"name": name}}


def item(text: str) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}) + b"\n\n"


def record(folder: Path, name: str, *chunks: bytes, end: StreamEnd = StreamEnd.EOF) -> None:
    """A tape that answers `ask(name)`."""
    request = TapeRequest.of("POST", "https://api.openai.com/v1/chat/completions", orjson.dumps({"name": name}))
    reads = tuple(TapeChunk.of(1, data) for data in chunks)
    write_tape(
        folder / f"{name}.jsonl", Tape(request, TapeHead(status=200, headers=SSE, ms=0), reads, TapeEnding(end=end))
    )


DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def bridge_over(folder: Path) -> AsyncIterator[tuple[Bridge, TapeTransport]]:
    """A client of a bridge that plays the folder's tapes."""
    tapes = TapeTransport(folder, pace="instant")
    async with running(config_of("", folder), tapes) as server, connect(f"{server.url}/v1/me/default") as bridge:
        yield bridge, tapes


async def frames_of(event: Event) -> list[Frame]:
    return [frame async for frame in event]


def texts(frames: list[Frame]) -> str:
    return "".join(frame.response["choices"][0]["delta"]["content"] for frame in frames if frame.type == "stream")


async def test_an_event_gives_its_frames_in_order_and_as_they_came(tmp_path):
    record(tmp_path, "hello", item("Hel"), item("lo"), DONE)
    async with bridge_over(tmp_path) as (bridge, _), bridge.create(ask("hello")) as event:
        frames = await frames_of(event)
    assert [frame.type for frame in frames] == ["created", "stream", "stream", "done"]
    assert [frame.is_last for frame in frames] == [False, False, False, True]
    assert texts(frames) == "Hello"
    assert {frame.metadata.event_id for frame in frames} == {event.id}


async def test_events_on_one_socket_each_get_their_own_frames(tmp_path):
    names = [f"name-{number}" for number in range(20)]
    for name in names:
        record(tmp_path, name, *(item(f"{name} ") for _ in range(30)), DONE)

    async with bridge_over(tmp_path) as (bridge, _):

        async def text_of_event(name: str) -> str:
            async with bridge.create(ask(name)) as event:
                return texts(await frames_of(event))

        assert await asyncio.gather(*map(text_of_event, names)) == [f"{name} " * 30 for name in names]


async def test_a_request_may_be_a_chain_and_may_hold_json_that_stays_as_it_is(tmp_path):
    record(tmp_path, "second", item("two"), DONE)
    second = {**ask("second"), "query": orjson.Fragment(b'{ "name" : "second" }')}
    async with bridge_over(tmp_path) as (bridge, _):
        for chain in ([ask("on no tape"), second], {"steps": [ask("on no tape"), second]}):
            async with bridge.create(chain) as event:
                frames = await frames_of(event)
            assert frames[-1].metadata.step == "1"
            assert texts(frames) == "two"


async def test_leaving_early_cancels_and_the_socket_goes_on(tmp_path):
    record(tmp_path, "endless", item("on and on"), end=StreamEnd.STALL)
    record(tmp_path, "hello", item("Hello"), DONE)
    async with bridge_over(tmp_path) as (bridge, tapes):
        async with bridge.create(ask("endless")) as event:
            async for frame in event:
                if frame.type == "stream":
                    break
        assert tapes.playing == 1
        async with bridge.create(ask("hello")) as event:
            assert texts(await frames_of(event)) == "Hello"
        await turns()
        assert tapes.playing == 0


async def test_a_collected_event_is_cancelled(tmp_path):
    """The caller drops the last reference, and closes nothing."""
    record(tmp_path, "endless", item("on and on"), end=StreamEnd.STALL)
    async with bridge_over(tmp_path) as (bridge, tapes):
        event = await bridge.create(ask("endless")).open()
        assert (await event.take()) is not None
        assert tapes.playing == 1
        del event
        gc.collect()
        await until(lambda: tapes.playing == 0)


async def test_a_cancelled_event_still_gives_its_last_frame(tmp_path):
    record(tmp_path, "endless", item("on and on"), end=StreamEnd.STALL)
    async with bridge_over(tmp_path) as (bridge, tapes), bridge.create(ask("endless")) as event:
        frames = [await anext(event), await anext(event)]
        event.cancel()
        frames += await frames_of(event)
        assert [frame.type for frame in frames] == ["created", "stream", "error"]
        assert frames[-1].error is not None
        assert frames[-1].error.code == 9020
        assert tapes.playing == 0
        event.cancel()


async def test_a_failed_event_raises_nothing(tmp_path):
    record(tmp_path, "hello", DONE)
    async with bridge_over(tmp_path) as (bridge, _), bridge.create(ask("on no tape")) as event:
        [frame] = await frames_of(event)
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
                assert {frame.metadata.event_id for frame in await frames_of(event)} == {7}


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
            await frames_of(event)
        async with bridge.create(request_, event_id) as event:
            [frame] = await frames_of(event)
        assert frame.error is not None
        assert frame.error.code == code


async def _close(socket: web.WebSocketResponse) -> None:
    await socket.close(code=1001, message=b"the bridge is shutting down")


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
        (crash, "the connection to the bridge was lost"),
        (_say_nonsense, "not a frame"),
        (_say_a_list, "not a frame"),
        (_say_bytes, "not a frame"),
    ],
)
async def test_every_event_fails_with_the_reason_when_the_socket_ends(script, why):
    async with (
        fake_bridge(after_message(script), reconnect=False) as (bridge, _),
        bridge.create(ask("one")) as one,
        bridge.create(ask("two")) as two,
    ):
        for event in (one, two):
            with pytest.raises(ConnectionLost, match=why):
                await anext(event)
        with pytest.raises(ConnectionLost, match=why):
            await bridge.create(ask("three")).__aenter__()


async def test_a_close_frame_need_not_have_a_reason() -> None:
    async def close(socket: web.WebSocketResponse) -> None:
        await socket._writer.send_frame(b"", WSMsgType.CLOSE)

    async with fake_bridge(after_message(close), reconnect=False) as (bridge, _), bridge.create(ask("one")) as event:
        with pytest.raises(ConnectionLost, match=r"^the bridge closed the socket$") as lost:
            await anext(event)
        assert lost.value.code is None


async def test_leaving_the_bridge_ends_an_event_that_somebody_else_still_takes():
    async def wait(socket: web.WebSocketResponse) -> None:
        assert (await socket.receive()).type is WSMsgType.CLOSE

    async with fake_bridge(after_message(wait), reconnect=False) as (bridge, _):
        event = await bridge.create(ask("one")).__aenter__()
        waiting = asyncio.create_task(frames_of(event))
    with pytest.raises(ConnectionLost, match="this client closed the socket"):
        await waiting


async def test_heartbeats_and_frames_of_unknown_events_are_ignored():
    async def strange(socket: web.WebSocketResponse) -> None:
        await socket.send_json({"type": "universal.heartbeat", "events": []})
        await socket.send_json({"type": "universal.done", "metadata": {"eventId": "somebody-else"}})
        await socket.send_json({"type": "universal.stream"})
        await socket.send_json({"type": "universal.done", "metadata": {"eventId": "event-1"}})
        await socket.receive()

    async with fake_bridge(after_message(strange), reconnect=False) as (bridge, _), bridge.create(ask("one")) as event:
        assert [frame.type for frame in await frames_of(event)] == ["done"]
