"""Run one socket: errors are reported, affect no other event, and close nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import WSMsgType

from bridge.protocol.messages import parse
from bridge.server.server import Server
from bridge.server.session import MESSAGES_PER_TURN
from tests.support.clock import until
from tests.support.event_harness import COMPLETE, content, step
from tests.support.harness import Client, config_of, connected, running
from tests.support.provider_script import ScriptedProvider, ScriptedResponse, answers, streams
from tests.support.raw_client import frame, open_websocket
from tests.support.sibling import Sibling

CONFIG = """
[server]
max_message_bytes = 20_000
max_in_flight = 4
max_steps = 3
max_headers = 4
max_header_bytes = 1024
"""


@asynccontextmanager
async def serving(folder: Path, *plays: ScriptedResponse) -> AsyncIterator[tuple[Server, ScriptedProvider]]:
    provider = ScriptedProvider(*plays)
    async with running(config_of(CONFIG, folder), provider) as server:
        yield server, provider


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """Connect a client with an event in flight, which is message 0 and outlives the test."""
    sibling = Sibling()
    async with serving(tmp_path, sibling.response, *[answers()] * 3) as (server, _), connected(server) as opened:
        await sibling.start(opened)
        yield opened
        await sibling.check_completes(opened)
        assert (await opened.call({"eventId": "after", **step()}))[-1]["metadata"]["success"]


def create(request: object, **beside: object) -> bytes:
    return orjson.dumps({"type": "universal.create", "request": request, **beside})


def of(**changed: object) -> bytes:
    """Return a valid request with some changes."""
    return create({"eventId": "bad", **step(), **changed})


def nested(depth: int) -> bytes:
    """Return a valid request whose message is nested `depth` levels deep."""
    deep = b"[" * (depth - 2) + b"]" * (depth - 2)
    return create({"eventId": "bad", **step(), "query": "DEEP"}).replace(b'"DEEP"', deep)


# Messages that cannot own an event


@pytest.mark.parametrize(
    ("message", "code", "event_id"),
    [
        (b"hello", 9001, None),
        (b"", 9001, None),
        (b"[]", 9001, None),
        (b'"universal.create"', 9001, None),
        (b"null", 9001, None),
        (b'{"type":"universal.create"', 9001, None),
        (b'{"type":"universal.create"} x', 9001, None),
        (b'{"type":"universal.create","eventId":"\xff"}', 9001, None),
        (b'{"type":NaN}', 9001, None),
        (b"[" * 5000, 9001, None),
        (b"{}", 9002, None),
        (b'{"eventId":"x"}', 9002, "x"),
        (b'{"type":"universal.nonsense","eventId":"x"}', 9002, "x"),
        (b'{"type":"universal.nonsense","request":{"eventId":7}}', 9002, 7),
        (b'{"type":5}', 9002, None),
        (b'{"type":{"a":1}}', 9002, None),
        (b'{"type":"universal.cancel"}', 9003, None),
        (b'{"type":"universal.cancel","eventId":1.5}', 9003, None),
        (of(eventId=""), 9003, None),
        (of(eventId="x" * 257), 9003, None),
        (of(eventId=True), 9003, None),
        (of(eventId=1.5), 9003, None),
        (of(eventId=["a"]), 9003, None),
        (of(eventId="sibling"), 9004, "sibling"),
        (of(eventId="sibling", provider="nobody"), 9004, "sibling"),
        (of(eventId="sibling", provider=5), 9004, "sibling"),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
async def test_a_message_that_cannot_own_an_event_is_answered_by_its_index(
    client: Client, message: bytes, code: int, event_id: object, binary: bool
) -> None:
    if binary:
        await client.socket.send_bytes(message)
    else:
        await client.socket.send_frame(message, WSMsgType.TEXT)
    error_frame = await client.receive()
    assert error_frame["type"] == "universal.error"
    assert error_frame["metadata"] == {"success": False}
    error = error_frame["error"]
    assert (error["code"], error.get("eventId"), error["messageIndex"]) == (code, event_id, 1)
    assert (error["source"], error["retryable"]) == ("client", False)


# Events whose message has a fault


@pytest.mark.parametrize(
    ("message", "code", "status"),
    [
        (create(None, eventId="bad"), 9003, 400),
        (create("text", eventId="bad"), 9003, 400),
        (create([], eventId="bad"), 9003, 400),
        (create([1], eventId="bad"), 9003, 400),
        (of(provider=None), 9003, 400),
        (of(provider=5), 9003, 400),
        (of(endpoint=["x"]), 9003, 400),
        (of(headers="a: b"), 9003, 400),
        (of(headers={"a": "b\r\nc: d"}), 9003, 400),
        (of(headers={"a b": "c"}), 9003, 400),
        (of(headers={"a": ["b"]}), 9003, 400),
        (of(config=[]), 9003, 400),
        (of(config={"maxAttempts": "many"}), 9003, 400),
        (of(method="CONNECT"), 9003, 400),
        (of(method=1), 9003, 400),
        (of(body="x"), 9003, 400),
        (of(query=None, body="?", encoding="base64"), 9003, 400),
        (of(query=None, body="x", encoding="utf-7"), 9003, 400),
        (of(provider="nobody"), 2008, 400),
        (of(endpoint="http://evil.example/"), 9007, 400),
        (of(endpoint="../../admin"), 9007, 400),
        (create([{"eventId": "bad", **step()}] * 4), 9006, 413),
        (of(headers={str(each): "x" for each in range(5)}), 9006, 413),
        (of(headers={"a": "x" * 1100}), 9006, 413),
        (nested(513), 9006, 413),
        (of(query="x" * 20_000), 9006, 413),
        (of(query="x" * 39_700), 9006, 413),
    ],
)
async def test_an_error_of_an_event_is_its_last_frame(client: Client, message: bytes, code: int, status: int) -> None:
    await client.socket.send_frame(message, WSMsgType.TEXT)
    error_frame = await client.receive()
    assert error_frame["type"] == "universal.created"
    metadata = error_frame["metadata"]
    assert (metadata["eventId"], metadata["status"], metadata["success"]) == (
        "bad",
        status,
        False,
    )
    assert error_frame["metadata"]["step"] == "0"
    assert (error_frame["error"]["code"], error_frame["error"]["source"]) == (code, "client")
    body = error_frame["response"]
    assert (body["name"], body["httpCode"], body["internalCode"]) == ("AiGatewayError", status, code)
    assert body["error"] == [{"code": code, "message": error_frame["error"]["message"]}]


async def test_an_error_names_its_field(client: Client) -> None:
    await client.create([{**step(), "eventId": "bad"}, {**step(), "headers": {"x-y": {}}}])
    assert (await client.receive())["error"]["message"].startswith("request[1].headers")


async def test_an_event_without_an_id_gets_one(client: Client) -> None:
    await client.create(step("nobody"))
    first = await client.receive()
    await client.create({"provider": 5})
    second = await client.receive()
    names = [each["metadata"]["eventId"] for each in (first, second)]
    assert all(isinstance(name, str) and len(name) == 36 for name in names)
    assert names[0] != names[1]


async def test_an_event_id_may_be_used_again_after_its_last_frame(client: Client) -> None:
    for _ in range(2):
        assert (await client.call({"eventId": 7, **step()}))[-1]["response"] == {"ok": True}
        client.frames = [each for each in client.frames if each["metadata"].get("eventId") != 7]


async def test_a_string_and_an_integer_are_different_event_ids(tmp_path: Path) -> None:
    gate = asyncio.Event()
    plays = [streams(content("a"), gate, *COMPLETE)] * 2
    async with serving(tmp_path, *plays) as (server, _), connected(server) as client:
        await client.create({"eventId": 7, **step()})
        await client.create({"eventId": "7", **step()})
        gate.set()
        assert (await client.until_last(7))[-1]["metadata"]["eventId"] == 7
        assert (await client.until_last("7"))[-1]["type"] == "universal.done"


async def test_a_binary_message_with_json_is_accepted(client: Client) -> None:
    await client.socket.send_bytes(create({"eventId": "binary", **step()}))
    assert (await client.until_last("binary"))[-1]["response"] == {"ok": True}


async def test_a_message_of_the_maximum_depth_and_length_is_accepted(client: Client) -> None:
    await client.socket.send_frame(nested(512), WSMsgType.TEXT)
    assert (await client.until_last("bad"))[-1]["metadata"]["success"]
    long = of(eventId="long", query="")
    long = of(eventId="long", query="x" * (20_000 - len(long)))
    assert len(long) == 20_000
    await client.socket.send_frame(long, WSMsgType.TEXT)
    assert (await client.until_last("long"))[-1]["metadata"]["success"]


async def test_a_message_of_twice_the_maximum_length_still_fails_its_event(client: Client) -> None:
    long = of(query="")
    long = of(query="x" * (40_000 - len(long)))
    assert len(long) == 40_000
    await client.socket.send_frame(long, WSMsgType.TEXT)
    assert (await client.until_last("bad"))[-1]["error"]["code"] == 9006


async def test_events_beyond_the_maximum_are_refused_until_one_ends(tmp_path: Path) -> None:
    gate = asyncio.Event()
    plays = [*[streams(content("a"), gate, *COMPLETE)] * 4, answers()]
    async with serving(tmp_path, *plays) as (server, _), connected(server) as client:
        for each in range(5):
            await client.create({"eventId": each, **step()})
        error_frame = (await client.until_last(4))[-1]
        assert (error_frame["error"]["code"], error_frame["error"]["retryable"]) == (9005, True)
        assert error_frame["metadata"]["status"] == 429
        gate.set()
        for each in range(4):
            assert (await client.until_last(each))[-1]["type"] == "universal.done"
        assert (await client.call({"eventId": "next", **step()}))[-1]["metadata"]["success"]


async def test_the_index_of_a_message_counts_all_messages_from_0(client: Client) -> None:
    await client.socket.send_str("message 1")
    await client.cancel("nobody")
    await client.create({"eventId": "bad", "provider": 5})
    await client.socket.send_str("message 4")
    error_frames = [await client.receive() for _ in range(3)]
    assert [each["error"].get("messageIndex") for each in error_frames] == [1, None, 4]


async def test_cancelling_an_unknown_event_is_no_error(client: Client) -> None:
    await client.cancel("nobody")
    await client.cancel(5)


async def test_a_clamped_setting_of_the_handshake_is_a_warning_in_every_event(tmp_path: Path) -> None:
    headers = {"cf-aig-max-attempts": "9"}
    async with serving(tmp_path, answers(), answers()) as (server, _), connected(server, headers=headers) as client:
        for event_id in ("a", "b"):
            [frame] = await client.call({"eventId": event_id, **step(), "config": {"retryDelay": 9999}})
            of_handshake, own = frame["metadata"]["warnings"]
            assert of_handshake.startswith("handshake.cf-aig-max-attempts")
            assert own.startswith("request.config.retryDelay")


async def test_a_token_in_a_message_is_not_passed_on(tmp_path: Path) -> None:
    headers = {"cf-aig-authorization": "Bearer secret", "x-mine": "1", "sec-websocket-key": "k", "host": "h"}
    async with serving(tmp_path, answers()) as (server, provider), connected(server) as client:
        await client.call({"eventId": "a", **step(), "headers": headers})
    seen = provider.requests[-1].headers
    assert seen["x-mine"] == "1"
    assert not {"cf-aig-authorization", "sec-websocket-key"} & set(seen)


# Frames of the WebSocket itself


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"x" * 40_001), 1009),
        (frame(b"x" * 30_000, last=False) + frame(b"x" * 10_001, WSMsgType.CONTINUATION), 1009),
        (b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
        (frame(b"x", 3), 1002),
        (frame(b"x", 0x41), 1002),
        (frame(b"x", WSMsgType.CONTINUATION), 1002),
        (frame(b"x", last=False) + frame(b"y"), 1002),
        (frame(b"x" * 126, WSMsgType.PING), 1002),
        (frame(b"x", WSMsgType.PING, last=False), 1002),
        (frame(b"\x00", WSMsgType.CLOSE), 1002),
        (frame(b"\x00\x01", WSMsgType.CLOSE), 1002),
        (frame(b"\x03\xe8", WSMsgType.CLOSE), 1000),
        (frame(b"\x0f\xa0bye", WSMsgType.CLOSE), None),
    ],
)
async def test_an_invalid_frame_closes_the_socket(tmp_path: Path, sent: bytes, code: int | None) -> None:
    async with serving(tmp_path) as (server, _), open_websocket(server) as client, connected(server) as other:
        await client.send(sent)
        closed_with = await client.close_code()
        assert closed_with == code or code is None
        assert await client.read_to_end() == b""
        assert (await other.call({"eventId": "a", **step("nobody")}))[-1]["error"]["code"] == 2008


async def test_a_fragmented_message_is_one_message(tmp_path: Path) -> None:
    message = create({"eventId": "parts", **step()})
    async with serving(tmp_path, answers()) as (server, _), open_websocket(server) as client:
        await client.send(frame(message[:5], last=False))
        await client.send(frame(b"between", WSMsgType.PING))
        await client.send(frame(message[5:40], WSMsgType.CONTINUATION, last=False))
        await client.send(frame(message[40:], WSMsgType.CONTINUATION))
        assert await client.next_frame() == (WSMsgType.PONG, b"between")
        assert (await client.receive_json())["response"] == {"ok": True}


@pytest.mark.parametrize("goodbye", [frame(b"\x03\xe8", WSMsgType.CLOSE), b""])
async def test_closing_the_socket_cancels_its_events(tmp_path: Path, goodbye: bytes) -> None:
    never = streams(content("a"), asyncio.Event())
    async with serving(tmp_path, never) as (server, provider), open_websocket(server) as client:
        await client.send_json({"type": "universal.create", "request": {"eventId": "a", **step()}})
        assert (await client.receive_json())["type"] == "universal.created"
        await client.send(goodbye) if goodbye else client.abort()
        await until(lambda: not provider.open_streams)


async def test_a_flood_of_small_messages_does_not_starve_other_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other sockets get a turn more often the more messages are buffered."""
    taken_per_turn = [0]

    def counted(*data: Any) -> object:
        taken_per_turn[-1] += 1
        return parse(*data)

    async def count_turns() -> None:
        while True:
            await asyncio.sleep(0)
            taken_per_turn.append(0)

    monkeypatch.setattr("bridge.server.session.parse", counted)
    async with serving(tmp_path) as (server, _), open_websocket(server, receive_bytes=1 << 20) as client:
        turning = asyncio.create_task(count_turns())
        await client.send(frame(b"x") * 3000)
        while (await client.receive_json())["error"]["messageIndex"] < 2999:
            pass
        turning.cancel()
    assert sum(taken_per_turn) == 3000
    assert max(taken_per_turn) <= MESSAGES_PER_TURN
