"""Limit the memory and the duration of sessions, and release everything at their end."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from bridge.server.realtime import accounting
from bridge.server.server import Server
from tests.end_to_end.test_leaks import COUNT, Resources, needs_proc, until_released
from tests.support.clock import advance, turns, until
from tests.support.harness import config_of
from tests.support.raw_client import UPGRADE, RawClient, connect_raw, frame
from tests.support.realtime_harness import (
    CLOSE,
    PATH,
    PING,
    TEXT,
    AcceptingProvider,
    ProviderSide,
    client_close_frame,
    close_payload,
    connect_realtime,
    open_session,
    open_session_with_server,
    realtime_bridge,
    server_frame,
)
from tests.support.socket_provider import Line

MOST_BYTES = 32 << 20
"""More than all buffers on the way hold; and a small part of what would be sent."""
PIECE = b"x" * 50_000


class Says:
    """One side that sends as much as it can."""

    def __init__(self, say: Callable[[bytes], Awaitable[None]], piece: bytes) -> None:
        self.sent_bytes = 0
        self._task = asyncio.create_task(self._run(say, piece))

    async def _run(self, say: Callable[[bytes], Awaitable[None]], piece: bytes) -> None:
        while True:
            await say(piece)
            self.sent_bytes += len(piece)

    async def stands_still(self) -> int:
        sent_bytes = -1
        while sent_bytes != self.sent_bytes:
            sent_bytes = self.sent_bytes
            await turns(200)
        return sent_bytes

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.parametrize("slow", ["client", "provider"])
async def test_a_side_that_does_not_read_stops_the_other(tmp_path: Path, slow: str) -> None:
    """The other direction continues."""
    async with open_session(tmp_path) as (client, side):
        says = Says(side.line.send, server_frame(PIECE)) if slow == "client" else Says(client.send, frame(PIECE))
        await until(lambda: says.sent_bytes)
        stood = await says.stands_still()
        assert 100_000 < stood < MOST_BYTES
        if slow == "client":
            await client.send(frame(b"still heard"))
            assert await side.next_frame() == (TEXT, b"still heard")
            for _ in range(100):
                assert await client.next_frame() == (TEXT, PIECE)
        else:
            await side.send(b"still heard")
            assert await client.next_frame() == (TEXT, b"still heard")
            for _ in range(100):
                assert await side.next_frame() == (TEXT, PIECE)
        await until(lambda: says.sent_bytes > stood)
        await says.end()


@pytest.mark.parametrize("slow", ["client", "provider"])
async def test_a_side_that_reads_nothing_for_too_long_is_disconnected(tmp_path: Path, slow: str) -> None:
    async with open_session(tmp_path, "slow_client_timeout = 60_000\npeer_timeout = 60_000") as (client, side):
        says = Says(side.line.send, server_frame(PIECE)) if slow == "client" else Says(client.send, frame(PIECE))
        await until(lambda: says.sent_bytes)
        await says.stands_still()
        await says.end()
        for _ in range(14):
            advance(5)
            await turns(5)
        if slow == "client":
            assert await side.close_frame() == (1011, "the client read nothing for too long")
            assert await client_close_frame(client) == (1008, "too slow")
        else:
            assert await client_close_frame(client) == (1011, "the provider read nothing for too long")
            assert await side.close_frame() == (1008, "too slow")


async def test_a_side_that_does_not_read_gets_one_pong_for_many_pings(tmp_path: Path) -> None:
    """Queued pongs would fill the bridge's memory."""
    async with open_session(tmp_path) as (client, side):
        says = Says(side.line.send, server_frame(PIECE))
        await until(lambda: says.sent_bytes)
        await says.stands_still()
        await says.end()
        before = Resources.now()
        await client.send(b"".join(frame(b"%d" % each, PING) for each in range(10_000)) + frame(b"and"))
        assert await side.next_frame() == (TEXT, b"and")
        assert Resources.now().tasks <= before.tasks
        found = [await client.next_frame() for _ in range(says.sent_bytes // len(server_frame(PIECE)) + 1)]
        assert [each for each in found if each[0] == 10] == [(10, b"9999")]


async def test_a_session_without_messages_is_closed(tmp_path: Path) -> None:
    async with open_session(tmp_path, "realtime_idle_timeout = 20_000\npeer_timeout = 3_600_000") as (client, side):
        for _ in range(6):
            advance(15)
            await client.send(frame(b"a word"))
            assert await side.next_payload() == b"a word"
            await turns(2)
        for _ in range(24):
            advance(1)
            await turns(2)
        assert await client_close_frame(client) == (1001, "no message was sent for too long")
        assert await side.close_frame() == (1001, "")


async def test_a_session_has_a_maximum_duration(tmp_path: Path) -> None:
    settings = "realtime_session_timeout = 60_000\nrealtime_idle_timeout = 0\npeer_timeout = 3_600_000"
    async with open_session(tmp_path, settings) as (client, side):
        advance(59)
        await client.send(frame(b"a word"))
        assert await side.next_payload() == b"a word"
        advance(2)
        assert await client_close_frame(client) == (1001, "the session has reached its maximum duration")
        assert await side.close_frame() == (1001, "")


async def test_a_timeout_of_0_is_unlimited(tmp_path: Path) -> None:
    settings = "realtime_session_timeout = 0\nrealtime_idle_timeout = 0\npeer_timeout = 2_000_000_000"
    async with open_session(tmp_path, settings) as (client, side):
        advance(1_000_000)
        await client.send(frame(b"a word"))
        assert await side.next_payload() == b"a word"


@pytest.mark.parametrize("silent", ["client", "provider"])
async def test_each_side_is_pinged_and_a_silent_one_counts_as_lost(tmp_path: Path, silent: str) -> None:
    async with open_session(tmp_path) as (client, side):
        ended = asyncio.create_task(side.close_frame() if silent == "client" else client_close_frame(client))
        for _ in range(12):
            assert not ended.done()
            await (side.send(b"") if silent == "client" else client.send(frame(b"")))
            await turns(20)
            advance(5)
            await turns(20)
        assert await ended == (1011, f"the connection to the {silent} was lost")


async def test_messages_that_exceed_the_memory_budget_close_the_session(tmp_path: Path) -> None:
    async with open_session(tmp_path, "memory_budget_bytes = 3_000_000") as (client, side):
        says = Says(client.send, frame(b"x" * 10_000_000))
        assert await client_close_frame(client) == (1013, "out of memory")
        assert await side.close_frame() == (1001, "")
        await says.end()


async def test_long_messages_release_their_memory(tmp_path: Path) -> None:
    async with open_session(tmp_path, "memory_budget_bytes = 5_000_000") as (client, side):
        for _ in range(5):
            sending = asyncio.create_task(client.send(frame(b"x" * 4_000_000)))
            assert await side.next_frame() == (TEXT, b"x" * 4_000_000)
            await sending
            sending = asyncio.create_task(side.send(b"y" * 4_000_000))
            assert await client.next_frame() == (TEXT, b"y" * 4_000_000)
            await sending


async def test_a_side_that_leaves_within_a_long_message_releases_its_memory(tmp_path: Path) -> None:
    sockets = AcceptingProvider()
    async with realtime_bridge(sockets.script, tmp_path, "memory_budget_bytes = 5_000_000") as server:
        for _ in range(4):
            async with connect_realtime(server) as client:
                side = await sockets.next_session()
                sending = asyncio.create_task(client.send(frame(b"x" * 8_000_000)[:4_000_000]))
                await sending
            assert await side.close_frame() == (1011, "the connection to the client was lost")
            side.line.drop()
            await until(lambda: len(server.connections) == 0)
        async with connect_realtime(server) as client:
            side = await sockets.next_session()
            sending = asyncio.create_task(client.send(frame(b"x" * 4_000_000)))
            assert await side.next_frame() == (TEXT, b"x" * 4_000_000)
            await sending
            side.line.drop()


async def test_an_exception_closes_its_own_session_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(accounting, "turn_in", fails)
    async with open_session(tmp_path) as (client, side):
        await side.send(b"a word")
        assert await client_close_frame(client) == (1011, "internal error")
        assert await side.close_frame() == (1001, "")
    assert "a defect" in caplog.text


# The way down.


async def test_a_drain_lets_sessions_continue_and_then_closes_them_with_1012(tmp_path: Path) -> None:
    async with open_session_with_server(tmp_path, "drain_timeout = 9_000") as (server, client, side):
        stopping = asyncio.create_task(server.stop())
        await turns()
        await client.send(frame(b"still here"))
        assert await side.next_frame() == (TEXT, b"still here")
        advance(9)
        assert await client_close_frame(client) == (1012, "the bridge is shutting down")
        assert await side.close_frame() == (1001, "")
        await side.send(close_payload(1001), CLOSE)
        await client.send(frame(close_payload(1012), CLOSE))
        await stopping


async def test_a_drain_refuses_sessions_that_are_still_connecting(tmp_path: Path) -> None:
    async def silent(line: Line) -> None:
        await line.head()

    async with realtime_bridge(silent, tmp_path) as server, connect_raw(server) as client:
        asking = asyncio.create_task(client.request(PATH, UPGRADE))
        await turns(100)
        stopping = asyncio.create_task(server.stop())
        response = await asking
        assert (response.status, response.sdk_code) == (503, 9022)
        await stopping


# What is left.


class Opened:
    """The sessions of one bridge."""

    def __init__(self, server: Server, sockets: AcceptingProvider, stack: AsyncExitStack) -> None:
        self.server, self._sockets, self._stack = server, sockets, stack

    async def one(self) -> tuple[RawClient, ProviderSide]:
        client = await self._stack.enter_async_context(connect_realtime(self.server))
        return client, await self._sockets.next_session()


async def drops(client: RawClient, _: ProviderSide) -> None:
    client.abort()


async def is_dropped(_: RawClient, side: ProviderSide) -> None:
    side.line.drop()


async def says_goodbye(client: RawClient, _: ProviderSide) -> None:
    await client.send(frame(close_payload(1000), CLOSE))


async def is_left(_: RawClient, side: ProviderSide) -> None:
    await side.send(close_payload(1000), CLOSE)


async def breaks_the_protocol(client: RawClient, _: ProviderSide) -> None:
    await client.send(frame(b"x", 3))


async def stops_in_a_message(client: RawClient, _: ProviderSide) -> None:
    await client.send(frame(b"x" * 1000)[:500])
    client.abort()


@needs_proc
@pytest.mark.parametrize("end", [drops, is_dropped, says_goodbye, is_left, breaks_the_protocol, stops_in_a_message])
async def test_a_hundred_sessions_leave_nothing_behind(
    tmp_path: Path, end: Callable[[RawClient, ProviderSide], Awaitable[None]]
) -> None:
    sockets = AcceptingProvider()
    async with realtime_bridge(sockets.script, tmp_path) as server, AsyncExitStack() as stack:
        opened = Opened(server, sockets, stack)
        before = Resources.now()
        pairs = [await opened.one() for _ in range(COUNT)]
        for client, side in pairs:
            await client.send(frame(b"a word"))
            await side.send(b"another")
        for client, side in pairs:
            await end(client, side)
        await turns(50)
        for client, side in pairs:
            client.abort()
            side.line.drop()
        await until(lambda: len(server.connections) == 0)
        await until_released(before)


@needs_proc
async def test_failed_handshakes_leave_nothing_behind(tmp_path: Path) -> None:
    async def refuses(line: Line) -> None:
        await line.head()
        await line.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")
        await line.gone()
        line.close()

    async with realtime_bridge(refuses, tmp_path) as server:
        before = Resources.now()
        for _ in range(COUNT // 2):
            async with connect_raw(server) as client:
                assert (await client.request(PATH, UPGRADE)).status == 401
        await until_released(before)


# A configuration that changes.


def tokened(token: bytes) -> str:
    return f'[gateways.closed.tokens]\nci = "sha256:{hashlib.sha256(token).hexdigest()}"\n'


CLOSED = "/v1/account/closed/custom-x/talk"
WITH_TOKEN = {"cf-aig-authorization": "secret"}


async def test_a_session_whose_token_is_revoked_is_closed(tmp_path: Path) -> None:
    sockets = AcceptingProvider()
    async with (
        realtime_bridge(sockets.script, tmp_path, more=tokened(b"secret")) as server,
        connect_realtime(server, CLOSED, WITH_TOKEN) as client,
    ):
        side = await sockets.next_session()
        server.reload(config_of((tmp_path / "bridge.toml").read_text(), tmp_path))
        await client.send(frame(b"still here"))
        assert await side.next_frame() == (TEXT, b"still here")
        text = (tmp_path / "bridge.toml").read_text().replace(tokened(b"secret"), tokened(b"another"))
        server.reload(config_of(text, tmp_path))
        assert await client_close_frame(client) == (1008, "the token or the gateway was revoked")
        assert await side.close_frame() == (1001, "")
        side.line.drop()


async def test_a_session_that_connects_is_refused_when_its_token_is_revoked(tmp_path: Path) -> None:
    async def silent(line: Line) -> None:
        await line.head()

    async with realtime_bridge(silent, tmp_path, more=tokened(b"secret")) as server, connect_raw(server) as client:
        asking = asyncio.create_task(client.request(CLOSED, {**UPGRADE, **WITH_TOKEN}))
        await until(lambda: len(server.connections))
        text = (tmp_path / "bridge.toml").read_text().replace(tokened(b"secret"), tokened(b"another"))
        server.reload(config_of(text, tmp_path))
        response = await asking
        assert (response.status, response.sdk_code) == (401, 2009)
