"""Sessions recorded through the bridge, and replayed to the same messages; what strays from a tape is told so."""

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.replay.socket_connector import TapeConnector
from bridge.server.server import Server
from bridge.tapes.file import TapeError, TapeRequest, pairs, write_tape
from bridge.tapes.folder import TapeFolder, cut_tapes
from bridge.tapes.library import Library, Pace
from bridge.tapes.matching import STRICT, Matching
from bridge.tapes.recorder import recording_transport
from bridge.tapes.socket_file import (
    Handshake,
    Message,
    SocketEnd,
    SocketEnding,
    SocketTape,
    check_socket_tape,
    read_any,
    write_socket_tape,
)
from bridge.tapes.socket_recorder import RecordingConnector
from bridge.tapes.transport import TapeTransport
from bridge.upstream.http import Upstream
from tests.support.clock import advance, turns, until
from tests.support.harness import config_of
from tests.support.raw_client import UPGRADE, RawClient, connect_raw, frame
from tests.support.realtime_harness import (
    BINARY,
    CLOSE,
    PATH,
    TEXT,
    AcceptingProvider,
    ProviderSide,
    client_close_frame,
    close_payload,
    connect_realtime,
)
from tests.support.realtime_tapes import playing_bridge, recording_bridge, recording_bridge_to
from tests.support.socket_provider import Line, sends
from tests.support.tapes import tape as http_tape

SECRET = "sk-0123456789abcdefghij"
Said = tuple[str, int, bytes]
"""Who, opcode, payload."""


def the_tape(folder: Path) -> SocketTape:
    (path,) = folder.rglob("*.jsonl")
    tape = read_any(path)
    assert isinstance(tape, SocketTape)
    assert cut_tapes(folder) == []
    return tape


def said_on(tape: SocketTape) -> list[Said]:
    return [(each.sender, TEXT if each.opcode == "text" else BINARY, each.data) for each in tape.messages]


async def talk(client: RawClient, side: ProviderSide, said: Sequence[Said]) -> None:
    """Each heard before the next is said."""
    for sender, opcode, data in said:
        if sender == "client":
            await client.send(frame(data, opcode))
            assert await side.next_frame() == (opcode, data)
        else:
            await side.send(data, opcode)
            assert await client.next_frame() == (opcode, data)


async def answered_by_tape(client: RawClient, said: Sequence[Said]) -> None:
    for sender, opcode, data in said:
        if sender == "client":
            await client.send(frame(data, opcode))
        else:
            assert await client.next_frame() == (opcode, data)


TALK: list[Said] = [
    ("provider", TEXT, b'{"type":"hello"}'),
    ("client", TEXT, b'{"type":"start"}'),
    ("client", BINARY, b"\x00\x01\xff"),
    ("provider", BINARY, b'{"setupComplete":{}}'),
    ("provider", TEXT, b"broken \xff text"),
    ("client", BINARY, b""),
    ("provider", BINARY, b"\x00\x00"),
]


async def record(folder: Path, said: Sequence[Said] = TALK, path: str = PATH, code: int | None = 4001) -> SocketTape:
    """A session that the provider closes."""
    sockets = AcceptingProvider("x-request-id: req_1")
    async with (
        recording_bridge(sockets.script, folder, folder / "tapes") as server,
        connect_realtime(server, path) as client,
    ):
        side = await sockets.next_session()
        await talk(client, side, said)
        await side.send(close_payload(code, b"over" if code else b""), CLOSE)
        await client_close_frame(client)
        side.line.drop()
    return the_tape(folder / "tapes")


# What is on the tape.


async def test_every_message_is_on_the_tape_as_it_was_and_how_it_ended(tmp_path: Path) -> None:
    tape = await record(tmp_path)
    assert said_on(tape) == TALK
    assert tape.request.method == "GET"
    assert tape.request.url.startswith("ws://127.0.0.1:")
    assert tape.handshake.status == 101
    assert ("x-request-id", "req_1") in pairs(tape.handshake.headers)
    assert (tape.ending.end, tape.ending.by, tape.ending.code, tape.ending.reason) == (
        SocketEnd.CLOSED,
        "provider",
        4001,
        "over",
    )
    assert check_socket_tape(tape) == []


