"""Bounds on the memory that a client can use: by its messages, their answers and unread frames."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import cycle
from pathlib import Path

import orjson
import pytest
from aiohttp import WSMsgType

from bridge.relay.arrivals import LONG_BYTES
from bridge.server.server import Server
from tests.support.clock import advance, turns, until
from tests.support.event_harness import DONE, FINISH, content, step
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import JSON, SILENCE, ScriptedProvider, ScriptedResponse, answers, streams
from tests.support.raw_client import RawClient, frame, open_websocket
from tests.support.raw_http import connect_http

CONFIG = """
[server]
max_message_bytes = 50_000
max_buffered_bytes = 100_000
memory_budget_bytes = 150_000
max_in_flight = 100
"""
MAX_BYTES = 32 << 20


@asynccontextmanager
async def serving(folder: Path, *plays: ScriptedResponse) -> AsyncIterator[tuple[Server, ScriptedProvider]]:
    provider = ScriptedProvider(*plays)
    async with running(config_of(CONFIG, folder), provider) as server:
        yield server, provider


def create(event_id: object, size: int = 40_000, slug: str = "openai") -> bytes:
    """Return a message of about this size."""
    request = {"eventId": event_id, **step(slug), "query": "x" * size}
    return orjson.dumps({"type": "universal.create", "request": request})


# Memory of one socket


async def test_a_socket_beyond_its_budget_is_not_read_until_an_event_ends(tmp_path: Path) -> None:
    gate = asyncio.Event()
    plays = [ScriptedResponse(before_head=[gate]), *[ScriptedResponse(before_head=[SILENCE])] * 3]
    async with serving(tmp_path, *plays) as (server, provider), open_websocket(server) as client:
        await client.send(b"".join(frame(create(each)) for each in range(4)))
        await until(lambda: len(provider.requests) == 3)
        await turns(200)
        assert len(provider.requests) == 3
        gate.set()
        await until(lambda: len(provider.requests) == 4)


async def test_a_paused_socket_does_not_stop_another_socket(tmp_path: Path) -> None:
    plays = [*[ScriptedResponse(before_head=[SILENCE])] * 3, answers()]
    async with (
        serving(tmp_path, *plays) as (server, provider),
        open_websocket(server) as client,
        connected(server) as other,
    ):
        await client.send(b"".join(frame(create(each)) for each in range(4)))
        await until(lambda: len(provider.requests) == 3)
        assert (await other.call({"eventId": "a", **step()}))[-1]["metadata"]["success"]


async def test_the_events_of_a_paused_client_that_disconnects_are_cancelled(tmp_path: Path) -> None:
    plays = [*[ScriptedResponse(before_head=[SILENCE])] * 3, answers()]
    async with serving(tmp_path, *plays) as (server, provider), connected(server) as other:
        async with open_websocket(server) as client:
            await client.send(b"".join(frame(create(each)) for each in range(4)))
            await until(lambda: len(provider.requests) == 3)
        await until(lambda: not provider.open_streams)
        assert (await other.call({"eventId": "a", **step()}))[-1]["metadata"]["success"]
        assert len(provider.requests) == 4


async def test_a_paused_client_does_not_time_out(tmp_path: Path) -> None:
    """Its pongs are behind a megabyte of unread messages."""
    gate = asyncio.Event()
    plays = [*[ScriptedResponse(before_head=[gate])] * 3, *[answers()] * 30]
    async with serving(tmp_path, *plays) as (server, provider), open_websocket(server) as client:
        sending = asyncio.create_task(client.send(b"".join(frame(create(each)) for each in range(33))))
        await until(lambda: len(provider.requests) == 3)
        await turns(300)
        for _ in range(200):
            advance(1)
            await turns(5)
        gate.set()
        await sending
        ended = {(await client.receive_json())["metadata"]["eventId"] for _ in range(33)}
        assert ended == set(range(33))


async def test_buffered_answers_count_against_the_budget(tmp_path: Path) -> None:
    gate = asyncio.Event()
    half = ScriptedResponse([b'"' + b"x" * 60_000, gate, b'"'], content_type=JSON)
    async with serving(tmp_path, half, half, half) as (server, provider), connected(server) as client:
        await client.create({"eventId": "a", **step()})
        await until(lambda: provider.requests and provider.requests[0].reads)
        [received] = await client.call({"eventId": "b", **step()})
        assert (received["error"]["code"], received["error"]["source"], received["error"]["retryable"]) == (
            9008,
            "bridge",
            True,
        )
        assert received["metadata"]["status"] == 503
        gate.set()
        assert len((await client.until_last("a"))[-1]["response"]) == 60_000
        assert len((await client.call({"eventId": "c", **step()}))[-1]["response"]) == 60_000


# Memory of all sockets


async def test_a_message_beyond_the_shared_budget_is_refused_until_memory_is_free(tmp_path: Path) -> None:
    gate = asyncio.Event()
    plays = [*[ScriptedResponse(before_head=[gate])] * 3, answers()]
    async with (
        serving(tmp_path, *plays) as (server, provider),
        open_websocket(server) as one,
        connected(server) as two,
    ):
        await one.send(b"".join(frame(create(each)) for each in range(3)))
        await until(lambda: len(provider.requests) == 3)
        await two.socket.send_frame(create("late"), WSMsgType.TEXT)
        received = (await two.until_last("late"))[-1]
        assert (received["error"]["code"], received["error"]["retryable"]) == (9008, True)
        gate.set()
        await until(lambda: not provider.open_streams)
        await two.socket.send_frame(create("later"), WSMsgType.TEXT)
        assert (await two.until_last("later"))[-1]["metadata"]["success"]


@pytest.mark.parametrize("ending", [frame(b"\x03\xe8", WSMsgType.CLOSE), frame(b"x", WSMsgType.CONTINUATION), b""])
async def test_a_client_that_disconnects_at_once_frees_its_memory(tmp_path: Path, ending: bytes) -> None:
    """Its messages and its close frame arrive together, so its events end before they start."""
    never = [ScriptedResponse(before_head=[SILENCE])] * 21
    async with serving(tmp_path, *never) as (server, provider), connected(server) as other:
        for _ in range(10):
            async with open_websocket(server) as client:
                await client.send(frame(create("a", 20_000)) + frame(create("b", 20_000)) + ending)
                await (client.close_code() if ending else turns())
        await until(lambda: not provider.open_streams)
        await other.socket.send_frame(create("a"), WSMsgType.TEXT)
        await until(lambda: provider.open_streams)


# Clients that send without reading


def _junk() -> Iterator[bytes]:
    return cycle([frame(b"what is this") * 100])


def _pings() -> Iterator[bytes]:
    return cycle([frame(b"x" * 125, WSMsgType.PING) * 100])


def _unknown_providers() -> Iterator[bytes]:
    return cycle([b"".join(frame(create(each, 0, "nobody")) for each in range(100))])


def _too_many_of_one_name() -> Iterator[bytes]:
    return cycle([frame(create("same", 0)) * 100])


@pytest.mark.parametrize("flood", [_junk, _pings, _unknown_providers, _too_many_of_one_name])
async def test_a_client_that_never_reads_is_paused_and_others_are_served(tmp_path: Path, flood: object) -> None:
    assert callable(flood)
    gate = asyncio.Event()
    plays = streams(content("a"), gate, FINISH, DONE), answers()
    async with serving(tmp_path, *plays) as (server, _), open_websocket(server) as client, connected(server) as other:
        await other.create({"eventId": "a", **step()})
        await other.receive()
        sending = asyncio.create_task(_send_all(client, flood()))
        await _until_blocked(client)
        gate.set()
        assert (await other.until_last("a"))[-1]["type"] == "universal.done"
        assert not sending.done()
        sending.cancel()


async def test_a_client_that_reads_late_gets_every_answer(tmp_path: Path) -> None:
    count = 50_000
    async with serving(tmp_path) as (server, _), open_websocket(server) as client:
        sending = asyncio.create_task(client.send(frame(b"what is this" * 10) * count))
        await _until_blocked(client)
        for each in range(count):
            assert (await client.receive_json())["error"]["messageIndex"] == each
        await sending


async def _send_all(client: RawClient, flood: Iterator[bytes]) -> None:
    for part in flood:
        await client.send(part)


async def _until_blocked(client: RawClient) -> None:
    """Wait until the bridge accepts no more bytes."""
    transport = client._writer.transport
    assert isinstance(transport, asyncio.Transport)
    await until(transport.get_write_buffer_size)
    left = -1
    while left != transport.get_write_buffer_size():
        left = transport.get_write_buffer_size()
        await turns(500)


# Long incoming messages

LONG = """
[server]
max_message_bytes = 8_000_000
max_buffered_bytes = 8_000_000
memory_budget_bytes = 16_000_000
"""


ALL_BUT_ONE_BYTE = {
    "one frame": frame(b"x" * 7_000_000)[:-1],
    "frames, and pings between": frame(b"x" * 2_000_000, last=False)
    + (frame(b"", WSMsgType.PING) + frame(b"x" * 1_000_000, WSMsgType.CONTINUATION, last=False)) * 5
    + frame(b"x", WSMsgType.CONTINUATION)[:-1],
}


@pytest.mark.parametrize("how", ALL_BUT_ONE_BYTE)
async def test_incomplete_messages_count_against_the_budget(tmp_path: Path, how: str) -> None:
    """The client that exceeds the budget is disconnected, and the others continue."""
    part = ALL_BUT_ONE_BYTE[how]
    async with (
        running(config_of(LONG, tmp_path), ScriptedProvider(answers())) as server,
        open_websocket(server) as one,
        open_websocket(server) as two,
        open_websocket(server) as three,
        connected(server) as other,
    ):
        for count, client in enumerate((one, two), 1):
            await client.send(part)
            await until(lambda: server._app.state.memory.used > count * (len(part) - LONG_BYTES) - 100_000)  # noqa: B023  # now
        sending = asyncio.create_task(three.send(part))
        assert await three.close_code() == 1013
        with suppress(ConnectionError):
            await sending
        assert (await other.call({"eventId": "a", **step()}))[-1]["metadata"]["success"]
        for client in (one, two, one, two):
            await client.send(b"x")
            while (found := await client.next_frame())[0] == WSMsgType.PONG:
                pass
            assert found[0] == WSMsgType.TEXT, found
            assert orjson.loads(found[1])["error"]["code"] == 9001
            await client.send(part)


SIZE = 2_000_000
CROWDED = "[server]\nmemory_budget_bytes = 8_300_000\nmax_message_bytes = 2_100_000"
"""A budget for four messages of SIZE."""


async def test_four_of_twelve_long_messages_are_served_if_four_fit(tmp_path: Path) -> None:
    """The others get an error, and their close frame arrives although they have not finished sending."""
    gate = asyncio.Event()
    provider = ScriptedProvider(*[ScriptedResponse([gate, b"{}"], content_type=JSON)] * 4)
    async with running(config_of(CROWDED, tmp_path), provider) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_websocket(server, receive_bytes=65_536)) for _ in range(12)]
        sending = [asyncio.create_task(_send_evenly(client, create("a", SIZE), clients)) for client in clients]
        await until(lambda: len(provider.requests) == 4)
        await asyncio.gather(*sending)
        gate.set()
        received = [await client.receive_json() for client in clients]
        served = [frame for frame in received if frame["metadata"]["success"]]
        assert len(served) == 4
        refused = [(client, frame) for client, frame in zip(clients, received, strict=True) if frame not in served]
        for client, answer in refused:
            assert answer["error"]["code"] == 9008
            assert answer["error"]["messageIndex"] == 0
            assert await client.close_code() == 1013
        await until(lambda: not server._app.state.memory.used)


async def _send_evenly(client: RawClient, message: bytes, among: list[RawClient]) -> None:
    data = frame(message)
    for start in range(0, len(data), 65_536):
        await client.send(data[start : start + 65_536])
        await turns(len(among))


async def test_four_of_twelve_long_http_bodies_are_served_if_four_fit(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider(*[ScriptedResponse([gate, b"{}"], content_type=JSON)] * 4)
    async with running(config_of(CROWDED, tmp_path), provider) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect_http(server)) for _ in range(12)]
        requests = [asyncio.create_task(client(body=bytes(SIZE))) for client in clients]
        await until(lambda: len(provider.requests) == 4)
        await until(lambda: sum(task.done() for task in requests) == 8)
        gate.set()
        responses = [await task for task in requests]
        assert sorted(each.status for each in responses) == [200] * 4 + [503] * 8
        assert {each.code for each in responses if each.status == 503} == {9008}
        await until(lambda: not server._app.state.memory.used)


async def test_a_complete_message_keeps_its_memory_while_it_waits_to_be_parsed(tmp_path: Path) -> None:
    async with (
        running(config_of(CROWDED, tmp_path), ScriptedProvider(answers())) as server,
        open_websocket(server) as client,
    ):
        async with server._app.state.arrivals.reading:
            await client.send(frame(create("a", SIZE)))
            await until(lambda: server._app.state.memory.used > SIZE - LONG_BYTES - 100_000)
            await turns(100)
            assert server._app.state.memory.used > SIZE - LONG_BYTES - 100_000
        assert (await client.receive_json())["metadata"]["success"]


async def test_an_idle_socket_frees_its_last_message(tmp_path: Path) -> None:
    async with running(config_of(LONG, tmp_path), ScriptedProvider()) as server, open_websocket(server) as client:
        await client.send(frame(b"x"))
        await client.receive_json()
        tracemalloc.start()
        try:
            await client.send(frame(b"x" * 7_000_000))
            await client.receive_json()
            await until(lambda: tracemalloc.get_traced_memory()[0] < 1_000_000)
        finally:
            tracemalloc.stop()
