"""Relay recorded answers of providers through a running bridge, over real sockets, and compare what comes out.

The expected items are read by parsers of this module, which share no code with the decoders.
"""

import base64
import csv
import json
import os
import re
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.support.clock import turns
from tests.support.harness import Client, Frame, config_of, connected, is_last, running
from tests.support.socket_provider import Line, Provider, Script

pytestmark = pytest.mark.needs("streams")

FOLDER = Path(os.environ.get("BRIDGE_STREAMS", "no-folder"))
LINE_ENDS = b"\r\n"
DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class Recording:
    name: str
    endpoint: str
    """Path and query, without the first slash."""
    content_type: str | None

    @property
    def body(self) -> bytes:
        return (FOLDER / self.name).read_bytes()


@dataclass(frozen=True, slots=True)
class RecordedItem:
    """One item of a recording. `source` is the provider's own text."""

    source: str
    end: int
    """Number of bytes of the body up to the item's end."""
    event: str | None = None
    id: str | None = None

    @property
    def response(self) -> object:
        return json.loads(self.source) if self.source.startswith(("{", "[")) else self.source

    @property
    def frame_event(self) -> str | None:
        """The `event` of the item's frame: the event's name, unless it is the data's `type` too."""
        is_repeated = isinstance(self.response, dict) and self.response.get("type") == self.event
        return None if is_repeated else self.event


def _listed() -> list[Recording]:
    index = FOLDER / "index.tsv"
    if not index.is_file():
        return [Recording("none", "", None)]  # the marker skips or fails these tests
    with index.open(newline="") as lines:
        return [_recording(row) for row in csv.DictReader(lines, delimiter="\t")]


def _recording(row: dict[str, str]) -> Recording:
    """Return the recording of a row of the index.

    A content type in brackets was not sent by the provider: `(not recorded)`, `text/event-stream (by test)`.
    """
    content_type = row["content_type"].partition(" (")[0]
    return Recording(
        row["file"], row["endpoint"].partition("/")[2], None if content_type.startswith("(") else content_type
    )


RECORDINGS = _listed()
every_recording = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
every_delivery = pytest.mark.parametrize("delivery", ["whole", "byte by byte"])


def test_the_index_lists_every_file_of_the_folder() -> None:
    assert {recording.name for recording in RECORDINGS} == {
        path.name for path in FOLDER.iterdir() if path.name not in {"README.md", "index.tsv"}
    }


@every_delivery
@every_recording
async def test_every_item_of_a_recording_reaches_the_client_unchanged(
    recording: Recording, delivery: str, tmp_path: Path
) -> None:
    expected = relayed_items(recording)
    texts = await relayed(recording, delivery, "items", tmp_path)
    streamed = texts[1:-1]
    assert [frame["response"] for frame in map(json.loads, streamed)] == [item.response for item in expected]
    assert [frame.get("event") for frame in map(json.loads, streamed)] == [item.frame_event for item in expected]
    assert [frame.get("id") for frame in map(json.loads, streamed)] == [item.id for item in expected]
    assert [item.source for item, text in zip(expected, streamed, strict=True) if _is_rewritten(item, text)] == []
    check_envelopes(texts)


@every_delivery
@every_recording
async def test_the_raw_runs_of_a_recording_are_its_bytes_up_to_an_item_end_from_the_closing_mark_on(
    recording: Recording, delivery: str, tmp_path: Path
) -> None:
    texts = await relayed(recording, delivery, "raw", tmp_path)
    runs = b"".join(_run(json.loads(text)) for text in texts[1:-1])
    body = recording.body
    assert body.startswith(runs)
    closing_end = relayed_items(recording)[-1].end
    ends = [item.end for item in read_items(recording) if item.end >= closing_end]
    assert runs == body or runs.rstrip(LINE_ENDS) in [body[:end].rstrip(LINE_ENDS) for end in ends]
    check_envelopes(texts)


def check_envelopes(texts: list[str]) -> None:
    """Check the first and the last frame, and the members beside `response` of the frames between them."""
    opened, *streamed, done = map(json.loads, texts)
    assert (opened["type"], "response" in opened) == ("universal.created", False)
    assert {frame["type"] for frame in streamed} == {"universal.stream"}
    assert [frame["metadata"] for frame in streamed] == [{"eventId": "recorded"}] * len(streamed)
    assert (done["type"], done["metadata"]["success"]) == ("universal.done", True)
    assert done["metadata"]["chunks"] == len(streamed)
    assert "warnings" not in done["metadata"]


