"""Tapes of realtime sessions with the commands `serve` and `replay`."""

import json
import signal
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.commands import TIMEOUT_S, run, started, url_in
from tests.support.paths import FIXTURES

SESSIONS = FIXTURES / "realtime"
PLAYED = ("--replay", str(SESSIONS), "--pace", "instant")


def synthesize(socket: ClientConnection) -> list[str]:
    """Send a request of Cartesia's protocol and return the types of the answers."""
    lines = (SESSIONS / "cartesia" / "tts.jsonl").read_text().splitlines()
    socket.send(json.loads(lines[2])["text"])
    return [json.loads(socket.recv(TIMEOUT_S))["type"] for _ in range(4)]


TYPES = ["chunk", "timestamps", "chunk", "done"]


def test_serve_can_record_what_it_replays_and_replay_what_it_recorded(tmp_path: Path) -> None:
    tapes = tmp_path / "tapes"
    with started("serve", "--port", "0", *PLAYED, "--record", str(tapes)) as bridge:
        assert bridge.stdout is not None
        url = url_in(bridge.stdout.readline())
        with connect(f"{url}/cartesia?cartesia_version=2024-06-10") as socket:
            assert synthesize(socket) == TYPES
        with pytest.raises(InvalidStatus, match="HTTP 401"):
            connect(f"{url}/openai?model=gpt-realtime-unpaid")
        bridge.terminate()
        assert bridge.wait(TIMEOUT_S) == 0
    assert run("tapes", "check", str(tapes)).stdout == "2 tapes, 0 faults\n"
    assert {path.relative_to(tapes).as_posix() for path in tapes.rglob("*.jsonl")} == {
        "api.cartesia.ai/000001-WEBSOCKET-tts-websocket.jsonl",
        "api.openai.com/000002-WEBSOCKET-realtime.jsonl",
    }
    with started("serve", "--port", "0", "--replay", str(tapes), "--pace", "instant") as bridge:
        assert bridge.stdout is not None
        url = url_in(bridge.stdout.readline())
        with connect(f"{url}/cartesia?cartesia_version=2024-06-10") as socket:
            assert synthesize(socket) == TYPES


def test_a_killed_recording_keeps_its_messages_and_is_reported_as_cut(tmp_path: Path) -> None:
    tapes = tmp_path / "tapes"
    with started("serve", "--port", "0", *PLAYED, "--record", str(tapes)) as bridge:
        assert bridge.stdout is not None
        url = url_in(bridge.stdout.readline())
        with connect(f"{url}/cartesia?cartesia_version=2024-06-10") as socket:
            assert synthesize(socket) == TYPES
            [part] = tapes.rglob("*.part")
            while part.read_bytes().count(b"\n") < 7:  # a message is written shortly after it was sent
                assert bridge.poll() is None
            bridge.send_signal(signal.SIGKILL)
            assert bridge.wait(TIMEOUT_S) == -signal.SIGKILL
    checked = run("tapes", "check", str(tapes))
    assert (checked.returncode, checked.stdout) == (1, "1 tapes, 1 faults\n")
    assert "cut" in checked.stderr
    assert [json.loads(line).get("from") for line in part.read_text().splitlines()[2:]] == ["client", *["provider"] * 4]


def test_replay_serves_websocket_sessions() -> None:
    with started("replay", str(SESSIONS), "--port", "0", "--pace", "instant") as provider:
        assert provider.stdout is not None
        word, url = provider.stdout.readline().split()
        assert word == "ready"
        with connect(f"{url.replace('http', 'ws')}/tts/websocket?cartesia_version=2024-06-10") as socket:
            assert synthesize(socket) == TYPES
        provider.terminate()
        assert provider.wait(TIMEOUT_S) == 0
