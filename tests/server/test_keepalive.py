"""Ping silent clients, drop dead ones, close slow ones, and keep all others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import WSMsgType

from bridge.server.server import Server
from tests.support.clock import advance, turns, until
from tests.support.event_harness import DONE, FINISH, content, step
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import SILENCE, ScriptedProvider, ScriptedResponse, answers, streams
from tests.support.raw_client import PATH, RawClient, frame, open_websocket

CREATE = {"type": "universal.create", "request": {"eventId": "a", **step()}}
PING = b"\x89\x00"
PONG = frame(b"", WSMsgType.PONG)
CHUNK = content("x" * 10_000)


@asynccontextmanager
async def serving(folder: Path, *plays: ScriptedResponse) -> AsyncIterator[tuple[Server, ScriptedProvider]]:
    provider = ScriptedProvider(*plays)
    async with running(config_of("", folder), provider) as server:
        yield server, provider


async def pass_s(seconds: float) -> None:
    """Advance the clock second by second, so that every due timer runs."""
    for _ in range(round(seconds)):
        advance(1)
        await turns(20)


# Pings


async def test_a_silent_client_is_pinged_after_20_s_and_stays_if_it_answers(tmp_path: Path) -> None:
    async with serving(tmp_path, answers()) as (server, _), open_websocket(server) as client:
        for _ in range(5):
            await pass_s(21)
            assert (await client.next_frame())[0] == WSMsgType.PING
            await client.send(PONG)
        await client.send_json(CREATE)
        assert (await client.receive_json())["metadata"]["success"]


async def test_a_client_that_sends_messages_is_not_pinged(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _), open_websocket(server) as client:
        for _ in range(4):
            await pass_s(15)
            await client.send(frame(b"x"))
            assert (await client.next_frame())[0] == WSMsgType.TEXT


@pytest.mark.parametrize("pinging", [frame(b"are you there", WSMsgType.PING), PONG])
async def test_control_frames_are_signs_of_life(tmp_path: Path, pinging: bytes) -> None:
    async with serving(tmp_path) as (server, _), open_websocket(server) as client:
        for _ in range(6):
            await pass_s(15)
            await client.send(pinging)
        await client.send(frame(b"x"))
        while (found := await client.next_frame())[0] == WSMsgType.PONG:
            assert found[1] == b"are you there"
        assert found[0] == WSMsgType.TEXT


async def test_a_part_of_a_long_message_is_a_sign_of_life(tmp_path: Path) -> None:
    """The client cannot answer a ping within a message."""
    message = frame(b'"' + b"x" * 100 + b'"')
    async with serving(tmp_path) as (server, _), open_websocket(server) as client:
        for at in range(0, len(message), 10):
            await client.send(message[at : at + 10])
            await pass_s(15)
        assert (await client.receive_json())["error"]["code"] == 9001


# Gone


async def test_a_client_that_is_silent_for_60_s_is_dropped_with_its_events(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, ScriptedResponse(before_head=[SILENCE])) as (server, provider),
        open_websocket(server) as client,
    ):
        await client.send_json(CREATE)
        await until(lambda: provider.open_streams)
        await pass_s(59)
        assert provider.open_streams == 1
        await pass_s(2)
        assert provider.open_streams == 0
        assert await client.read_to_end() == PING * 2


async def test_a_silent_client_that_reads_is_not_dropped(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, streams(SILENCE)) as (server, _),
        open_websocket(server, PATH + "?heartbeat=10") as client,
    ):
        await client.send_json(CREATE)
        await pass_s(200)
        await client.send(frame(b"x"))
        types = [(await client.receive_json())["type"] for _ in range(21)]
        assert types == ["universal.heartbeat"] * 20 + ["universal.error"]


# Heartbeats


async def test_heartbeats_name_the_events_in_flight_and_their_phase(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, ScriptedResponse(before_head=[SILENCE])) as (server, _),
        connected(server, PATH + "?heartbeat=5") as client,
    ):
        await client.create({"eventId": 7, **step()})
        await pass_s(4)
        await client.send("x")
        assert (await client.receive())["type"] == "universal.error"
        await pass_s(1.1)
        beat = await client.receive()
        assert beat == {
            "type": "universal.heartbeat",
            "events": [{"eventId": 7, "phase": "waiting", "step": "0"}],
        }


async def test_a_heartbeat_names_the_current_step(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, answers(status=401), ScriptedResponse(before_head=[SILENCE])) as (server, provider),
        connected(server, PATH + "?heartbeat=5") as client,
    ):
        await client.create([{"eventId": 7, **step()}, step("groq")])
        await until(lambda: len(provider.requests) == 2)
        await pass_s(5.1)
        assert (await client.receive())["events"] == [{"eventId": 7, "phase": "waiting", "step": "1"}]


async def test_a_heartbeat_without_events_is_empty(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _), open_websocket(server, PATH + "?heartbeat=1") as client:
        await pass_s(3)
        assert [(await client.receive_json())["events"] for _ in range(3)] == [[], [], []]


async def test_no_heartbeat_is_sent_unless_requested(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _), open_websocket(server) as client:
        await pass_s(19)
        await client.send(frame(b"x"))
        assert (await client.receive_json())["type"] == "universal.error"


# Slow, and too slow


async def test_a_slow_reader_keeps_its_socket_and_gets_all_frames(tmp_path: Path) -> None:
    """The client reads 10 KB every 5 s for minutes, with 3 MB queued, and sends nothing."""
    whole = streams(*[CHUNK] * 300, FINISH, DONE)
    async with serving(tmp_path, whole) as (server, _), open_websocket(server) as client:
        await client.send_json(CREATE)
        assert (await client.receive_json())["type"] == "universal.created"
        for _ in range(40):
            assert (await client.receive_json())["type"] == "universal.stream"
            await pass_s(5)
        types = [(await client.receive_json())["type"] for _ in range(262)]
        assert types == ["universal.stream"] * 261 + ["universal.done"]


async def test_a_client_that_reads_nothing_while_frames_are_queued_is_closed(tmp_path: Path) -> None:
    endless = streams(*[CHUNK] * 5000)
    async with serving(tmp_path, endless) as (server, provider), open_websocket(server) as client:
        await client.send_json(CREATE)
        await _stands_still(provider)
        assert await _seconds_until_cancelled(client, provider) >= 60
        assert await client.close_code() == 1008


async def test_a_slow_client_that_ignores_the_close_frame_is_dropped(tmp_path: Path) -> None:
    endless = streams(*[CHUNK] * 5000)
    async with serving(tmp_path, endless) as (server, provider), open_websocket(server) as client:
        await client.send_json(CREATE)
        await _stands_still(provider)
        await _seconds_until_cancelled(client, provider)
        await pass_s(6)
        assert await client.close_code() is None


async def test_a_pause_in_reading_that_ends_in_time_has_no_effect(tmp_path: Path) -> None:
    whole = streams(*[CHUNK] * 600, FINISH, DONE)
    async with serving(tmp_path, whole) as (server, provider), open_websocket(server) as client:
        await client.send_json(CREATE)
        for _ in range(3):
            await _stands_still(provider)
            await pass_s(50)
            await _read_some(client, 100_000)
        while (await client.receive_json())["type"] != "universal.done":
            pass


async def _read_some(client: RawClient, size: int) -> None:
    """Read about so many bytes, and return their frames."""
    while size > 0:
        size -= len((await client.next_frame())[1])


async def _stands_still(provider: ScriptedProvider) -> None:
    """Wait until the bridge no longer reads from the provider."""
    await until(lambda: provider.requests)
    reads = -1
    while reads != provider.requests[-1].reads:
        reads = provider.requests[-1].reads
        await turns(300)


async def _seconds_until_cancelled(client: RawClient, provider: ScriptedProvider) -> int:
    """Return the seconds until the event is cancelled, while the client answers pings.

    The kernel may accept a little more data, which takes longer.
    """
    passed_s = 0
    while provider.open_streams:
        await client.send(PONG)
        await pass_s(1)
        passed_s += 1
    return passed_s
