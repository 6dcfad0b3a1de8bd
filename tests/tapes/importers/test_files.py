"""What others recorded, made tapes: the same exchanges, in pieces that stream, without their secrets."""

import base64
import gzip
import importlib
import json
import sys
import zlib
from pathlib import Path

import pytest

from bridge.tapes.file import StreamEnd, Tape, TapeEnding, check, pairs, read_tape
from bridge.tapes.folder import TapeFolder
from bridge.tapes.importers.exchange import MAX_BODY_BYTES, Skipped, Unusable, pieces, plain
from bridge.tapes.importers.files import imported
from bridge.tapes.transport import TapeTransport
from tests.support.aws_eventstream import event
from tests.support.harness import config_of, connected, running
from tests.support.paths import FIXTURES

IMPORTS = FIXTURES / "imports"
ASKED = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Greet me."}]}


def tapes_of(file: Path, folder: Path) -> list[Tape]:
    """Of those that were not left out."""
    return [read_tape(made) for made in imported(file, TapeFolder(folder)) if isinstance(made, Path)]


def left_out(file: Path, folder: Path) -> list[str]:
    return [f"{made.what}: {made.why}" for made in imported(file, TapeFolder(folder)) if isinstance(made, Skipped)]


def body_of(tape: Tape) -> bytes:
    return b"".join(chunk.data for chunk in tape.chunks)


def cassette(folder: Path, response: dict[str, object], **request: object) -> Path:
    """One of JSON, with one interaction."""
    sent_request = {"method": "POST", "uri": "https://api.openai.com/v1/chat/completions", **request}
    answered = {"status": {"code": 200, "message": "OK"}, **response}
    file = folder / "cassette.json"
    file.write_text(json.dumps({"version": 1, "interactions": [{"request": sent_request, "response": answered}]}))
    return file


async def test_a_cassette_replays_through_the_bridge(tmp_path: Path) -> None:
    list(imported(IMPORTS / "stream.yaml", TapeFolder(tmp_path / "tapes")))
    step = {"provider": "openai", "endpoint": "chat/completions", "query": {**ASKED, "stream": True}}
    async with (
        running(config_of("", tmp_path), TapeTransport(tmp_path / "tapes")) as server,
        connected(server) as client,
    ):
        frames = await client.call({"eventId": "e", **step})
    texts = [frame["response"]["choices"][0]["delta"].get("content") for frame in frames[1:-1]]
    assert (texts, frames[-1]["type"]) == (["", "Hello", " there", None], "universal.done")


@pytest.mark.parametrize("file", sorted(IMPORTS.iterdir()), ids=lambda file: file.name)
def test_every_kept_import_gives_tapes_that_are_whole_and_free_of_what_was_planted(file: Path, tmp_path: Path) -> None:
    tapes = tapes_of(file, tmp_path)
    assert tapes
    for tape in tapes:
        assert check(tape) == []
        assert (tape.ending, {chunk.ms for chunk in tape.chunks}) == (TapeEnding(end=StreamEnd.EOF, ms=0), {0})
    assert not any("planted" in path.read_text() for path in tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("name", "chunks"),
    [
        ("stream.yaml", [5]),
        ("gzip.yaml", [1, 1]),
        ("plain.json", [1, 5]),
        ("base64.json", [1]),
        ("browser.har", [5, 1]),
    ],
)
def test_a_stream_has_a_chunk_for_each_event_and_all_else_is_one(name: str, chunks: list[int], tmp_path: Path) -> None:
    assert [len(tape.chunks) for tape in tapes_of(IMPORTS / name, tmp_path)] == chunks


@pytest.mark.parametrize("name", ["gzip.yaml", "plain.json", "base64.json", "browser.har"])
def test_all_files_tell_of_the_same_exchange(name: str, tmp_path: Path) -> None:
    """In YAML and JSON, as bytes, text and base64, with gzip and without; tapes are alike."""
    tape = next(tape for tape in tapes_of(IMPORTS / name, tmp_path) if json.loads(tape.request.body) == ASKED)
    assert (tape.request.method, tape.request.url.partition("?")[0]) == (
        "POST",
        "https://api.openai.com/v1/chat/completions",
    )
    assert json.loads(body_of(tape))["choices"][0]["message"]["content"] == "Good day."
    assert tape.head is not None
    assert (tape.head.status, pairs(tape.head.headers)) == (200, [("content-type", "application/json")])


def test_parsed_json_is_serialized_again(tmp_path: Path) -> None:
    _, tape = tapes_of(IMPORTS / "gzip.yaml", tmp_path)
    assert json.loads(tape.request.body)["messages"] == [{"role": "user", "content": "Greet me twice."}]
    assert json.loads(body_of(tape))["error"]["type"] == "invalid_request_error"


def test_an_unusable_entry_is_skipped_with_a_reason(tmp_path: Path) -> None:
    assert left_out(IMPORTS / "browser.har", tmp_path) == [
        "entry 3: it is a WebSocket, not a single exchange",
        "entry 4: it has no response",
        "entry 5: its body is not in the file",
    ]