def _is_rewritten(item: RecordedItem, text: str) -> bool:
    """Return True if the frame does not hold the item's JSON exactly as the provider wrote it."""
    return item.source.startswith(("{", "[")) and item.source not in text


def _run(frame: Frame) -> bytes:
    text: str = frame["response"]
    return base64.b64decode(text) if frame["encoding"] == "base64" else text.encode()


# Relaying a recording


async def relayed(recording: Recording, delivery: str, frames: str, folder: Path) -> list[str]:
    """Return the texts of all frames of the event."""
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
            await turns(3)  # so that the bridge reads each piece alone
        await line.send(b"0\r\n\r\n")

    return script


# Reading a recording


def relayed_items(recording: Recording) -> list[RecordedItem]:
    """Return the items that are sent to the client.

    Empty items before the answer are dropped, and so is Bedrock's `metadata` after the closing mark.
    """
    items: list[RecordedItem] = []
    for item in read_items(recording):
        is_after_closing_mark = item.event == "metadata" or item.source.startswith('{"metadata":')
        if (items or item.source) and item.source != DONE and not is_after_closing_mark:
            items.append(item)
    return items


def read_items(recording: Recording) -> Iterator[RecordedItem]:
    match Path(recording.name).suffix:
        case ".sse":
            return _sse_items(recording.body)
        case ".ndjson":
            return _ndjson_items(recording.body)
        case ".json":
            return _array_items(recording.body.decode())
        case suffix:
            assert suffix == ".bin"
            return _aws_items(recording.body)


def _sse_items(body: bytes) -> Iterator[RecordedItem]:
    start = 0
    while start < len(body):
        blank = re.compile(rb"\r?\n\r?\n").search(body, start)
        end = blank.end() if blank else len(body)
        lines = body[start:end].decode().splitlines()
        fields = [(name, value.removeprefix(" ")) for name, _, value in (line.partition(":") for line in lines)]
        data = [value for name, value in fields if name == "data"]
        if data:
            yield RecordedItem("\n".join(data), end, dict(fields).get("event"), dict(fields).get("id"))
        start = end


def _ndjson_items(body: bytes) -> Iterator[RecordedItem]:
    end = 0
    for line in body.splitlines(keepends=True):
        end += len(line)
        if line.strip():
            yield RecordedItem(line.decode().rstrip("\n"), end)


def _array_items(text: str) -> Iterator[RecordedItem]:
    """Read the values of an array; the comma or the bracket behind a value belongs to its item."""
    reader = json.JSONDecoder()
    start = text.index("[") + 1
    while (start := _skip(text, start, " \r\n,")) < text.rindex("]"):
        _, end = reader.raw_decode(text, start)
        item_end = _skip(text, end, " \r\n") + 1
        yield RecordedItem(text[start:end], len(text[:item_end].encode()))
        start = end


def _skip(text: str, start: int, characters: str) -> int:
    return len(text) - len(text[start:].lstrip(characters))


def _aws_items(body: bytes) -> Iterator[RecordedItem]:
    """Read messages of: total length, length of the headers, checksum; headers; payload; checksum."""
    start = 0
    while start < len(body):
        total, headers_bytes, _ = struct.unpack_from(">III", body, start)
        headers_end, end = start + 12 + headers_bytes, start + total
        event = _aws_headers(body[start + 12 : headers_end])[":event-type"]
        payload = body[headers_end : end - 4].decode()
        is_chunk = event == "chunk"
        yield RecordedItem(base64.b64decode(json.loads(payload)["bytes"]).decode() if is_chunk else payload, end, event)
        start = end


def _aws_headers(block: bytes) -> dict[str, str]:
    headers = {}
    while block:
        name_end = 1 + block[0]
        value_end = name_end + 3 + int.from_bytes(block[name_end + 1 : name_end + 3])
        headers[block[1:name_end].decode()] = block[name_end + 3 : value_end].decode()
        block = block[value_end:]
    return headers
