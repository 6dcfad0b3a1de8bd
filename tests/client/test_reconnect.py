"""A line to a bridge: what is told when it is lost, how it is dialled again, and how it is closed."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
from aiohttp import WSMsgType, web

from bridge.client import CannotConnect, ConnectionLost, Reconnect, connect
from bridge.client.connection import CLOSE_S
from bridge.client.reconnect import STEADY_S
from bridge.config import load
from tests.support.client_harness import QUERY, crash, fake_bridge, frame, serving, until_closed
from tests.support.clock import advance, turns
from tests.support.event_harness import content
from tests.support.harness import running
from tests.support.provider_script import SILENCE, ScriptedProvider, answers, streams

CHAT = ("openai", "chat/completions", QUERY)
LATER = Reconnect(first_s=1000.0, max_s=6000.0, wait_s=100_000.0, chance=lambda: 0.5)
"""Pauses that pass only when the clock is advanced: 500 s, 1000 s, 2000 s, 3000 s, 3000 s."""
AT_ONCE = Reconnect(chance=lambda: 0.0)


class Pauses(logging.Handler):
    """What the line says of its pauses, each when it begins."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = asyncio.Event()
        self.cancelled: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.cancelled.append(record.getMessage())
        self._begun.set()

    async def next(self) -> str:
        """Until one begins: how long it is to be."""
        await self._begun.wait()
        self._begun.clear()
        await turns()
        return self.cancelled[-1].rpartition("reconnecting in ")[2]


@pytest.fixture
def pauses() -> Iterator[Pauses]:
    handler, log = Pauses(), logging.getLogger("bridge.client")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


async def answer_all(socket: web.WebSocketResponse) -> None:
    """Every event is answered with its own message."""
    async for message in socket:
        message_body = message.json()
        await socket.send_json(frame("created", message_body["eventId"], response=message_body))


async def begin_and_crash(socket: web.WebSocketResponse) -> None:
    """Two events begin; then the process is killed."""
    for _ in range(2):
        event_id = (await socket.receive()).json()["eventId"]
        await socket.send_json(frame("created", event_id))
        await socket.send_json(frame("stream", event_id, response="a"))
    await crash(socket)


async def test_events_in_flight_fail_after_their_received_frames() -> None:
    async with fake_bridge(begin_and_crash, reconnect=False) as (bridge, _):
        async with bridge.stream(*CHAT, event_id="one") as one, bridge.stream(*CHAT, event_id=2) as two:
            for stream in (one, two):
                assert (await anext(stream)).response == "a"
                with pytest.raises(ConnectionLost, match="the connection to the bridge was lost") as lost:
                    await anext(stream)
                assert lost.value.events == ("one", 2)
                assert lost.value.code is None
        with pytest.raises(ConnectionLost):
            await bridge.request(*CHAT)


async def test_abandoned_events_are_not_listed_in_the_loss() -> None:
    async def begin_and_close(socket: web.WebSocketResponse) -> None:
        for _ in range(3):
            message = (await socket.receive()).json()
            if message["type"] == "universal.create":
                await socket.send_json(frame("created", message["eventId"]))
        await socket.close(code=1001, message=b"bye")

    async with (
        fake_bridge(begin_and_close, reconnect=False) as (bridge, _),
        bridge.stream(*CHAT, event_id="stays") as stays,
    ):
        async with bridge.stream(*CHAT, event_id="left"):
            pass
        with pytest.raises(ConnectionLost, match="the bridge closed the socket: 1001 bye") as lost:
            await anext(stays)
    assert (lost.value.events, lost.value.code) == (("stays",), 1001)


async def test_the_next_event_goes_over_a_new_socket_and_nothing_is_sent_twice() -> None:
    async with fake_bridge(begin_and_crash, answer_all, reconnect=AT_ONCE) as (bridge, keeper):
        async with bridge.stream(*CHAT) as one, bridge.stream(*CHAT) as two:
            for stream in (one, two):
                with pytest.raises(ConnectionLost):
                    await stream.collect()
        answer = await bridge.request(*CHAT, event_id="third")
    assert answer.response["eventId"] == "third"
    assert keeper.handshakes == 2


async def test_over_a_bridge_whose_sockets_are_killed() -> None:
    """The provider's connection is closed there, the client is told here, and the next event is served."""
    async with (
        serving(streams(content("a"), SILENCE), answers()) as (url, provider, server),
        connect(url, reconnect=AT_ONCE) as bridge,
        bridge.stream(*CHAT) as stream,
    ):
        await anext(stream)
        for session in server.connections:
            session._socket.abort()
        with pytest.raises(ConnectionLost):
            await anext(stream)
        assert (await bridge.request(*CHAT)).response == {"ok": True}
        await provider.requests[0].closed.wait()