@pytest.mark.parametrize(
    ("request_", "response", "why"),
    [
        ({"uri": "ftp://h/x"}, {}, "its URL is not absolute, http or https"),
        ({"uri": "/v1"}, {}, "its URL is not absolute, http or https"),
        ({"uri": "https://h:port/"}, {}, "its URL is invalid"),
        ({"uri": 7}, {}, "Expected `str`, got `int` - at `$.request.uri`"),
        ({}, {"status": None}, "its response has no status"),
        ({}, {"status": {"code": 42}}, "Expected `int` >= 100"),
        ({}, {"body": {"base64_string": "é"}}, "its body is not valid base64"),
        (
            {},
            {"headers": {"Content-Encoding": ["br"]}, "body": {"base64_string": "//8="}},
            "its content coding br is not supported",
        ),
        (
            {},
            {"headers": {"Content-Encoding": "gzip"}, "body": {"base64_string": "H4sI/////w=="}},
            "its compressed body is damaged",
        ),
    ],
)
def test_one_bad_entry_is_left_out_for_a_reason(
    tmp_path: Path, request_: dict[str, object], response: dict[str, object], why: str
) -> None:
    (skipped,) = left_out(cassette(tmp_path, response, **request_), tmp_path / "tapes")
    assert why in skipped


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[1, 2]", "neither a VCR cassette nor a HAR archive"),
        (b'{"log": {}}', "neither a VCR cassette nor a HAR archive"),
        (b"", "neither a VCR cassette nor a HAR archive"),
        (b"a: [", "neither JSON nor plain YAML"),
        (b"a: !!python/object:os.x {}", "neither JSON nor plain YAML: could not determine a constructor"),
        (b"\x1f\x8bx", "damaged gzip data"),
    ],
)
def test_a_file_without_recordings_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(Unusable, match=why):
        list(imported(file, TapeFolder(tmp_path / "tapes")))


def test_a_file_may_be_packed_and_may_begin_with_a_mark(tmp_path: Path) -> None:
    packed = tmp_path / "cassette.yaml.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + (IMPORTS / "stream.yaml").read_bytes()))
    assert len(tapes_of(packed, tmp_path / "tapes")) == 1


def test_without_the_extra_yaml_names_it_and_all_else_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError):
        importlib.import_module("yaml")
    with pytest.raises(Unusable, match=r"pip install 'universal-bridge\[import\]'"):
        list(imported(IMPORTS / "stream.yaml", TapeFolder(tmp_path)))
    assert tapes_of(IMPORTS / "plain.json", tmp_path)
    assert tapes_of(IMPORTS / "browser.har", tmp_path)


def test_the_posted_fields_of_a_form_are_its_body(tmp_path: Path) -> None:
    posted = {"mimeType": "application/x-www-form-urlencoded", "params": [{"name": "a b", "value": "ü"}]}
    request = {"method": "POST", "url": "https://h/x?ü=1", "headers": [], "postData": posted}
    file = tmp_path / "form.har"
    entry = {"request": request, "response": {"status": 204, "headers": [], "content": {"size": 0}}}
    file.write_text(json.dumps({"log": {"entries": [entry]}}))
    (tape,) = tapes_of(file, tmp_path / "tapes")
    assert (tape.request.url, tape.request.body, tape.chunks) == ("https://h/x?%C3%BC=1", b"a+b=%C3%BC", ())


# Bodies.

TEXT = b'{"text":"' + b"caf\xc3\xa9 " * 20_000 + b'"}'


@pytest.mark.parametrize(
    ("coded", "coding"),
    [
        (gzip.compress(TEXT), "gzip"),
        (gzip.compress(TEXT), "x-gzip"),
        (gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]), "gzip"),
        (zlib.compress(TEXT), "deflate"),
        (zlib.compress(TEXT, wbits=-15), "deflate"),
        (gzip.compress(zlib.compress(TEXT)), "deflate, gzip"),
        (TEXT, "identity"),
        (TEXT, ""),
        (TEXT, "gzip"),
        (TEXT, "deflate"),
        (TEXT, "br"),
    ],
)
def test_a_coding_is_undone_unless_the_other_tool_has_done_it(coded: bytes, coding: str) -> None:
    assert plain(coded, coding) == TEXT


def test_a_body_that_inflates_without_end_is_refused() -> None:
    with pytest.raises(Unusable, match="inflates to more than"):
        plain(gzip.compress(bytes(MAX_BODY_BYTES + 1)), "gzip")


AWS = [event("a", b"{}"), event("b", b'{"n":1}')]


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/event-stream", [b"data: 1\n\n", b"data: 2\n\n", b"data: cut"]),
        ("text/event-stream", [b"data: 1\r\ndata: 2\r\n\r\n", b"data: 3\r\n\r\n"]),
        ("text/event-stream", [b"data: 1\r\r", b": comment\n\n", b"data: 2\n\n"]),
        ("text/plain", [b"event: a\ndata: 1\n\n", b"data: 2\n\n"]),
        ("application/x-ndjson", [b'{"a":1}\n', b'{"b":"\xe2\x80\xa8"}\r\n', b'{"c":1}']),
        ("application/vnd.amazon.eventstream", AWS),
        ("application/vnd.amazon.eventstream", [AWS[0], AWS[1][:-3]]),
        ("application/vnd.amazon.eventstream", [AWS[0], b"\0\0\0\1 no message"]),
        ("application/json", [b'{"a":\n\n1}']),
        ("audio/mpeg", [b"\xff\n\n\xff"]),
        ("text/event-stream", []),
    ],
)
def test_a_stream_is_cut_where_its_events_end_and_no_byte_is_lost(content_type: str, expected: list[bytes]) -> None:
    assert list(pieces(b"".join(expected), content_type, "/x")) == expected


@pytest.mark.parametrize(
    "body",
    [{"string": "é"}, {"string": base64.b64encode("é".encode()).decode(), "encoding": "base64"}, "é"],
)
def test_a_body_is_found_wherever_it_stands(body: object, tmp_path: Path) -> None:
    (tape,) = tapes_of(cassette(tmp_path, {"body": body}), tmp_path / "tapes")
    assert body_of(tape) == "é".encode()
