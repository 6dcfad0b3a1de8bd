"""A cached answer has the frames and the usage of the original, for every provider format."""

import base64
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bridge.tapes.file import StreamEnd, Tape, read_tape
from bridge.tapes.transport import TapeTransport
from tests.support.harness import Frame, config_of, connected, running
from tests.support.paths import FIXTURES

TAPES = FIXTURES / "tapes"
PATHS = sorted(TAPES.glob("*/*.jsonl"))

OWN = {"eventId", "logId", "durationMs", "cacheStatus", "cost", "warnings"}
"""Members that differ between an answer and its cached copy. The warnings of these tapes concern estimated costs."""


def is_good(tape: Tape) -> bool:
    return tape.head is not None and tape.head.status == 200 and tape.ending.end is StreamEnd.EOF


ANSWERS = [path for path in PATHS if is_good(read_tape(path))]


def test_every_provider_with_tapes_is_covered() -> None:
    assert {path.parent for path in ANSWERS} == set(TAPES.iterdir())


@pytest.mark.parametrize("frames", ["items", "raw"])
@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_a_cached_answer_has_the_same_frames(path: Path, frames: str, tmp_path: Path) -> None:
    """Complete, successful answers are repeated; others cause a new call."""
    first, again = await asked_twice(path, frames, tmp_path)
    is_kept = first[-1]["metadata"]["success"]
    assert [answer_frames[-1]["metadata"]["cacheStatus"] for answer_frames in (first, again)] == [
        "MISS",
        "HIT" if is_kept else "MISS",
    ]
    assert [without_own(frame) for frame in again] == [without_own(frame) for frame in first]
    assert is_kept or not any(word in path.stem for word in ("whole", "plain", "embeddings", "tools."))


async def asked_twice(path: Path, frames: str, folder: Path) -> list[list[Frame]]:
    taped = folder / "tapes"
    taped.mkdir()
    shutil.copy(path, taped)
    request = read_tape(path).request
    url = urlsplit(request.url)
    base = f'[providers.custom-taped]\nbase_url = "{url.scheme}://{url.netloc}"\n'
    sent_request = {
        "provider": "custom-taped",
        "endpoint": request.url.removeprefix(f"{url.scheme}://{url.netloc}/"),
        "method": request.method,
        "config": {"frames": frames, "cacheTtl": 60},
        "body": base64.b64encode(request.body).decode(),
        "encoding": "base64",
    }
    transport = TapeTransport([taped], pace="instant")
    async with running(config_of(base, folder), transport) as server, connected(server) as client:
        return [await client.call(sent_request | {"eventId": name}) for name in ("first", "again")]


def without_own(frame: Frame) -> Frame:
    metadata = {name: value for name, value in frame["metadata"].items() if name not in OWN}
    return frame | {"metadata": metadata}