async def test_a_recording_is_replayed_to_the_same_messages_and_the_same_goodbye(tmp_path: Path) -> None:
    await record(tmp_path)
    async with playing_bridge(tmp_path / "tapes", tmp_path) as server, connect_raw(server) as client:
        told = await client.request(PATH, UPGRADE)
        assert told.status == 101
        await answered_by_tape(client, TALK)
        assert await client_close_frame(client) == (4001, "over")


any_talk = st.lists(
    st.tuples(st.sampled_from(["client", "provider"]), st.sampled_from([TEXT, BINARY]), st.binary(max_size=40)),
    max_size=12,
)


@settings(max_examples=20, deadline=None)
@given(said=any_talk, code=st.sampled_from([None, 1000, 1001, 3000, 4999]))
async def test_any_session_is_replayed_as_it_was(said: list[Said], code: int | None) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        tape = await record(folder, said, code=code)
        assert said_on(tape) == said
        async with playing_bridge(folder / "tapes", folder) as server, connect_realtime(server) as client:
            await answered_by_tape(client, said)
            assert await client_close_frame(client) == ((code, "over") if code else (1000, ""))


async def test_a_client_that_leaves_is_the_end_of_the_tape(tmp_path: Path) -> None:
    sockets = AcceptingProvider()
    async with (
        recording_bridge(sockets.script, tmp_path, tmp_path / "tapes") as server,
        connect_realtime(server) as client,
    ):
        side = await sockets.next_session()
        await talk(client, side, TALK)
        await client.send(frame(close_payload(1001, b"bye"), CLOSE))
        assert await side.close_frame() == (1001, "bye")
        side.line.drop()
    ending = the_tape(tmp_path / "tapes").ending
    assert (ending.end, ending.by, ending.code, ending.reason) == (SocketEnd.CLOSED, "client", 1001, "bye")
    async with playing_bridge(tmp_path / "tapes", tmp_path) as server, connect_realtime(server) as client:
        await answered_by_tape(client, TALK)
        await client.send(frame(close_payload(1001, b"bye"), CLOSE))
        assert (await client_close_frame(client)) == (1001, "")


async def test_a_provider_that_is_lost_is_lost_again_once_all_is_said(tmp_path: Path) -> None:
    sockets = AcceptingProvider()
    long = [*TALK, ("provider", BINARY, b"x" * 1_000_000)]
    async with (
        recording_bridge(sockets.script, tmp_path, tmp_path / "tapes") as server,
        connect_realtime(server) as client,
    ):
        side = await sockets.next_session()
        await talk(client, side, TALK)
        sending = asyncio.create_task(side.send(b"x" * 1_000_000, BINARY))
        assert await client.next_frame() == (BINARY, b"x" * 1_000_000)
        await sending
        side.line.drop()
        lost = await client_close_frame(client)
    ending = the_tape(tmp_path / "tapes").ending
    assert (ending.end, ending.by) == (SocketEnd.LOST, "provider")
    async with playing_bridge(tmp_path / "tapes", tmp_path) as server, connect_realtime(server) as client:
        await answered_by_tape(client, long)
        assert await client_close_frame(client) == lost == (1011, "the connection to the provider was lost")


async def test_a_refusal_is_a_tape_too(tmp_path: Path) -> None:
    body = b'{"error":{"message":"Incorrect API key"}}'
    head = f"HTTP/1.1 401 No\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nx-id: 7\r\n\r\n"
    tapes = tmp_path / "tapes"
    async with recording_bridge(sends(head.encode() + body), tmp_path, tapes) as server, connect_raw(server) as client:
        first = await client.request(PATH, UPGRADE)
    tape = the_tape(tapes)
    assert (tape.handshake.status, tape.handshake.body, tape.ending.end) == (401, body, SocketEnd.REFUSED)
    async with playing_bridge(tapes, tmp_path) as server, connect_raw(server) as client:
        again = await client.request(PATH, UPGRADE)
    for told in (first, again):
        assert (told.status, told.body, told.headers["x-id"]) == (401, body, "7")


