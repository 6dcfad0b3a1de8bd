"""Answers that others recorded, through a running bridge over real sockets: what comes out is what went in.

What must come out is worked out here anew, by readers too simple to be wrong together with the decoders.
"""

import base64
import csv
import json
import os
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest

from tests.support.clock import turns
from tests.support.harness import Client, Frame, config_of, connected, is_last, running
from tests.support.socket_provider import Line, Provider, Script

pytestmark = pytest.mark.needs("streams")

FOLDER = Path(os.environ.get("BRIDGE_STREAMS", "no-folder"))


@dataclass(frozen=True, slots=True)
class Recording:
    name: str
    endpoint: str
    """Path and query, without the first slash."""
    content_type: str | None
    begins: int = 0

    @property
    def body(self) -> bytes:
        return (FOLDER / self.name).read_bytes()[self.begins :]


@dataclass(frozen=True, slots=True)
class Told:
    """What one item is to the client. `source` is the provider's own text."""

    source: str
    event: str | None = None
    id: str | None = None

    @property
    def response(self) -> object:
        return json.loads(self.source) if self.source.startswith(("{", "[")) else self.source

    @property
    def named(self) -> str | None:
        """The event's name, when the data does not say it itself."""
        says_itself = isinstance(self.response, dict) and self.response.get("type") == self.event
        return None if says_itself else self.event


def _listed() -> list[Recording]:
    index = FOLDER / "index.tsv"
    if not index.is_file():
        return [Recording("none", "", None)]  # skipped, or failed, by the marker
    with index.open(newline="") as lines:
        return [_recording(row) for row in csv.DictReader(lines, delimiter="\t")]


def _recording(row: dict[str, str]) -> Recording:
    """A type in brackets was not on the wire: `(not recorded)`, `text/event-stream (by test)`."""
    content_type = row["content_type"].partition(" (")[0]
    return Recording(
        row["file"], row["endpoint"].partition("/")[2], None if content_type.startswith("(") else content_type
    )


RECORDINGS = _listed()
every_recording = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
every_delivery = pytest.mark.parametrize("delivery", ["whole", "byte by byte"])


def test_every_file_of_the_folder_is_listed() -> None:
    assert {recording.name for recording in RECORDINGS} == {
        path.name for path in FOLDER.iterdir() if path.name not in {"README.md", "index.tsv"}
    }


@every_delivery
@every_recording
async def test_every_item_of_a_recording_reaches_the_client_untouched(
    recording: Recording, delivery: str, tmp_path: Path
) -> None:
    expected = list(relayed_of(recording))
    texts = await relayed(recording, delivery, "items", tmp_path)
    streamed = texts[1:-1]
    assert [frame["response"] for frame in map(json.loads, streamed)] == [item.response for item in expected]
    assert [frame.get("event") for frame in map(json.loads, streamed)] == [item.named for item in expected]
    assert [frame.get("id") for frame in map(json.loads, streamed)] == [item.id for item in expected]
    assert [item.source for item, text in zip(expected, streamed, strict=True) if _lost(item, text)] == []
    check_outside(texts)


@every_delivery
@every_recording
async def test_the_raw_runs_of_a_recording_are_its_bytes(recording: Recording, delivery: str, tmp_path: Path) -> None:
    texts = await relayed(recording, delivery, "raw", tmp_path)
    runs = b"".join(_run(json.loads(text)) for text in texts[1:-1])
    assert recording.body.startswith(runs)
    assert list(relayed_of(replace(recording, begins=len(runs)))) == [], (
        "only what follows the closing mark is left out"
    )
    check_outside(texts)


def check_outside(texts: list[str]) -> None:
    """The first frame, the last, and what the frames between them say beside their response."""
    opened, *streamed, done = map(json.loads, texts)
    assert (opened["type"], "response" in opened) == ("universal.created", False)
    assert {frame["type"] for frame in streamed} == {"universal.stream"}
    assert [frame["metadata"] for frame in streamed] == [{"eventId": "recorded"}] * len(streamed)
    assert (done["type"], done["metadata"]["success"]) == ("universal.done", True)
    assert done["metadata"]["chunks"] == len(streamed)
    assert "warnings" not in done["metadata"]


def _lost(item: Told, text: str) -> bool:
    """JSON goes into its frame as the very text that the provider wrote."""
    return item.source.startswith(("{", "[")) and item.source not in text


