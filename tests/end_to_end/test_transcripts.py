"""Golden transcripts: what a client says and what it hears, over taped providers and a real socket.

`fixtures/transcripts/CASE.jsonl` holds line by line what was said: {"client": message} and {"bridge": frame}. There may
be {"connect": query} at its beginning, and {"passes_s": seconds}. All but the frames is input. `pytest --bridge-update`
writes them anew; read the difference before you keep it.
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
"""Where the provider is not called as the folder of its tapes."""

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
"""Of the loop, for any event over tapes that play in no time."""


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
async def test_transcript(path: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    said = await play([line for line in read(path) if "bridge" not in line], tmp_path)
    check(path, said, update=pytestconfig.getoption("bridge_update"))


def test_there_is_a_transcript_of_every_provider_that_there_are_tapes_of() -> None:
    assert folders_of([line for path in CASES for line in read(path)]) == TAPES


def folders_of(lines: list[Line]) -> list[Path]:
    """The tapes of the providers that are asked."""
    asked = orjson.dumps(lines)
    return [folder for folder in TAPES if f'"provider":"{SLUGS.get(folder.name, folder.name)}"'.encode() in asked]


async def play(lines: list[Line], folder: Path) -> list[Line]:
    """The lines again, each followed by the frames that came of it."""
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
            played += [{"bridge": without_volatile(counted_anew(frame))} for frame in await heard(client)]
    return played


async def heard(client: Client) -> list[Frame]:
    """The frames up to the moment at which nothing happens any more."""
    frames = await up_to_now(client)
    await turns(ENOUGH_TURNS)
    return frames + await up_to_now(client)


async def up_to_now(client: Client) -> list[Frame]:
    """All that was sent before the answer to a message that can own no event."""
    await client.send({"type": "universal.probe"})
    frames = []
    while not is_answer_to_probe(frame := await client.receive()):
        frames.append(frame)
    return frames


def is_answer_to_probe(frame: Frame) -> bool:
    return bool(frame["type"] == "universal.error") and frame["error"]["code"] == 9002


def counted_anew(frame: Frame) -> Frame:
    """Without the count of messages, among which are the probes."""
    frame.get("error", {}).pop("messageIndex", None)
    return frame