async def test_a_handshake_that_is_not_answered_leaves_no_tape(tmp_path: Path) -> None:
    async def hangs_up(line: Line) -> None:
        await line.head()
        line.reset()

    tapes = tmp_path / "tapes"
    async with recording_bridge(hangs_up, tmp_path, tapes) as server, connect_raw(server) as client:
        assert (await client.request(PATH, UPGRADE)).status == 502
    assert [*tapes.rglob("*.*")] == []


async def test_what_is_recorded_may_be_what_is_replayed(tmp_path: Path) -> None:
    await record(tmp_path)
    transport = recording_transport(TapeTransport(tmp_path / "tapes", pace="instant"), tmp_path / "again")
    library = Library(tmp_path / "tapes", pace="instant")
    (host,) = library.hosts
    config = config_of(f'[providers.custom-x]\nbase_url = "http://{host}"\n', tmp_path)
    server = Server(
        config, Upstream(transport), connector=RecordingConnector(TapeConnector(library), transport.recording_thread)
    )
    await server.start()
    async with connect_realtime(server) as client:
        await answered_by_tape(client, TALK)
        await client_close_frame(client)
    await server.stop()
    assert said_on(the_tape(tmp_path / "again")) == TALK


# What is not on the tape.


async def test_no_secret_is_on_the_tape_wherever_it_comes_back(tmp_path: Path) -> None:
    """Of the headers, of the URL, of the client's messages; each message stays as long as it was."""
    own = "one-of-my-own-77"
    said: list[Said] = [
        ("provider", TEXT, f'{{"you":"{SECRET}1"}}'.encode()),
        ("client", TEXT, f'{{"text":" ","xi_api_key":"{own}"}}'.encode()),
        ("provider", BINARY, f"…{own}… {SECRET}2 and {SECRET}3".encode()),
    ]
    tapes, sockets = tmp_path / "tapes", AcceptingProvider(f"Set-Cookie: session={SECRET}4")
    headers = {"xi-api-key": f"{SECRET}2", "Sec-WebSocket-Protocol": f"realtime, openai-insecure-api-key.{SECRET}3"}
    path = f"{PATH}?a=1&api_key={SECRET}1&signature={SECRET}5"
    async with (
        recording_bridge(sockets.script, tmp_path, tapes) as server,
        connect_realtime(server, path, headers) as client,
    ):
        side = await sockets.next_session()
        await talk(client, side, said)
        await side.send(close_payload(4000, f"no {own} here".encode()), CLOSE)
        await client_close_frame(client)
        side.line.drop()
    (file,) = tapes.rglob("*.jsonl")
    written = file.read_text()
    assert SECRET not in written
    assert own not in written
    assert check_socket_tape(the_tape(tapes)) == []
    assert [len(data) for _, _, data in said_on(the_tape(tapes))] == [len(data) for _, _, data in said]
    async with playing_bridge(tapes, tmp_path) as server:
        again = {**headers, "xi-api-key": "another-key-12345"}
        async with connect_realtime(server, f"{PATH}?a=1&signature=none-of-those", again) as client:
            assert (await client.next_frame())[1] == said_on(the_tape(tapes))[0][2]
            await client.send(frame(said[1][2]))
            assert (await client.next_frame())[0] == BINARY
            assert (await client_close_frame(client)) == (4000, f"no {'*' * len(own)} here")


# What goes wrong with a recording, and for whom.


async def test_a_session_is_written_as_it_goes_and_what_was_cut_is_known_by_its_name(tmp_path: Path) -> None:
    """As after a kill, nobody ends the recording; all that was said until then is there."""
    sockets, tapes = AcceptingProvider(), tmp_path / "tapes"
    async with recording_bridge(sockets.script, tmp_path, tapes) as server, connect_realtime(server) as client:
        side = await sockets.next_session()
        await talk(client, side, TALK)
        await until(lambda: len(cut_tapes(tapes)) == 1 and cut_tapes(tapes)[0].read_bytes().count(b"\n") == 9)
        written = cut_tapes(tapes)[0].read_bytes()
        assert not [*tapes.rglob("*.jsonl")]
        side.line.drop()
    killed = tmp_path / "killed.jsonl"
    killed.write_bytes(written)
    with pytest.raises(TapeError, match=r":9: The recording was cut: its last line is not"):
        read_any(killed)