async def test_the_client_reconnects_to_a_restarted_bridge(pauses: Pauses) -> None:
    """It says goodbye; meanwhile nobody is there; then it is back, and what waited is served."""
    first, second = (ScriptedProvider(answers()) for _ in range(2))
    async with running(load(None, {}, {"port": 0}), first) as server:
        url, port = f"{server.url}/v1/me/default", int(server.url.rpartition(":")[2])
        bridge = await connect(url, reconnect=LATER)
        await bridge.request(*CHAT)
    await pauses.next()
    waiting = asyncio.create_task(bridge.request(*CHAT))
    await turns()
    async with running(load(None, {}, {"port": port}), second):
        assert not waiting.done()
        advance(500)
        assert (await waiting).response == {"ok": True}
        await bridge.close()


async def test_pauses_double_up_to_a_bound_and_a_good_socket_ends_their_series(pauses: Pauses) -> None:
    doors = crash, 503, 502, crash, 503, 429, begin_and_crash, 503, answer_all
    async with fake_bridge(*doors, reconnect=LATER) as (bridge, keeper):
        for pause_s in (500, 1000, 2000, 3000, 3000, 3000):
            assert await pauses.next() == f"{pause_s}.0 s"
            advance(pause_s - 1)
            await turns()
            assert not keeper.handshake_received.is_set()
            advance(1)
            await keeper.wait_handshake()
        async with bridge.stream(*CHAT) as one, bridge.stream(*CHAT) as two:
            advance(STEADY_S)
            for stream in (one, two):
                with pytest.raises(ConnectionLost):
                    await stream.collect()
        for pause_s in (500, 1000):
            assert await pauses.next() == f"{pause_s}.0 s"
            advance(pause_s)
        assert (await bridge.request(*CHAT, event_id="last")).response["eventId"] == "last"


@pytest.mark.parametrize(
    ("failures", "chance", "pause_s"),
    [(1, 0.0, 0.0), (1, 0.5, 0.25), (2, 0.5, 0.5), (3, 0.999, 1.998), (7, 0.5, 15.0), (10**9, 0.5, 15.0)],
)
def test_a_pause_is_a_part_of_the_longest_by_chance(failures: int, chance: float, pause_s: float) -> None:
    assert Reconnect(chance=lambda: chance).pause_s(failures) == pytest.approx(pause_s)


async def test_a_new_event_waits_for_a_connection_but_not_for_ever(pauses: Pauses) -> None:
    reconnect = Reconnect(first_s=1000.0, wait_s=20.0, chance=lambda: 0.5)
    async with fake_bridge(crash, answer_all, reconnect=reconnect) as (bridge, _):
        await pauses.next()
        waiting = asyncio.create_task(bridge.request(*CHAT))
        await turns()
        advance(20)
        with pytest.raises(CannotConnect, match="no connection within 20 s: the connection to the bridge was lost"):
            await waiting


async def test_what_waits_for_room_is_served_over_the_new_socket() -> None:
    async with (
        serving(streams(content("a"), SILENCE), answers()) as (url, _, server),
        connect(url, reconnect=AT_ONCE, max_in_flight=1) as bridge,
        bridge.stream(*CHAT),
    ):
        waiting = asyncio.create_task(bridge.request(*CHAT))
        await turns()
        for session in server.connections:
            session._socket.abort()
        assert (await waiting).response == {"ok": True}


async def test_a_new_event_that_is_given_up_while_it_waits_is_never_sent(pauses: Pauses) -> None:
    async with fake_bridge(crash, answer_all, reconnect=LATER) as (bridge, _):
        await pauses.next()
        waiting = asyncio.create_task(bridge.request(*CHAT, event_id="given up"))
        await turns()
        waiting.cancel()
        advance(500)
        assert (await bridge.request(*CHAT, event_id="given up")).response["eventId"] == "given up"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
async def test_a_final_refusal_ends_reconnecting(status: int, pauses: Pauses) -> None:
    """Everybody who waits is told at once, and so is who comes later."""
    async with fake_bridge(crash, status, reconnect=LATER) as (bridge, keeper):
        await pauses.next()
        waiting = asyncio.create_task(bridge.request(*CHAT))
        await turns()
        advance(500)
        for message_body in (waiting, bridge.request(*CHAT)):
            with pytest.raises(CannotConnect, match=f"HTTP {status}: not now") as refused:
                await message_body
            assert (refused.value.status, refused.value.code) == (status, 2009)
        assert keeper.handshakes == 2


