"""Fixture tapes of realtime sessions, replayed by the bridge and by the stand-alone replay server."""

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
"""Target of each provider's tapes at a bridge, behind the gateway."""

every_tape = pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.stem}")


def tape_at(path: Path) -> SocketTape:
    tape = read_any(path)
    assert isinstance(tape, SocketTape)
    return tape


@every_tape
def test_a_fixture_tape_is_complete_and_free_of_credentials(path: Path) -> None:
    assert check_socket_tape(tape_at(path)) == []


def target_at(path: Path, tape: SocketTape) -> str:
    """Return the target that a client of the bridge requests."""
    own = tape.request.url.replace("wss://api.openai.com/v1/realtime", "openai")
    return f"/v1/account/gateway/{AT.get(path.parent.name, own)}"


@every_tape
async def test_the_bridge_replays_a_tape_at_the_address_of_its_provider(path: Path, tmp_path: Path) -> None:
    tape = tape_at(path)
    async with playing_bridge(path, tmp_path) as server, connect_raw(server) as client:
        await play_client(client, target_at(path, tape), tape)


@every_tape
async def test_the_replay_server_replays_a_tape_at_its_path(path: Path) -> None:
    tape = tape_at(path)
    target = "/" + tape.request.url.split("/", 3)[3]
    async with replaying(Library(path, pace="instant")) as server:
        async with connect_raw(server) as client:
            await play_client(client, target, tape)
        await until(lambda: server.playing == 0)


async def play_client(client: RawClient, target: str, tape: SocketTape) -> None:
    """Send the client's messages of a tape, and check that the provider's messages are received."""
    response = await client.request(target, UPGRADE)
    assert response.status == tape.handshake.status
    if response.status != UPGRADED:
        assert response.body == tape.handshake.body
        assert {*pairs(tape.handshake.headers)} <= {*response.headers.items()}
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


async def test_the_replay_server_reports_the_nearest_tape_and_the_differing_message(
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
    assert closed is not None
    assert closed[0] == 1008
    assert 'context_id: "another" ≠ "context-01"' in closed[1]
    assert "cartesia/tts.jsonl, line 3" in caplog.text


@pytest.mark.parametrize("host", ["path", "header"])
async def test_a_client_of_the_replay_server_can_select_the_host(tmp_path: Path, host: str) -> None:
    """As over HTTP, a client chooses if tapes of several hosts match."""
    [path] = [each for each in KEPT if each.stem == "agent"]
    other = tmp_path / "other.jsonl"
    shutil.copy(path, other)
    other.write_text(other.read_text().replace("api.elevenlabs.io", "api.eu.residency.elevenlabs.io"))
    target = "/v1/convai/conversation?agent_id=agent_01"
    async with replaying(Library([path, other], pace="instant")) as server:
        async with connect_raw(server) as client:
            assert (await client.request(target, UPGRADE)).status == 404
        async with connect_raw(server) as client:
            chosen = {"x-bridge-host": "api.elevenlabs.io"} if host == "header" else {}
            place = target if host == "header" else f"/api.elevenlabs.io{target}"
            assert (await client.request(place, {**UPGRADE, **chosen})).status == 101


@pytest.mark.parametrize(
    ("offered", "one"),
    [
        ("realtime, openai-insecure-api-key.sk-0123456789abcdefghij", "realtime"),
        ("token, sk-0123456789abcdefghij", "token"),
        (None, None),
    ],
)
async def test_the_replay_server_echoes_one_subprotocol(offered: str | None, one: str | None) -> None:
    """Browsers close the connection if none is echoed."""
    [path] = [each for each in KEPT if each.stem == "tts"]
    async with replaying(Library(path, pace="instant")) as server, connect_raw(server) as client:
        offers = {"Sec-WebSocket-Protocol": offered} if offered else {}
        response = await client.request("/tts/websocket?cartesia_version=2024-06-10", {**UPGRADE, **offers})
        assert response.headers.get("sec-websocket-protocol") == one


async def test_the_replay_server_refuses_an_invalid_handshake_with_400() -> None:
    [path] = [each for each in KEPT if each.stem == "tts"]
    async with replaying(Library(path, pace="instant")) as server, connect_raw(server) as client:
        target = "/tts/websocket?cartesia_version=2024-06-10"
        assert (await client.request(target, {**UPGRADE, "Sec-WebSocket-Key": "short"})).status == 400
