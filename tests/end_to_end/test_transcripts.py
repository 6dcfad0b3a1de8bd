"""Golden transcripts: messages of a client and frames of the bridge, over taped providers and a real socket.

`fixtures/transcripts/CASE.jsonl` has one message per line: {"client": message} or {"bridge": frame}. The first line may
be {"connect": query}, and {"passes_s": seconds} advances the clock. Everything but the frames is input.
`pytest --bridge-update` rewrites the frames; review the difference.
"""

from pathlib import Path

import orjson
import pytest

from bridge.tapes.transport import TapeTransport
from bridge.testing.transcripts import Line, check, read, without_volatile
from tests.support.clock import advance, turns
from tests.support.harness import Client, Frame, config_of, connected, running_without_services
from tests.support.paths import FIXTURES

CASES = sorted((FIXTURES / "transcripts").glob("*.jsonl"))
TAPES = sorted((FIXTURES / "tapes").iterdir())
SLUGS = {"replicate": "custom-replicate-stream"}
"""Slugs of the providers whose folder of tapes has another name."""

ACCOUNT = "0123456789abcdef0123456789abcdef"
CONFIG = """
[providers.custom-ollama]
base_url = "http://127.0.0.1:11434"
[providers.custom-vllm]
base_url = "http://127.0.0.1:8000"
[providers.custom-replicate-stream]
base_url = "https://stream.replicate.com/v1"
"""

ENOUGH_TURNS = 200
"""Turns of the loop within which any event over instant tapes ends."""


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
async def test_a_transcript_is_reproduced(path: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    played = await play([line for line in read(path) if "bridge" not in line], tmp_path)
    check(path, played, update=pytestconfig.getoption("bridge_update"))


def test_every_provider_with_tapes_has_a_transcript() -> None:
    assert folders_of([line for path in CASES for line in read(path)]) == TAPES


def folders_of(lines: list[Line]) -> list[Path]:
    """Return the folders with the tapes of the requested providers."""
    requested = orjson.dumps(lines)
    return [folder for folder in TAPES if f'"provider":"{SLUGS.get(folder.name, folder.name)}"'.encode() in requested]


async def play(lines: list[Line], folder: Path) -> list[Line]:
    """Play the lines and return them, each followed by the frames that it caused."""
    query = lines[0].get("connect", "")
    transport = TapeTransport(folders_of(lines) or TAPES, pace="instant")
    played: list[Line] = []
    async with (
        running_without_services(config_of(CONFIG, folder), transport) as server,
        connected(server, f"/v1/{ACCOUNT}/gateway{query}") as client,
    ):
        for line in lines:
            played.append(line)
            if "client" in line:
                await client.send(line["client"])
            else:
                advance(line.get("passes_s", 0.0))
            played += [
                {"bridge": without_volatile(without_message_index(frame))} for frame in await frames_until_idle(client)
            ]
    return played


async def frames_until_idle(client: Client) -> list[Frame]:
    """Return the frames that arrive until the bridge is idle."""
    frames = await frames_until_now(client)
    await turns(ENOUGH_TURNS)
    return frames + await frames_until_now(client)


async def frames_until_now(client: Client) -> list[Frame]:
    """Return the frames that arrive before the answer to a probe, which is a message of unknown type."""
    await client.send({"type": "universal.probe"})
    frames = []
    while not is_answer_to_probe(frame := await client.receive()):
        frames.append(frame)
    return frames


def is_answer_to_probe(frame: Frame) -> bool:
    return bool(frame["type"] == "universal.error") and frame["error"]["code"] == 9002


def without_message_index(frame: Frame) -> Frame:
    """Return the frame without its message index, which counts the probes too."""
    frame.get("error", {}).pop("messageIndex", None)
    return frame