async def test_what_waits_for_the_disk_is_bounded_and_a_session_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that has more waiting than may goes on without a tape; one that is longer than that in all has one."""
    tapes, message = tmp_path / "tapes", ("client", BINARY, b"x" * 9_000)
    sockets = AcceptingProvider()
    async with recording_bridge_to(sockets.script, tmp_path, TapeFolder(tapes), max_held_bytes=10_000) as (
        server,
        recording_thread,
    ):
        for said in ([("client", BINARY, b"x" * 20_000), ("provider", TEXT, b"on")], [message] * 5):
            async with connect_realtime(server) as client:
                side = await sockets.next_session()
                for each in said:
                    await talk(client, side, [each])
                    await until(lambda: recording_thread.held_bytes == 0)
                await side.send(close_payload(1000), CLOSE)
                await client_close_frame(client)
                side.line.drop()
    assert said_on(the_tape(tapes)) == [message] * 5
    [told] = [record.message for record in caplog.records if record.name == "bridge.recording"]
    assert told.startswith("a session with 127.0.0.1:")
    assert told.endswith(" is not recorded: too many others wait to be written")


@pytest.mark.parametrize("fails", ["begin", "add", "seal"])
async def test_a_full_disk_costs_a_tape_and_a_line_but_no_session(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tapes = tmp_path / "tapes"
    folder = type("Full", (TapeFolder,), {fails: full})(tapes)
    sockets = AcceptingProvider()
    async with recording_bridge_to(sockets.script, tmp_path, folder) as (server, _), connect_realtime(server) as client:
        side = await sockets.next_session()
        await talk(client, side, TALK)
        side.line.drop()
    assert not [*tapes.rglob("*.jsonl")]
    assert [record.message for record in caplog.records if record.name == "bridge.recording"] == [
        "a tape could not be written: No space left on device"
    ]


# What is played, and when.

URL = "ws://provider.test/talk"


def taped(
    *said: Said,
    code: int = 1000,
    by: Literal["client", "provider"] = "provider",
    url: str = URL,
    step_ms: int = 100,
) -> SocketTape:
    """One message every hundred milliseconds, after the handshake's answer."""
    request = TapeRequest.of("GET", url)
    messages = tuple(
        Message.of(step_ms * at, who, "text" if opcode == TEXT else "binary", data)  # type: ignore[arg-type]  # a Side
        for at, (who, opcode, data) in enumerate(said, start=2)
    )
    ending = SocketEnding(end=SocketEnd.CLOSED, by=by, code=code, ms=step_ms * (len(said) + 2))
    return SocketTape(request, Handshake(status=101, ms=step_ms), messages, ending)


def folder_of(folder: Path, *tapes: SocketTape) -> Path:
    (folder / "tapes").mkdir()
    for number, each in enumerate(tapes):
        write_socket_tape(folder / "tapes" / f"case-{number}.jsonl", each)
    return folder / "tapes"


def json(who: str, text: str) -> Said:
    return who, TEXT, text.encode()


async def test_nothing_is_said_before_what_came_before_it(tmp_path: Path) -> None:
    tape = taped(json("client", "{}"), json("provider", "[1]"), json("client", "{}"), json("provider", "[2]"))
    async with playing_bridge(folder_of(tmp_path, tape), tmp_path) as server, connect_realtime(server) as client:
        heard = asyncio.create_task(client.next_frame())
        await turns(100)
        assert not heard.done()
        await client.send(frame(b"{}"))
        assert await heard == (TEXT, b"[1]")
        heard = asyncio.create_task(client.next_frame())
        await turns(100)
        assert not heard.done()
        await client.send(frame(b"{}"))
        assert await heard == (TEXT, b"[2]")


