"""Relay messages unchanged and in order, without the control frames of each connection."""

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.harness import config_of, running
from tests.support.raw_client import frame
from tests.support.realtime_harness import (
    BINARY,
    PATH,
    PING,
    PONG,
    TEXT,
    AcceptingProvider,
    client_close_frame,
    connect_realtime,
    open_session,
    realtime_bridge,
    server_frame,
)

LARGEST = 64 << 20

MESSAGES = [
    (TEXT, b"{}"),
    (TEXT, b""),
    (TEXT, "zwölf Boxkämpfer \u2028 😀".encode()),
    (TEXT, b"broken \xff\xfe UTF-8"),
    (TEXT, b'"\\ud800"'),
    (BINARY, b'{"serverContent": {}}'),
    (BINARY, b""),
    (BINARY, bytes(range(256)) * 3),
    (TEXT, b"x" * 125),
    (BINARY, b"x" * 126),
    (TEXT, b"x" * 65_535),
    (BINARY, b"x" * 65_536),
    (BINARY, b"x" * 3_000_000),
]


@pytest.mark.parametrize(("opcode", "payload"), MESSAGES)
async def test_text_and_binary_messages_are_relayed_unchanged(tmp_path: Path, opcode: int, payload: bytes) -> None:
    async with open_session(tmp_path) as (client, side):
        sending = asyncio.create_task(client.send(frame(payload, opcode)))
        assert await side.next_frame() == (opcode, payload)
        await sending
        sending = asyncio.create_task(side.send(payload, opcode))
        assert await client.next_frame() == (opcode, payload)
        await sending


some_messages = st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), st.binary(max_size=300)), max_size=30)


@settings(max_examples=25, deadline=None)
@given(up=some_messages, down=some_messages, cuts=st.lists(st.integers(1, 40), min_size=1, max_size=5))
async def test_messages_in_both_directions_arrive_unchanged_and_in_order(
    up: list[tuple[int, bytes]], down: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    """This holds for any split of the input by the network."""
    with TemporaryDirectory() as folder:
        async with open_session(Path(folder)) as (client, side):

            async def say() -> None:
                data = b"".join(frame(payload, opcode) for opcode, payload in up)
                for place in range(0, len(data), step := 7 * max(cuts)):
                    await client.send(data[place : place + step])

            async def answer() -> None:
                for opcode, payload in down:
                    await side.send(payload, opcode)

            talk = asyncio.gather(say(), answer())
            assert [await side.next_frame() for _ in up] == up
            assert [await client.next_frame() for _ in down] == down
            await talk


@pytest.mark.parametrize("cuts", [[1], [3, 4], [0, 0, 9], [1, 1, 1, 1]])
async def test_fragments_are_relayed_as_one_message(tmp_path: Path, cuts: list[int]) -> None:
    payload = b"a message in pieces"
    async with open_session(tmp_path) as (client, side):
        for opcode in (TEXT, BINARY):
            rest, kind = payload, opcode
            for size in cuts:
                await client.send(frame(rest[:size], kind, last=False) + frame(b"?", PING))
                await side.send(rest[:size], kind, last=False)
                rest, kind = rest[size:], 0
            await client.send(frame(rest, kind))
            await side.send(rest, kind)
            assert await side.next_frame() == (opcode, payload)
            for _ in cuts:
                assert await client.next_frame() == (PONG, b"?")
            assert await client.next_frame() == (opcode, payload)


async def test_pings_are_answered_on_each_side_and_not_relayed(tmp_path: Path) -> None:
    async with open_session(tmp_path) as (client, side):
        await client.send(frame(b"from the client", PING))
        assert await client.next_frame() == (PONG, b"from the client")
        await side.send(b"from the provider", PING)
        assert await side.next_frame() == (PONG, b"from the provider")
        await client.send(frame(b"unasked", PONG) + frame(b"then"))
        assert await side.next_frame() == (TEXT, b"then")
        await side.send(b"unasked", PONG)
        await side.send(b"then")
        assert await client.next_frame() == (TEXT, b"then")


async def test_application_level_pings_are_relayed_as_messages(tmp_path: Path) -> None:
    """ElevenLabs and Deepgram have such pings; an answer by the bridge would report a client that may be gone."""
    ping, alive = b'{"type":"ping","ping_event":{"event_id":1}}', b'{"type":"KeepAlive"}'
    async with open_session(tmp_path) as (client, side):
        await side.send(ping)
        assert await client.next_frame() == (TEXT, ping)
        await client.send(frame(alive))
        assert await side.next_frame() == (TEXT, alive)


async def test_messages_sent_together_with_the_101_arrive(tmp_path: Path) -> None:
    sockets = AcceptingProvider(first_bytes=server_frame(b"welcome") + server_frame(b"and more", BINARY))
    async with realtime_bridge(sockets.script, tmp_path) as server, connect_realtime(server) as client:
        assert await client.next_frame() == (TEXT, b"welcome")
        assert await client.next_frame() == (BINARY, b"and more")
        (await sockets.next_session()).line.drop()


async def test_messages_sent_before_a_lost_connection_arrive(tmp_path: Path) -> None:
    """This holds in both directions: the messages were queued when the loss was detected."""
    async with open_session(tmp_path) as (client, side):
        await side.line.send(b"".join(server_frame(b"%d" % each) for each in range(50)))
        side.line.close()
        assert [await client.next_frame() for _ in range(50)] == [(TEXT, b"%d" % each) for each in range(50)]
    async with open_session(tmp_path) as (client, side):
        await client.send(b"".join(frame(b"%d" % each) for each in range(50)))
        client.send_eof()
        assert [await side.next_frame() for _ in range(50)] == [(TEXT, b"%d" % each) for each in range(50)]


async def test_messages_of_64_mib_pass_in_both_directions(tmp_path: Path) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0, compress=False)
        await socket.prepare(request)
        await socket.send_bytes((await socket.receive()).data)
        await socket.receive()
        return socket

    app = web.Application()
    app.router.add_get("/talk", echo)
    payload = os.urandom(1 << 20) * 64
    assert len(payload) == LARGEST
    async with TestServer(app) as provider:
        url = f'[providers.custom-x]\nbase_url = "{provider.make_url("")}"\n'
        async with (
            running(config_of(url, tmp_path)) as server,
            aiohttp.ClientSession() as session,
            session.ws_connect(server.url + PATH, max_msg_size=0) as client,
        ):
            await client.send_bytes(payload)
            assert (await client.receive()).data == payload


async def test_a_message_of_the_maximum_length_passes_and_a_longer_one_closes_the_session(tmp_path: Path) -> None:
    settings = "max_message_bytes = 100_000"
    async with open_session(tmp_path, settings) as (client, side):
        await client.send(frame(b"x" * 100_000))
        assert await side.next_frame() == (TEXT, b"x" * 100_000)
        await side.send(b"x" * 100_000)
        assert await client.next_frame() == (TEXT, b"x" * 100_000)
        await client.send(frame(b"x" * 100_001))
        assert await side.close_frame() == (1011, "the client sent a message that is too long")
        assert await client_close_frame(client) == (1009, "the client sent a message that is too long")
    async with open_session(tmp_path, settings) as (client, side):
        await side.send(b"x" * 100_001)
        assert await client_close_frame(client) == (1011, "the provider sent a message that is too long")
        assert await side.close_frame() == (1009, "the provider sent a message that is too long")
