"""How much a client may make the bridge hold: of its messages, of answers to it, of what it does not read."""

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
from tests.support.event_harness import DONE, FINISH, said, step
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import JSON, SILENCE, Plays, ScriptedProvider, answers, streams
from tests.support.raw_client import RawClient, frame, open_websocket
from tests.support.raw_http import connect_http

CONFIG = """
[server]
max_message_bytes = 50_000
max_buffered_bytes = 100_000
memory_budget_bytes = 150_000
max_in_flight = 100
"""
MOST_BYTES = 32 << 20


@asynccontextmanager
async def serving(folder: Path, *plays: Plays) -> AsyncIterator[tuple[Server, ScriptedProvider]]:
    provider = ScriptedProvider(*plays)
    async with running(config_of(CONFIG, folder), provider) as server:
        yield server, provider


def create(event_id: object, size: int = 40_000, slug: str = "openai") -> bytes:
    """A message of about this size."""
    request = {"eventId": event_id, **step(slug), "query": "x" * size}
    return orjson.dumps({"type": "universal.create", "request": request})


# What one socket holds


async def test_past_its_budget_a_socket_is_not_read_until_an_event_ends(tmp_path: Path) -> None:
    gate = asyncio.Event()
    plays = [Plays(waiting=[gate]), *[Plays(waiting=[SILENCE])] * 3]
    async with serving(tmp_path, *plays) as (server, provider), open_websocket(server) as client:
        await client.send(b"".join(frame(create(each)) for each in range(4)))
        await until(lambda: len(provider.played) == 3)
        await turns(200)
        assert len(provider.played) == 3
        gate.set()
        await until(lambda: len(provider.played) == 4)


async def test_another_socket_is_read_all_the_while(tmp_path: Path) -> None:
    plays = [*[Plays(waiting=[SILENCE])] * 3, answers()]
    async with (
        serving(tmp_path, *plays) as (server, provider),
        open_websocket(server) as client,
        connected(server) as other,
    ):
        await client.send(b"".join(frame(create(each)) for each in range(4)))
        await until(lambda: len(provider.played) == 3)
        assert (await other.call({"eventId": "a", **step()}))[-1]["metadata"]["success"]


async def test_a_client_that_is_not_read_and_leaves_takes_its_events_with_it(tmp_path: Path) -> None:
    plays = [*[Plays(waiting=[SILENCE])] * 3, answers()]
    async with serving(tmp_path, *plays) as (server, provider), connected(server) as other:
        async with open_websocket(server) as client:
            await client.send(b"".join(frame(create(each)) for each in range(4)))
            await until(lambda: len(provider.played) == 3)
        await until(lambda: not provider.open_streams)
        assert (await other.call({"eventId": "a", **step()}))[-1]["metadata"]["success"]
        assert len(provider.played) == 4


async def test_a_client_that_is_not_read_is_not_called_silent(tmp_path: Path) -> None:
    """Its pongs stand behind a megabyte of messages that nobody has read."""
    gate = asyncio.Event()
    plays = [*[Plays(waiting=[gate])] * 3, *[answers()] * 30]
    async with serving(tmp_path, *plays) as (server, provider), open_websocket(server) as client:
        sending = asyncio.create_task(client.send(b"".join(frame(create(each)) for each in range(33))))
        await until(lambda: len(provider.played) == 3)
        await turns(300)
        for _ in range(200):
            advance(1)
            await turns(5)
        gate.set()
        await sending
        ended = {(await client.receive_json())["metadata"]["eventId"] for _ in range(33)}
        assert ended == set(range(33))


async def test_answers_on_their_way_in_count(tmp_path: Path) -> None:
    gate = asyncio.Event()
    half = Plays([b'"' + b"x" * 60_000, gate, b'"'], content_type=JSON)
    async with serving(tmp_path, half, half, half) as (server, provider), connected(server) as client:
        await client.create({"eventId": "a", **step()})
        await until(lambda: provider.played and provider.played[0].reads)
        [told] = await client.call({"eventId": "b", **step()})
        assert (told["error"]["code"], told["error"]["source"], told["error"]["retryable"]) == (9008, "bridge", True)
        assert told["metadata"]["status"] == 503
        gate.set()
        assert len((await client.until_last("a"))[-1]["response"]) == 60_000
        assert len((await client.call({"eventId": "c", **step()}))[-1]["response"]) == 60_000


# What all sockets hold together


async def test_past_the_budget_of_all_a_message_is_declined_and_later_taken(tmp_path: Path) -> None:
    gate = asyncio.Event()
    plays = [*[Plays(waiting=[gate])] * 3, answers()]
    async with (
        serving(tmp_path, *plays) as (server, provider),
        open_websocket(server) as one,
        connected(server) as two,
    ):
        await one.send(b"".join(frame(create(each)) for each in range(3)))
        await until(lambda: len(provider.played) == 3)
        await two.socket.send_frame(create("late"), WSMsgType.TEXT)
        told = (await two.until_last("late"))[-1]
        assert (told["error"]["code"], told["error"]["retryable"]) == (9008, True)
        gate.set()
        await until(lambda: not provider.open_streams)
        await two.socket.send_frame(create("later"), WSMsgType.TEXT)
        assert (await two.until_last("later"))[-1]["metadata"]["success"]


@pytest.mark.parametrize("goodbye", [frame(b"\x03\xe8", WSMsgType.CLOSE), frame(b"x", WSMsgType.CONTINUATION), b""])
async def test_what_a_client_held_that_left_at_once_is_given_back(tmp_path: Path, goodbye: bytes) -> None:
    """It asks and leaves in one breath: its events end before they have begun."""
    never = [Plays(waiting=[SILENCE])] * 21
    async with serving(tmp_path, *never) as (server, provider), connected(server) as other:
        for _ in range(10):
            async with open_websocket(server) as client:
                await client.send(frame(create("a", 20_000)) + frame(create("b", 20_000)) + goodbye)
                await (client.close_code() if goodbye else turns())
        await until(lambda: not provider.open_streams)
        await other.socket.send_frame(create("a"), WSMsgType.TEXT)
        await until(lambda: provider.open_streams)