@pytest.mark.parametrize(("pace", "factor"), [("recorded", 1.0), (0.5, 0.5), (3, 3.0)])
async def test_between_two_messages_passes_what_passed_on_the_tape(tmp_path: Path, pace: Pace, factor: float) -> None:
    """Counted from what was said last, by whomever: a client that takes its time has the rest come later."""
    tape = taped(json("provider", "[1]"), json("client", "{}"), json("provider", "[2]"), step_ms=2_000)
    step_s = 2 * factor
    async with playing_bridge(folder_of(tmp_path, tape), tmp_path, pace=pace) as server, connect_raw(server) as client:
        answer = asyncio.create_task(client.request(PATH, UPGRADE))
        await due(answer, step_s)
        heard = asyncio.create_task(client.next_frame())
        await due(heard, step_s)
        advance(4 * factor)
        await client.send(frame(b"{}"))
        heard = asyncio.create_task(client.next_frame())
        await due(heard, step_s)
        assert heard.result() == (TEXT, b"[2]")
        closed = asyncio.create_task(client_close_frame(client))
        await due(closed, step_s)


async def due(waiting: "asyncio.Task[Any]", seconds: float) -> None:
    """It comes about in so many seconds, and not before."""
    await turns(300)
    advance(seconds - 0.5)
    await turns(100)
    assert not waiting.done()
    advance(0.5)
    await waiting


async def test_a_client_may_say_its_part_ahead_of_the_tape(tmp_path: Path) -> None:
    said = [json("provider", "[1]"), json("client", "{}"), json("provider", "[2]"), json("client", "[]")]
    async with (
        playing_bridge(folder_of(tmp_path, taped(*said)), tmp_path) as server,
        connect_realtime(server) as client,
    ):
        await client.send(frame(b"{}") + frame(b"[]"))
        assert [(await client.next_frame())[1] for _ in range(2)] == [b"[1]", b"[2]"]
        assert await client_close_frame(client) == (1000, "")


# What strays.


async def strayed_with(
    folder: Path, tape: SocketTape, *said: tuple[int, bytes], matching: Matching = STRICT
) -> tuple[tuple[int, str] | None, list[str]]:
    told: list[str] = []
    bridge = playing_bridge(folder_of(folder, tape), folder, matching=matching, mismatches=told)
    async with bridge as server, connect_realtime(server) as client:
        for opcode, data in said:
            await client.send(frame(data, opcode))
        return await client_close_frame(client), told


HELLO = taped(
    json("client", '{"type":"session.update"}'),
    json("provider", '{"type":"session.updated"}'),
    json("client", '{"type":"response.create","item":{"text":"Say hello.","n":1}}'),
    ("client", BINARY, b"\x00\x01\x02"),
)


@pytest.mark.parametrize(
    ("said", "reason", "told"),
    [
        (
            [(TEXT, b'{"item": {"n": 1, "text": "Say hi."}, "type": "response.create"}')],
            'message 2 is not the tape\'s: item.text: "Say hi." ≠ "Say hello."',
            """\
Message 2 of the client is not that of tapes/case-0.jsonl, line 5; sent ≠ taped:
  item.text: "Say hi." ≠ "Say hello."
""",
        ),
        (
            [(BINARY, b'{"type":"response.create","item":{"text":"Say hello.","n":1}}')],
            'message 2 is not the tape\'s: opcode: "binary" ≠ "text"',
            """\
Message 2 of the client is not that of tapes/case-0.jsonl, line 5; sent ≠ taped:
  opcode: "binary" ≠ "text"
""",
        ),
        (
            [(TEXT, b'{"type":"response.create","item":{"text":"Say hello.","n":1}}'), (BINARY, b"\x00\x01\x03")],
            r"message 3 is not the tape's: message: b'\x00\x01\x03' ≠ b'\x00\x01\x02'",
            """\
Message 3 of the client is not that of tapes/case-0.jsonl, line 6; sent ≠ taped:
  message: b'\\x00\\x01\\x03' ≠ b'\\x00\\x01\\x02'
""",
        ),
        (
            [(TEXT, b'{"type":"input","api_key":"abcdefgh12345"}')],
            'message 2 is not the tape\'s: type: "input" ≠ "response.create"',
            """\
Message 2 of the client is not that of tapes/case-0.jsonl, line 5; sent ≠ taped:
  type: "input" ≠ "response.create"
  api_key: "[redacted]" ≠ (absent)
  item: (absent) ≠ {"text": "Say hello.", "n": 1}
""",
        ),
    ],
)
async def test_a_client_that_strays_from_the_tape_is_told_where_and_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, said: list[tuple[int, bytes]], reason: str, told: str
) -> None:
    closed, on_mismatch = await strayed_with(tmp_path, HELLO, (TEXT, b'{"type":"session.update"}'), *said)
    assert closed == (1008, reason)
    assert on_mismatch == [told.rstrip("\n")]
    assert on_mismatch[0] in caplog.messages


