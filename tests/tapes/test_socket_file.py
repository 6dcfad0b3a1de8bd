"""Tapes of sessions: what a file may hold, what comes back of it, and what is complained of."""

import json
from pathlib import Path

import pytest

from bridge.tapes.file import TapeError, TapeRequest, read_tape
from bridge.tapes.socket_file import (
    Handshake,
    Message,
    Opcode,
    Side,
    SocketEnd,
    SocketEnding,
    SocketTape,
    check_socket_tape,
    read_any,
    write_socket_tape,
)

FIRST = '{"tape":1,"kind":"realtime","request":{"method":"GET","url":"wss://h/talk"}}'
AGREED = '{"response":{"status":101,"ms":5}}'
CLOSED = '{"end":"closed","by":"client","code":1000,"ms":9}'


def taped(*messages: Message, **more: object) -> SocketTape:
    ending = SocketEnding(end=SocketEnd.CLOSED, by="client", code=1000, ms=100)
    tape = SocketTape(TapeRequest.of("GET", "wss://h/talk"), Handshake(status=101, ms=5), messages, ending)
    return tape._replace(**more)


@pytest.mark.parametrize(
    ("opcode", "data", "written"),
    [
        ("text", b'{"a":1}', {"text": '{"a":1}'}),
        ("text", b"", {"text": ""}),
        ("text", "ü\u2028".encode(), {"text": "ü\u2028"}),
        ("text", b"\xff", {"base64": "/w==", "opcode": "text"}),
        ("binary", b"\x00\x00", {"base64": "AAA="}),
        ("binary", b"", {"base64": ""}),
        ("binary", b'{"setupComplete":{}}', {"text": '{"setupComplete":{}}', "opcode": "binary"}),
        ("binary", b"{\xff", {"base64": "e/8="}),
    ],
)
def test_a_message_is_written_as_readably_as_it_can_be_and_comes_back_as_it_was(
    tmp_path: Path, opcode: Opcode, data: bytes, written: dict[str, str]
) -> None:
    path = tmp_path / "one.jsonl"
    tape = taped(Message.of(7, "provider", opcode, data))
    write_socket_tape(path, tape)
    assert json.loads(path.read_bytes().split(b"\n")[2]) == {"ms": 7, "from": "provider", **written}
    assert read_any(path) == tape
    [message] = tape.messages
    assert (message.opcode, message.data) == (opcode, data)


@pytest.mark.parametrize(
    "ending",
    [
        SocketEnding(end=SocketEnd.CLOSED, by="provider", code=1005, ms=9),
        SocketEnding(end=SocketEnd.CLOSED, by="client", code=4001, reason="über", ms=9),
        SocketEnding(end=SocketEnd.LOST, by="provider", ms=9),
    ],
)
def test_an_ending_comes_back_as_it_was(tmp_path: Path, ending: SocketEnding) -> None:
    write_socket_tape(tmp_path / "one.jsonl", taped(ending=ending))
    assert read_any(tmp_path / "one.jsonl") == taped(ending=ending)


@pytest.mark.parametrize(
    ("lines", "number", "why"),
    [
        ([FIRST], 1, "was cut"),
        ([FIRST, AGREED], 2, "was cut"),
        ([FIRST, AGREED, '{"ms":6,"from":"client","text":""}'], 3, "was cut"),
        ([FIRST, AGREED, '{"ms":6,"fr'], 3, "was cut"),
        ([FIRST, '{"ms":6,"from":"client","text":""}', CLOSED], 2, "unknown field"),
        ([FIRST, AGREED, '{"ms":6,"from":"bridge","text":""}', CLOSED], 3, "bridge"),
        ([FIRST, AGREED, '{"ms":6,"from":"client"}', CLOSED], 3, "either `text` or `base64`"),
        ([FIRST, AGREED, '{"end":"closed","by":"client","ms":9}'], 3, "has a `code`"),
        ([FIRST, AGREED, '{"end":"lost","by":"client","code":1006,"ms":9}'], 3, "has a `code`"),
        ([FIRST, AGREED, '{"end":"lost","ms":9}'], 3, "lost session has `by`"),
        ([FIRST, AGREED, '{"end":"refused","ms":9}'], 3, "is not 101"),
        ([FIRST, AGREED.replace("101", "401"), CLOSED], 3, "is not 101"),
        ([FIRST.replace("wss", "https"), AGREED, CLOSED], 1, 'of the kind "realtime"'),
        ([FIRST.replace('"kind":"realtime",', ""), AGREED, CLOSED], 1, 'of the kind "realtime"'),
    ],
)
def test_an_invalid_tape_is_reported_by_line(tmp_path: Path, lines: list[str], number: int, why: str) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(TapeError) as raised:
        read_any(path)
    assert (raised.value.line, why in raised.value.message) == (number, True), str(raised.value)


def test_reading_a_session_as_an_exchange_is_refused(tmp_path: Path) -> None:
    write_socket_tape(tmp_path / "one.jsonl", taped())
    with pytest.raises(TapeError, match="a realtime session, not of an exchange"):
        read_tape(tmp_path / "one.jsonl")


def message(ms: int, text: str, sender: Side = "client") -> Message:
    return Message.of(ms, sender, "text", text.encode())


@pytest.mark.parametrize(
    ("tape", "faults"),
    [
        (taped(message(6, "{}")), []),
        (taped(message(4, "{}")), ["runs backwards: an `ms` is smaller than the one before"]),
        (taped(message(6, "key sk-0123456789abcdefghij")), ["holds a credential in a body"]),
        (
            taped(request=TapeRequest.of("GET", "wss://h/talk?token=abcdefgh1234")),
            ["holds a credential in its URL"],
        ),
        (
            taped(request=TapeRequest.of("GET", "wss://h/", headers={"sec-websocket-protocol": "xi-api-key.abc"})),
            ["holds a credential in its headers"],
        ),
        (
            taped(
                message(6, "{}"),
                handshake=Handshake(status=401, ms=5),
                ending=SocketEnding(end=SocketEnd.REFUSED, ms=9),
            ),
            ["was refused, but has messages"],
        ),
    ],
)
def test_faults_of_a_tape_are_reported(tape: SocketTape, faults: list[str]) -> None:
    assert check_socket_tape(tape) == faults
