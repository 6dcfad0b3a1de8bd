"""The tapes of realtime sessions that are kept here, played by the bridge and by the stand-alone server."""

import shutil
from pathlib import Path

import pytest

from bridge.tapes.file import pairs
from bridge.tapes.library import Library
from bridge.tapes.socket_file import UPGRADED, SocketTape, check_socket_tape, read_any
from tests.support.clock import until
from tests.support.paths import FIXTURES
from tests.support.raw_client import UPGRADE, RawClient, connect_raw, frame
from tests.support.realtime_harness import BINARY, CLOSE, TEXT, client_close_frame, close_payload
from tests.support.realtime_tapes import playing_bridge
from tests.support.tapes import replaying

KEPT = sorted((FIXTURES / "realtime").rglob("*.jsonl"))
SECRET = "sk-0123456789abcdefghij"
AT = {
    "cartesia": f"cartesia?cartesia_version=2024-06-10&api_key={SECRET}",
    "deepgram": "deepgram/v1/listen?model=nova-3&encoding=linear16&sample_rate=16000&interim_results=true",
    "elevenlabs": "elevenlabs?agent_id=agent_01",
    "google-ai-studio": f"google?api_key={SECRET}",
}
"""As a client asks for them at a bridge."""

every_tape = pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.stem}")


def tape_at(path: Path) -> SocketTape:
    tape = read_any(path)
    assert isinstance(tape, SocketTape)
    return tape


@every_tape
def test_a_kept_tape_is_whole_in_order_and_free_of_credentials(path: Path) -> None:
    assert check_socket_tape(tape_at(path)) == []


def asked_at(path: Path, tape: SocketTape) -> str:
    """Where a client of the bridge asks for it."""
    own = tape.request.url.replace("wss://api.openai.com/v1/realtime", "openai")
    return f"/v1/account/gateway/{AT.get(path.parent.name, own)}"


@every_tape
async def test_the_bridge_plays_it_at_the_providers_own_address(path: Path, tmp_path: Path) -> None:
    tape = tape_at(path)
    async with playing_bridge(path, tmp_path) as server, connect_raw(server) as client:
        await converse(client, asked_at(path, tape), tape)


@every_tape
async def test_the_stand_alone_server_plays_it_at_its_path(path: Path) -> None:
    tape = tape_at(path)
    target = "/" + tape.request.url.split("/", 3)[3]
    async with replaying(Library(path, pace="instant")) as server:
        async with connect_raw(server) as client:
            await converse(client, target, tape)
        await until(lambda: server.playing == 0)


async def converse(client: RawClient, target: str, tape: SocketTape) -> None:
    """The client's part of a tape; what it hears has to be the provider's."""
    told = await client.request(target, UPGRADE)
    assert told.status == tape.handshake.status
    if told.status != UPGRADED:
        assert told.body == tape.handshake.body
        assert {*pairs(tape.handshake.headers)} <= {*told.headers.items()}
        return
    for message in tape.messages:
        opcode = TEXT if message.opcode == "text" else BINARY
        if message.sender == "client":
            await client.send(frame(message.data, opcode))
        else:
            assert await client.next_frame() == (opcode, message.data)
    if tape.ending.by == "client":
        await client.send(frame(close_payload(tape.ending.code or None), CLOSE))
    assert await client_close_frame(client) == (tape.ending.code, "")


async def test_the_stand_alone_server_says_what_is_near_and_where_a_client_strays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [path] = [each for each in KEPT if each.stem == "tts"]
    async with replaying(Library(path, pace="instant")) as server:
        async with connect_raw(server) as client:
            missed = await client.request("/tts/websocket?cartesia_version=1", UPGRADE)
        async with connect_raw(server) as client:
            assert (await client.request("/tts/websocket?cartesia_version=2024-06-10", UPGRADE)).status == 101
            await client.send(frame(b'{"context_id":"another"}'))
            closed = await client_close_frame(client)
    assert missed.status == 404
    assert b'query.cartesia_version: \\"1\\" \xe2\x89\xa0 \\"2024-06-10\\"' in missed.body
    assert closed == (1008, 'message 1 is not the tape\'s: context_id: "another" ≠ "context-01"')
    assert "Message 1 of the client is not that of cartesia/tts.jsonl, line 3; sent ≠ taped:" in caplog.text


@pytest.mark.parametrize("host", ["path", "header"])
async def test_the_stand_alone_server_lets_a_client_choose_the_host(tmp_path: Path, host: str) -> None:
    """As for HTTP, where tapes of several answer alike."""
    [path] = [each for each in KEPT if each.stem == "agent"]
    other = tmp_path / "other.jsonl"
    shutil.copy(path, other)
    other.write_text(other.read_text().replace("api.elevenlabs.io", "api.eu.residency.elevenlabs.io"))
    asked = "/v1/convai/conversation?agent_id=agent_01"
    async with replaying(Library([path, other], pace="instant")) as server:
        async with connect_raw(server) as client:
            assert (await client.request(asked, UPGRADE)).status == 404
        async with connect_raw(server) as client:
            chosen = {"x-bridge-host": "api.elevenlabs.io"} if host == "header" else {}
            place = asked if host == "header" else f"/api.elevenlabs.io{asked}"
            assert (await client.request(place, {**UPGRADE, **chosen})).status == 101


@pytest.mark.parametrize(
    ("offered", "one"),
    [
        ("realtime, openai-insecure-api-key.sk-0123456789abcdefghij", "realtime"),
        ("token, sk-0123456789abcdefghij", "token"),
        (None, None),
    ],
)
async def test_the_stand_alone_server_echoes_one_subprotocol(offered: str | None, one: str | None) -> None:
    """Browsers break off without."""
    [path] = [each for each in KEPT if each.stem == "tts"]
    async with replaying(Library(path, pace="instant")) as server, connect_raw(server) as client:
        offers = {"Sec-WebSocket-Protocol": offered} if offered else {}
        told = await client.request("/tts/websocket?cartesia_version=2024-06-10", {**UPGRADE, **offers})
        assert told.headers.get("sec-websocket-protocol") == one


async def test_the_stand_alone_server_refuses_what_is_no_handshake() -> None:
    [path] = [each for each in KEPT if each.stem == "tts"]
    async with replaying(Library(path, pace="instant")) as server, connect_raw(server) as client:
        target = "/tts/websocket?cartesia_version=2024-06-10"
        assert (await client.request(target, {**UPGRADE, "Sec-WebSocket-Key": "short"})).status == 400