async def test_a_message_more_than_the_tape_has_strays_too(tmp_path: Path) -> None:
    tape = taped(json("client", "{}"), by="client")
    closed, on_mismatch = await strayed_with(tmp_path, tape, (TEXT, b"{}"), (TEXT, b'{"type": "more"}'))
    assert closed == (1008, "message 2 is one more than the tape has")
    assert on_mismatch == ['Message 2 of the client is one more than tapes/case-0.jsonl has:\n  {"type": "more"}']


async def test_what_may_differ_in_json_is_said_as_for_http(tmp_path: Path) -> None:
    """Audio in JSON, for one."""
    tape = taped(json("client", '{"type":"append","audio":"AAAA"}'))
    matching = Matching(ignore_json=("$.audio",))
    closed, on_mismatch = await strayed_with(
        tmp_path, tape, (TEXT, b'{"audio":"////","type":"append"}'), matching=matching
    )
    assert (closed, on_mismatch) == ((1000, ""), [])


async def test_a_long_difference_makes_a_short_reason(tmp_path: Path) -> None:
    tape = taped(json("client", '{"a":"' + "é" * 500 + '"}'))
    closed, _ = await strayed_with(tmp_path, tape, (TEXT, b'{"a":"' + "ü".encode() * 500 + b'"}'))
    assert closed is not None
    assert closed[0] == 1008
    assert len(closed[1].encode()) <= 123


# Which tape.


async def test_a_handshake_that_no_tape_answers_is_told_what_is_near(tmp_path: Path) -> None:
    tapes = folder_of(tmp_path, taped(url=f"{URL}?model=large"))
    async with playing_bridge(tapes, tmp_path) as server, connect_raw(server) as client:
        told = await client.request(f"{PATH}?model=small&api_key={SECRET}", UPGRADE)
    assert (told.status, told.sdk_code) == (502, 9019)
    assert orjson.loads(told.body)["error"]["message"] == (
        "No tape for WEBSOCKET ws://provider.test/talk?model=small\n"
        "The nearest is tapes/case-0.jsonl; sent ≠ taped:\n"
        '  query.model: "small" ≠ "large"'
    )


async def test_tapes_of_one_handshake_play_in_order_and_then_as_was_chosen(tmp_path: Path) -> None:
    tapes = folder_of(tmp_path, taped(json("provider", "1")), taped(json("provider", "2")))
    async with playing_bridge(tapes, tmp_path, exhausted="miss") as server:
        for wanted in (b"1", b"2"):
            async with connect_realtime(server) as client:
                assert await client.next_frame() == (TEXT, wanted)
        async with connect_raw(server) as client:
            told = await client.request(PATH, UPGRADE)
    assert (told.status, told.sdk_code) == (502, 9019)
    assert b"No tape is left for WEBSOCKET ws://provider.test/talk" in told.body


async def test_a_tape_of_http_is_none_of_a_socket(tmp_path: Path) -> None:
    tapes = folder_of(tmp_path)
    write_tape(tapes / "http.jsonl", http_tape(b"x", url="http://provider.test/talk", method="GET", body=b""))
    async with playing_bridge(tapes, tmp_path) as server, connect_raw(server) as client:
        told = await client.request(PATH, UPGRADE)
    assert orjson.loads(told.body)["error"]["message"].endswith('\n  method: "WEBSOCKET" ≠ "GET"')