def _run(frame: Frame) -> bytes:
    text: str = frame["response"]
    return base64.b64decode(text) if frame["encoding"] == "base64" else text.encode()


# The way through the bridge.


async def relayed(recording: Recording, delivery: str, frames: str, folder: Path) -> list[str]:
    """The texts of all frames of the event."""
    body = recording.body
    pieces = [body] if delivery == "whole" else [body[at : at + 1] for at in range(len(body))]
    async with Provider(serves(recording, pieces)) as provider:
        config = config_of(f'[providers.custom-recorded]\nbase_url = "http://127.0.0.1:{provider.port}"', folder)
        async with running(config) as server, connected(server) as client:
            await client.create(
                {
                    "eventId": "recorded",
                    "provider": "custom-recorded",
                    "endpoint": recording.endpoint,
                    "query": {},
                    "config": {"frames": frames},
                }
            )
            return [text async for text in _texts(client)]


async def _texts(client: Client) -> AsyncIterator[str]:
    while True:
        message = await client.socket.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, f"expected a frame, got {message!r}"
        yield message.data
        if is_last(json.loads(message.data)):
            return


def serves(recording: Recording, pieces: list[bytes]) -> Script:
    label = f"Content-Type: {recording.content_type}\r\n" if recording.content_type else ""

    async def script(line: Line) -> None:
        head = await line.request()
        assert head.startswith(f"POST /{recording.endpoint} HTTP/1.1\r\n".encode())
        await line.send(f"HTTP/1.1 200 OK\r\n{label}Transfer-Encoding: chunked\r\n\r\n".encode())
        for piece in pieces:
            await line.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await turns(3)  # so that the bridge reads it alone
        await line.send(b"0\r\n\r\n")

    return script


# What must come out, read the simplest way.


def relayed_of(recording: Recording) -> Iterator[Told]:
    """The items that a client gets: no empty one before the answer, and none after Bedrock's closing mark.

    The other dialects send none after theirs.
    """
    has_answered = False
    for item in told(recording):
        has_answered |= item.source != ""
        if has_answered and not (item.event == "metadata" or item.source.startswith('{"metadata":')):
            yield item


def told(recording: Recording) -> Iterator[Told]:
    match Path(recording.name).suffix:
        case ".sse":
            return _told_by_sse(recording.body.decode())
        case ".ndjson":
            return (Told(line) for line in recording.body.decode().split("\n") if line.strip())
        case ".json":
            return _told_by_array(recording.body.decode())
        case suffix:
            assert suffix == ".bin"
            return _told_by_aws(recording.body)


def _told_by_sse(text: str) -> Iterator[Told]:
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = [
            (name, value.removeprefix(" ")) for name, _, value in (line.partition(":") for line in block.split("\n"))
        ]
        data = [value for name, value in fields if name == "data"]
        if data and data != ["[DONE]"]:
            yield Told("\n".join(data), dict(fields).get("event"), dict(fields).get("id"))


def _told_by_array(text: str) -> Iterator[Told]:
    reader = json.JSONDecoder()
    start = text.index("[") + 1
    while (start := _past(text, start, " \r\n,")) < text.rindex("]"):
        _, end = reader.raw_decode(text, start)
        yield Told(text[start:end])
        start = end


def _past(text: str, start: int, characters: str) -> int:
    return len(text) - len(text[start:].lstrip(characters))


def _told_by_aws(body: bytes) -> Iterator[Told]:
    """Total length, length of headers, checksum; headers; payload; checksum."""
    while body:
        total, of_headers, _ = struct.unpack_from(">III", body)
        event = _aws_headers(body[12 : 12 + of_headers])[":event-type"]
        payload = body[12 + of_headers : total - 4].decode()
        yield Told(base64.b64decode(json.loads(payload)["bytes"]).decode() if event == "chunk" else payload, event)
        body = body[total:]


def _aws_headers(block: bytes) -> dict[str, str]:
    headers = {}
    while block:
        name_end = 1 + block[0]
        value_end = name_end + 3 + int.from_bytes(block[name_end + 1 : name_end + 3])
        headers[block[1:name_end].decode()] = block[name_end + 3 : value_end].decode()
        block = block[value_end:]
    return headers
