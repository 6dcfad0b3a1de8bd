"""The way down: idle sockets close at once, events in flight finish or meet the deadline, and nothing is left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.server.server import Server
from bridge.upstream.http import Upstream
from tests.support.clock import advance, turns, until
from tests.support.event_harness import DONE, FINISH, said, step
from tests.support.harness import config_of, connected
from tests.support.provider_script import SILENCE, Plays, ScriptedProvider, answers, streams
from tests.support.raw_client import PATH, UPGRADE, dialled, upgraded

CREATE = {"type": "universal.create", "request": {"eventId": "a", **step()}}


@asynccontextmanager
async def started(folder: Path, *plays: Plays) -> AsyncIterator[tuple[Server, ScriptedProvider]]:
    """The test stops it."""
    provider = ScriptedProvider(*plays)
    server = Server(config_of("[server]\ndrain_timeout = 9_000\n", folder), Upstream(provider))
    await server.start()
    try:
        yield server, provider
    finally:
        await server.stop()
        assert provider.open_streams == 0


async def test_idle_sockets_close_at_once_and_nobody_else_comes_in(tmp_path: Path) -> None:
    async with (
        started(tmp_path, answers()) as (server, _),
        connected(server) as client,
        connected(server) as used,
        dialled(server) as late,
    ):
        await used.call({"eventId": "a", **step()})
        stopping = asyncio.create_task(server.stop())
        await turns(1)
        assert await client.close_code() == 1001
        assert await used.close_code() == 1001
        assert await late.gone() == b""
        await stopping
        with pytest.raises(OSError, match="Connect call failed"):
            async with dialled(server):
                pass


async def test_events_in_flight_finish_and_new_ones_are_declined(tmp_path: Path) -> None:
    gate = asyncio.Event()
    whole = streams(said("a"), gate, said("b"), FINISH, DONE)
    async with started(tmp_path, whole) as (server, _), connected(server) as client:
        await client.create({"eventId": "a", **step()})
        await client.receive()
        stopping = asyncio.create_task(server.stop())
        await turns(1)
        for each in range(2):
            [told] = await client.call({"eventId": each, **step()})
            assert (told["error"]["code"], told["error"]["retryable"]) == (9022, True)
            assert told["metadata"]["status"] == 503
        gate.set()
        assert (await client.until_last("a"))[-1]["type"] == "universal.done"
        assert await client.close_code() == 1001
        await stopping


async def test_a_handshake_on_a_connection_that_was_open_is_declined(tmp_path: Path) -> None:
    gate = asyncio.Event()
    whole = streams(said("a"), gate, FINISH, DONE)
    async with (
        started(tmp_path, whole) as (server, _),
        connected(server) as client,
        dialled(server) as late,
    ):
        await client.create({"eventId": "a", **step()})
        await client.receive()
        stopping = asyncio.create_task(server.stop())
        await turns(1)
        answered = await late.get(PATH, UPGRADE)
        assert (answered.status, answered.code) == (503, 9022)
        gate.set()
        await stopping
        assert await late.gone() == b""


async def test_the_deadline_ends_what_is_in_flight(tmp_path: Path) -> None:
    plays = [streams(said("a"), SILENCE), Plays(waiting=[SILENCE])]
    async with started(tmp_path, *plays) as (server, provider), connected(server) as client:
        await client.create({"eventId": "told", **step()})
        await client.receive()
        await client.create({"eventId": "untold", **step()})
        await until(lambda: provider.open_streams == 2)
        stopping = asyncio.create_task(server.stop())
        await turns()
        advance(8.9)
        await turns()
        assert provider.open_streams == 2
        advance(0.2)
        for each in ("told", "untold"):
            last = (await client.until_last(each))[-1]
            assert (last["type"], last["error"]["code"], last["metadata"]["success"]) == (
                "universal.error",
                9022,
                False,
            )
        assert await client.close_code() == 1001
        await stopping
        assert provider.open_streams == 0


async def test_a_client_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    endless = streams(*[said("x" * 10_000)] * 5000)
    async with started(tmp_path, endless) as (server, provider), upgraded(server) as client:
        await client.say(CREATE)
        await until(lambda: provider.played and provider.played[0].reads > 100)
        stopping = asyncio.create_task(server.stop())
        for _ in range(20):
            advance(1)
            await turns(50)
        await stopping
        assert await client.closed() is None


async def test_a_client_that_does_not_answer_the_close_holds_nobody_up(tmp_path: Path) -> None:
    async with started(tmp_path) as (server, _), upgraded(server) as client:
        await server.stop()
        assert await client.closed() == 1001
        assert await client.gone() == b""


@pytest.mark.parametrize("said_before", [b"", b"GET /v1/account/gateway HTTP/1.1\r\nHo"])
async def test_a_connection_without_a_handshake_holds_nobody_up(tmp_path: Path, said_before: bytes) -> None:
    async with started(tmp_path) as (server, _), dialled(server) as client:
        await client.send(said_before)
        await turns()
        await server.stop()
        assert await client.gone() == b""


async def test_stopping_again_is_stopping_once(tmp_path: Path) -> None:
    gate = asyncio.Event()
    whole = streams(said("a"), gate, FINISH, DONE)
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


async def test_a_server_that_was_never_started_stops(tmp_path: Path) -> None:
    await Server(config_of("", tmp_path), Upstream(ScriptedProvider())).stop()


async def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    plays = [streams(said("a"), SILENCE)] * 2
    async with (
        started(tmp_path, *plays) as (server, provider),
        upgraded(server) as one,
        upgraded(server) as two,
        dialled(server),
        upgraded(server),
    ):
        await one.say(CREATE)
        await two.say(CREATE)
        await until(lambda: provider.open_streams == 2)
        stopping = asyncio.create_task(server.stop())
        await turns()
        advance(9.1)
        await stopping
        assert asyncio.all_tasks() == before