# What a client may ask for without reading


def _junk() -> Iterator[bytes]:
    return cycle([frame(b"what is this") * 100])


def _pings() -> Iterator[bytes]:
    return cycle([frame(b"x" * 125, WSMsgType.PING) * 100])


def _unknown_providers() -> Iterator[bytes]:
    return cycle([b"".join(frame(create(each, 0, "nobody")) for each in range(100))])


def _too_many_of_one_name() -> Iterator[bytes]:
    return cycle([frame(create("same", 0)) * 100])


@pytest.mark.parametrize("flood", [_junk, _pings, _unknown_providers, _too_many_of_one_name])
async def test_who_does_not_read_is_at_last_not_answered_and_then_not_read(tmp_path: Path, flood: object) -> None:
    assert callable(flood)
    gate = asyncio.Event()
    plays = streams(said("a"), gate, FINISH, DONE), answers()
    async with serving(tmp_path, *plays) as (server, _), open_websocket(server) as client, connected(server) as other:
        await other.create({"eventId": "a", **step()})
        await other.receive()
        sending = asyncio.create_task(_send_all(client, flood()))
        await _stands_still(client)
        gate.set()
        assert (await other.until_last("a"))[-1]["type"] == "universal.done"
        assert not sending.done(), "it still could send more"
        sending.cancel()


async def test_who_asks_much_and_then_reads_gets_every_answer(tmp_path: Path) -> None:
    count = 50_000
    async with serving(tmp_path) as (server, _), open_websocket(server) as client:
        sending = asyncio.create_task(client.send(frame(b"what is this" * 10) * count))
        await _stands_still(client)
        for each in range(count):
            assert (await client.receive_json())["error"]["messageIndex"] == each
        await sending


async def _send_all(client: RawClient, flood: Iterator[bytes]) -> None:
    for part in flood:
        await client.send(part)


async def _stands_still(client: RawClient) -> None:
    """Until no more can be sent to the bridge."""
    transport = client._writer.transport
    assert isinstance(transport, asyncio.Transport)
    await until(transport.get_write_buffer_size)
    left = -1
    while left != transport.get_write_buffer_size():
        left = transport.get_write_buffer_size()
        await turns(500)


# Long messages on their way in

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
async def test_messages_that_are_not_whole_yet_count_too(tmp_path: Path, how: str) -> None:
    """Whoever would make the bridge hold too much is sent away, and the others go on."""
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
            await until(lambda: server._app._memory.used > count * (len(part) - LONG_BYTES) - 100_000)  # noqa: B023  # now
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
"""Room for four of such messages."""


async def test_of_twelve_long_messages_with_room_for_four_four_are_served(tmp_path: Path) -> None:
    """The others are told why, and their close frame arrives although they have not finished sending."""
    gate = asyncio.Event()
    provider = ScriptedProvider(*[Plays([gate, b"{}"], content_type=JSON)] * 4)
    async with running(config_of(CROWDED, tmp_path), provider) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_websocket(server, receive_bytes=65_536)) for _ in range(12)]
        sending = [asyncio.create_task(_send_evenly(client, create("a", SIZE), clients)) for client in clients]
        await until(lambda: len(provider.played) == 4)
        await asyncio.gather(*sending)
        gate.set()
        told = [await client.receive_json() for client in clients]
        served = [frame for frame in told if frame["metadata"]["success"]]
        assert len(served) == 4
        refused = [(client, frame) for client, frame in zip(clients, told, strict=True) if frame not in served]
        for client, answer in refused:
            assert answer["error"]["code"] == 9008
            assert answer["error"]["messageIndex"] == 0
            assert await client.close_code() == 1013
        await until(lambda: not server._app._memory.used)


async def _send_evenly(client: RawClient, message: bytes, among: list[RawClient]) -> None:
    data = frame(message)
    for start in range(0, len(data), 65_536):
        await client.send(data[start : start + 65_536])
        await turns(len(among))


async def test_of_twelve_long_http_bodies_with_room_for_four_four_are_served(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider(*[Plays([gate, b"{}"], content_type=JSON)] * 4)
    async with running(config_of(CROWDED, tmp_path), provider) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect_http(server)) for _ in range(12)]
        asking = [asyncio.create_task(client(body=bytes(SIZE))) for client in clients]
        await until(lambda: len(provider.played) == 4)
        await until(lambda: sum(task.done() for task in asking) == 8)
        gate.set()
        heard = [await task for task in asking]
        assert sorted(each.status for each in heard) == [200] * 4 + [503] * 8
        assert {each.code for each in heard if each.status == 503} == {9008}
        await until(lambda: not server._app._memory.used)


async def test_a_message_that_is_whole_keeps_its_room_while_it_is_read(tmp_path: Path) -> None:
    async with (
        running(config_of(CROWDED, tmp_path), ScriptedProvider(answers())) as server,
        open_websocket(server) as client,
    ):
        async with server._app._arrivals.reading:
            await client.send(frame(create("a", SIZE)))
            await until(lambda: server._app._memory.used > SIZE - LONG_BYTES - 100_000)
            await turns(100)
            assert server._app._memory.used > SIZE - LONG_BYTES - 100_000
        assert (await client.receive_json())["metadata"]["success"]


async def test_an_idle_socket_does_not_hold_on_to_what_was_said_last(tmp_path: Path) -> None:
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