async def test_the_first_dial_is_the_callers_to_repeat() -> None:
    with pytest.raises(CannotConnect, match="HTTP 503: not now"):
        async with fake_bridge(503, answer_all, reconnect=AT_ONCE):
            pass


async def test_closing_sends_a_close_frame_and_ends_the_events_in_flight() -> None:
    said_last: list[object] = []
    closed = asyncio.Event()

    async def listen(socket: web.WebSocketResponse) -> None:
        await socket.send_json(frame("created", (await socket.receive()).json()["eventId"]))
        await until_closed(socket)
        said_last.append(socket.close_code)
        closed.set()

    async with fake_bridge(listen, reconnect=AT_ONCE) as (bridge, keeper):
        stream = await bridge.stream(*CHAT).open()
        waiting = asyncio.create_task(anext(stream))
        await turns()
    with pytest.raises(ConnectionLost, match="this client closed the socket"):
        await waiting
    await closed.wait()
    assert (said_last, keeper.handshakes) == ([1000], 1)
    with pytest.raises(ConnectionLost, match="this client closed the socket"):
        await bridge.request(*CHAT)
    await bridge.close()


async def test_over_a_bridge_leaving_closes_the_providers_connections() -> None:
    async with serving(streams(content("a"), SILENCE)) as (url, provider, _):
        async with connect(url) as bridge:
            await anext(await bridge.stream(*CHAT).open())
        await provider.requests[0].closed.wait()


async def test_closing_does_not_wait_for_a_bridge_that_answers_no_close_frame() -> None:
    deaf = asyncio.Event()

    async def say_nothing(_: web.WebSocketResponse) -> None:
        await deaf.wait()

    async with fake_bridge(say_nothing, reconnect=AT_ONCE) as (bridge, _):
        closing = asyncio.create_task(bridge.close())
        await turns(50)
        assert not closing.done()
        advance(CLOSE_S)
        await closing
        deaf.set()


async def test_leaving_while_it_pauses_does_not_wait_for_that(pauses: Pauses) -> None:
    async with fake_bridge(crash, reconnect=LATER) as (bridge, keeper):
        await pauses.next()
        waiting = asyncio.create_task(bridge.request(*CHAT))
        await turns()
    with pytest.raises(ConnectionLost, match="this client closed the socket"):
        await waiting
    assert keeper.handshakes == 1


async def test_giving_up_a_dial_leaves_nothing_behind() -> None:
    knocked = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocked.set()
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b""
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        dialling = asyncio.create_task(connect(f"ws://{host}:{port}/").__aenter__())
        await knocked.wait()
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling


async def test_a_dial_takes_its_time_and_no_more() -> None:
    knocked = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        dialling = asyncio.create_task(connect(f"ws://{host}:{port}/", timeout_s=3).__aenter__())
        await knocked.wait()
        advance(3)
        with pytest.raises(CannotConnect, match="no answer within 3 s"):
            await dialling


async def test_a_silent_bridge_is_pinged_and_then_lost() -> None:
    pings: list[bytes] = []

    async def count_pings(socket: web.WebSocketResponse) -> None:
        while (message := await socket.receive()).type in {WSMsgType.TEXT, WSMsgType.PING}:
            if message.type is WSMsgType.PING:
                pings.append(message.data)

    async with fake_bridge(count_pings, reconnect=False, autoping=False) as (bridge, _):
        waiting = asyncio.create_task(bridge.request(*CHAT))
        await turns(20)
        for _ in range(2):
            advance(20)
            await turns(20)
        assert len(pings) == 2
        assert not waiting.done()
        advance(20)
        with pytest.raises(ConnectionLost, match="the bridge was silent for 60 s"):
            await waiting


async def test_a_bridge_that_answers_pings_is_kept() -> None:
    async with fake_bridge(answer_all, reconnect=False) as (bridge, _):
        for _ in range(10):
            advance(20)
            await turns(20)
        await bridge.request(*CHAT)


async def test_the_bridges_pings_are_answered() -> None:
    async with serving(answers()) as (url, _, _), connect(url, reconnect=False, heartbeat_s=None) as bridge:
        for _ in range(20):
            advance(10)
            await turns(20)
        assert (await bridge.request(*CHAT)).response == {"ok": True}
