"""Graceful shutdown: idle sockets close, events in flight finish or time out, and no task remains."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.server.server import Server
from bridge.upstream.http import Upstream
from tests.support.clock import advance, turns, until
from tests.support.event_harness import DONE, FINISH, content, step
from tests.support.harness import config_of, connected
from tests.support.provider_script import SILENCE, ScriptedProvider, ScriptedResponse, answers, streams
from tests.support.raw_client import PATH, UPGRADE, connect_raw, open_websocket

CREATE = {"type": "universal.create", "request": {"eventId": "a", **step()}}


@asynccontextmanager
async def started(folder: Path, *plays: ScriptedResponse) -> AsyncIterator[tuple[Server, ScriptedProvider]]:
    """Run a server that the test stops."""
    provider = ScriptedProvider(*plays)
    server = Server(config_of("[server]\ndrain_timeout = 9_000\n", folder), Upstream(provider))
    await server.start()
    try:
        yield server, provider
    finally:
        await server.stop()
        assert provider.open_streams == 0


async def test_a_drain_closes_idle_sockets_and_the_listening_socket(tmp_path: Path) -> None:
    async with (
        started(tmp_path, answers()) as (server, _),
        connected(server) as client,
        connected(server) as used,
        connect_raw(server) as late,
    ):
        await used.call({"eventId": "a", **step()})
        stopping = asyncio.create_task(server.stop())
        await turns(1)
        assert await client.close_code() == 1001
        assert await used.close_code() == 1001
        assert await late.read_to_end() == b""
        await stopping
        with pytest.raises(OSError, match="Connect call failed"):
            async with connect_raw(server):
                pass


async def test_events_in_flight_finish_and_new_events_are_refused(tmp_path: Path) -> None:
    gate = asyncio.Event()
    whole = streams(content("a"), gate, content("b"), FINISH, DONE)
    async with started(tmp_path, whole) as (server, _), connected(server) as client:
        await client.create({"eventId": "a", **step()})
        await client.receive()
        stopping = asyncio.create_task(server.stop())
        await turns(1)
        for each in range(2):
            [refused] = await client.call({"eventId": each, **step()})
            assert (refused["error"]["code"], refused["error"]["retryable"]) == (9022, True)
            assert refused["metadata"]["status"] == 503
        gate.set()
        assert (await client.until_last("a"))[-1]["type"] == "universal.done"
        assert await client.close_code() == 1001
        await stopping


async def test_a_handshake_on_an_open_connection_is_refused_during_a_drain(tmp_path: Path) -> None:
    gate = asyncio.Event()
    whole = streams(content("a"), gate, FINISH, DONE)
    async with (
        started(tmp_path, whole) as (server, _),
        connected(server) as client,
        connect_raw(server) as late,
    ):
        await client.create({"eventId": "a", **step()})
        await client.receive()
        stopping = asyncio.create_task(server.stop())
        await turns(1)
        answered = await late.request(PATH, UPGRADE)
        assert (answered.status, answered.code) == (503, 9022)
        gate.set()
        await stopping
        assert await late.read_to_end() == b""


async def test_the_drain_timeout_ends_events_in_flight(tmp_path: Path) -> None:
    plays = [streams(content("a"), SILENCE), ScriptedResponse(before_head=[SILENCE])]
    async with started(tmp_path, *plays) as (server, provider), connected(server) as client:
        await client.create({"eventId": "streaming", **step()})
        await client.receive()
        await client.create({"eventId": "waiting", **step()})
        await until(lambda: provider.open_streams == 2)
        stopping = asyncio.create_task(server.stop())
        await turns()
        advance(8.9)
        await turns()
        assert provider.open_streams == 2
        advance(0.2)
        for each in ("streaming", "waiting"):
            last = (await client.until_last(each))[-1]
            assert (last["type"], last["error"]["code"], last["metadata"]["success"]) == (
                "universal.error",
                9022,
                False,
            )
        assert await client.close_code() == 1001
        await stopping
        assert provider.open_streams == 0


async def test_a_client_that_does_not_read_does_not_delay_the_stop(tmp_path: Path) -> None:
    endless = streams(*[content("x" * 10_000)] * 5000)
    async with started(tmp_path, endless) as (server, provider), open_websocket(server) as client:
        await client.send_json(CREATE)
        await until(lambda: provider.requests and provider.requests[0].reads > 100)
        stopping = asyncio.create_task(server.stop())
        for _ in range(20):
            advance(1)
            await turns(50)
        await stopping
        assert await client.close_code() is None


async def test_a_client_that_does_not_answer_the_close_does_not_delay_the_stop(tmp_path: Path) -> None:
    async with started(tmp_path) as (server, _), open_websocket(server) as client:
        await server.stop()
        assert await client.close_code() == 1001
        assert await client.read_to_end() == b""


@pytest.mark.parametrize("sent_before", [b"", b"GET /v1/account/gateway HTTP/1.1\r\nHo"])
async def test_a_connection_without_a_handshake_does_not_delay_the_stop(tmp_path: Path, sent_before: bytes) -> None:
    async with started(tmp_path) as (server, _), connect_raw(server) as client:
        await client.send(sent_before)
        await turns()
        await server.stop()
        assert await client.read_to_end() == b""


async def test_stop_may_be_called_several_times(tmp_path: Path) -> None:
    gate = asyncio.Event()
    whole = streams(content("a"), gate, FINISH, DONE)
    async with started(tmp_path, whole) as (server, _), connected(server) as client:
        await client.create({"eventId": "a", **step()})
        await client.receive()
        stops = [asyncio.create_task(server.stop()) for _ in range(3)]
        await turns()
        gate.set()
        assert (await client.until_last("a"))[-1]["type"] == "universal.done"
        assert await client.close_code() == 1001
        await asyncio.gather(*stops)
        await server.stop()


async def test_a_server_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    await Server(config_of("", tmp_path), Upstream(ScriptedProvider())).stop()


async def test_no_task_remains_after_a_stop(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    plays = [streams(content("a"), SILENCE)] * 2
    async with (
        started(tmp_path, *plays) as (server, provider),
        open_websocket(server) as one,
        open_websocket(server) as two,
        connect_raw(server),
        open_websocket(server),
    ):
        await one.send_json(CREATE)
        await two.send_json(CREATE)
        await until(lambda: provider.open_streams == 2)
        stopping = asyncio.create_task(server.stop())
        await turns()
        advance(9.1)
        await stopping
        assert asyncio.all_tasks() == before
