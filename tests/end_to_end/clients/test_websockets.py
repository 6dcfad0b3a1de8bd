"""The Python package websockets as client, also with fragments, pings and binary messages."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from bridge.server.server import Server
from tests.end_to_end.clients.talk import TOKEN, Message, Turn, bridge, judge, turns
from tests.support.harness import Frame, is_last

BEARER = {"cf-aig-authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def connected(server: Server, **handshake: Any) -> AsyncIterator[ClientConnection]:
    async with asyncio.timeout(60), connect(f"{server.url}/v1/account/tokened", proxy=None, **handshake) as socket:
        yield socket


async def talk(socket: ClientConnection, script: list[Turn]) -> list[Frame]:
    """Run the turns and return all frames in order; the socket stays open."""
    frames: list[Frame] = []
    for turn in script:
        in_flight = {message["request"]["eventId"] for message in turn["send"]}
        await _send(socket, turn["send"])
        while in_flight:
            frame = json.loads(await socket.recv())
            frames.append(frame)
            if frame["type"] == "universal.stream":
                await _send(socket, turn["onStream"])
                turn["onStream"] = []
            if is_last(frame):
                in_flight.discard(frame["metadata"]["eventId"])
    return frames


async def _send(socket: ClientConnection, messages: list[Message]) -> None:
    for message in messages:
        await socket.send(json.dumps(message))


async def test_websockets_completes_the_conversation_with_a_token_in_a_header(tmp_path: Path) -> None:
    async with bridge(tmp_path) as server, connected(server, additional_headers=BEARER) as socket:
        judge(await talk(socket, turns()))
        await socket.close()
        assert (socket.close_code, socket.subprotocol) == (1000, None)


async def test_websockets_completes_the_conversation_with_a_token_in_a_subprotocol(tmp_path: Path) -> None:
    protocols = [f"cf-aig-authorization.{TOKEN}"]
    async with bridge(tmp_path) as server, connected(server, subprotocols=protocols) as socket:
        judge(await talk(socket, turns()))
        assert socket.subprotocol == protocols[0]


async def test_websockets_gets_401_for_a_wrong_token(tmp_path: Path) -> None:
    async with bridge(tmp_path) as server:
        with pytest.raises(InvalidStatus) as refused:
            async with connected(server, additional_headers={"cf-aig-authorization": "Bearer another"}):
                pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body or b"")["internalCode"] == 2009


async def test_a_message_may_be_fragmented_with_pings_in_between(tmp_path: Path) -> None:
    plain = turns()[0]["send"][0]
    async with bridge(tmp_path) as server, connected(server, additional_headers=BEARER) as socket:

        async def fragments() -> AsyncIterator[str]:
            for character in json.dumps(plain):
                yield character
                await (await socket.ping())  # its pong

        await socket.send(fragments())
        frame = json.loads(await socket.recv())
    assert frame["response"]["choices"][0]["message"]["content"] == "Hello! The line is clear."


async def test_a_message_may_be_binary(tmp_path: Path) -> None:
    plain = turns()[0]["send"][0]
    async with bridge(tmp_path) as server, connected(server, additional_headers=BEARER) as socket:
        await socket.send(json.dumps(plain).encode())
        frame = json.loads(await socket.recv())
    assert frame["metadata"]["eventId"] == "plain"
