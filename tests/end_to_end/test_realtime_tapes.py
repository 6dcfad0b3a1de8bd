"""Realtime sessions recorded through the bridge and replayed, and messages that differ from the tape."""

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
SentMessage = tuple[str, int, bytes]
"""Sender, opcode and payload."""


def the_tape(folder: Path) -> SocketTape:
    (path,) = folder.rglob("*.jsonl")
    tape = read_any(path)
    assert isinstance(tape, SocketTape)
    assert cut_tapes(folder) == []
    return tape


def messages_on(tape: SocketTape) -> list[SentMessage]:
    return [(each.sender, TEXT if each.opcode == "text" else BINARY, each.data) for each in tape.messages]


async def exchange(client: RawClient, side: ProviderSide, messages: Sequence[SentMessage]) -> None:
    """Send each message and wait until the other side has received it."""
    for sender, opcode, data in messages:
        if sender == "client":
            await client.send(frame(data, opcode))
            assert await side.next_frame() == (opcode, data)
        else:
            await side.send(data, opcode)
            assert await client.next_frame() == (opcode, data)


async def replay_exchange(client: RawClient, messages: Sequence[SentMessage]) -> None:
    for sender, opcode, data in messages:
        if sender == "client":
            await client.send(frame(data, opcode))
        else:
            assert await client.next_frame() == (opcode, data)


EXCHANGE: list[SentMessage] = [
    ("provider", TEXT, b'{"type":"hello"}'),
    ("client", TEXT, b'{"type":"start"}'),
    ("client", BINARY, b"\x00\x01\xff"),
    ("provider", BINARY, b'{"setupComplete":{}}'),
    ("provider", TEXT, b"broken \xff text"),
    ("client", BINARY, b""),
    ("provider", BINARY, b"\x00\x00"),
]


async def record(
    folder: Path, messages: Sequence[SentMessage] = EXCHANGE, path: str = PATH, code: int | None = 4001
) -> SocketTape:
    """Record a session that the provider closes."""
    sockets = AcceptingProvider("x-request-id: req_1")
    async with (
        recording_bridge(sockets.script, folder, folder / "tapes") as server,
        connect_realtime(server, path) as client,
    ):
        side = await sockets.next_session()
        await exchange(client, side, messages)
        await side.send(close_payload(code, b"over" if code else b""), CLOSE)
        await client_close_frame(client)
        side.line.drop()
    return the_tape(folder / "tapes")


# Contents of a tape


async def test_the_tape_holds_every_message_and_the_ending(tmp_path: Path) -> None:
    tape = await record(tmp_path)
    assert messages_on(tape) == EXCHANGE
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


async def test_a_recording_is_replayed_with_the_same_messages_and_close_frame(tmp_path: Path) -> None:
    await record(tmp_path)
    async with playing_bridge(tmp_path / "tapes", tmp_path) as server, connect_raw(server) as client:
        response = await client.request(PATH, UPGRADE)
        assert response.status == 101
        await replay_exchange(client, EXCHANGE)
        assert await client_close_frame(client) == (4001, "over")


any_exchange = st.lists(
    st.tuples(st.sampled_from(["client", "provider"]), st.sampled_from([TEXT, BINARY]), st.binary(max_size=40)),
    max_size=12,
)


@settings(max_examples=20, deadline=None)
@given(messages=any_exchange, code=st.sampled_from([None, 1000, 1001, 3000, 4999]))
async def test_any_session_is_replayed_as_recorded(messages: list[SentMessage], code: int | None) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        tape = await record(folder, messages, code=code)
        assert messages_on(tape) == messages
        async with playing_bridge(folder / "tapes", folder) as server, connect_realtime(server) as client:
            await replay_exchange(client, messages)
            assert await client_close_frame(client) == ((code, "over") if code else (1000, ""))


async def test_the_close_of_the_client_ends_the_tape(tmp_path: Path) -> None:
    sockets = AcceptingProvider()
    async with (
        recording_bridge(sockets.script, tmp_path, tmp_path / "tapes") as server,
        connect_realtime(server) as client,
    ):
        side = await sockets.next_session()
        await exchange(client, side, EXCHANGE)
        await client.send(frame(close_payload(1001, b"bye"), CLOSE))
        assert await side.close_frame() == (1001, "bye")
        side.line.drop()
    ending = the_tape(tmp_path / "tapes").ending
    assert (ending.end, ending.by, ending.code, ending.reason) == (SocketEnd.CLOSED, "client", 1001, "bye")
    async with playing_bridge(tmp_path / "tapes", tmp_path) as server, connect_realtime(server) as client:
        await replay_exchange(client, EXCHANGE)
        await client.send(frame(close_payload(1001, b"bye"), CLOSE))
        assert (await client_close_frame(client)) == (1001, "")


async def test_a_lost_connection_to_the_provider_is_replayed_after_the_last_message(tmp_path: Path) -> None:
    sockets = AcceptingProvider()
    long = [*EXCHANGE, ("provider", BINARY, b"x" * 1_000_000)]
    async with (
        recording_bridge(sockets.script, tmp_path, tmp_path / "tapes") as server,
        connect_realtime(server) as client,
    ):
        side = await sockets.next_session()
        await exchange(client, side, EXCHANGE)
        sending = asyncio.create_task(side.send(b"x" * 1_000_000, BINARY))
        assert await client.next_frame() == (BINARY, b"x" * 1_000_000)
        await sending
        side.line.drop()
        lost = await client_close_frame(client)
    ending = the_tape(tmp_path / "tapes").ending
    assert (ending.end, ending.by) == (SocketEnd.LOST, "provider")
    async with playing_bridge(tmp_path / "tapes", tmp_path) as server, connect_realtime(server) as client:
        await replay_exchange(client, long)
        assert await client_close_frame(client) == lost
    assert lost is not None
    assert lost[0] == 1011


async def test_a_refused_handshake_is_recorded_and_replayed(tmp_path: Path) -> None:
    body = b'{"error":{"message":"Incorrect API key"}}'
    head = f"HTTP/1.1 401 No\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nx-id: 7\r\n\r\n"
    tapes = tmp_path / "tapes"
    async with recording_bridge(sends(head.encode() + body), tmp_path, tapes) as server, connect_raw(server) as client:
        first = await client.request(PATH, UPGRADE)
    tape = the_tape(tapes)
    assert (tape.handshake.status, tape.handshake.body, tape.ending.end) == (401, body, SocketEnd.REFUSED)
    async with playing_bridge(tapes, tmp_path) as server, connect_raw(server) as client:
        again = await client.request(PATH, UPGRADE)
    for response in (first, again):
        assert (response.status, response.body, response.headers["x-id"]) == (401, body, "7")


async def test_an_unanswered_handshake_leaves_no_tape(tmp_path: Path) -> None:
    async def hangs_up(line: Line) -> None:
        await line.head()
        line.reset()

    tapes = tmp_path / "tapes"
    async with recording_bridge(hangs_up, tmp_path, tapes) as server, connect_raw(server) as client:
        assert (await client.request(PATH, UPGRADE)).status == 502
    assert [*tapes.rglob("*.*")] == []


async def test_a_replayed_session_can_be_recorded(tmp_path: Path) -> None:
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
        await replay_exchange(client, EXCHANGE)
        await client_close_frame(client)
    await server.stop()
    assert messages_on(the_tape(tmp_path / "again")) == EXCHANGE


# Secrets


async def test_no_secret_is_on_the_tape_wherever_it_occurs(tmp_path: Path) -> None:
    """The secrets are in headers, in the URL and in messages; redaction keeps the length of a message."""
    own = "one-of-my-own-77"
    messages: list[SentMessage] = [
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
        await exchange(client, side, messages)
        await side.send(close_payload(4000, f"no {own} here".encode()), CLOSE)
        await client_close_frame(client)
        side.line.drop()
    (file,) = tapes.rglob("*.jsonl")
    written = file.read_text()
    assert SECRET not in written
    assert own not in written
    assert check_socket_tape(the_tape(tapes)) == []
    assert [len(data) for _, _, data in messages_on(the_tape(tapes))] == [len(data) for _, _, data in messages]
    async with playing_bridge(tapes, tmp_path) as server:
        again = {**headers, "xi-api-key": "another-key-12345"}
        async with connect_realtime(server, f"{PATH}?a=1&signature=none-of-those", again) as client:
            assert (await client.next_frame())[1] == messages_on(the_tape(tapes))[0][2]
            await client.send(frame(messages[1][2]))
            assert (await client.next_frame())[0] == BINARY
            assert (await client_close_frame(client)) == (4000, f"no {'*' * len(own)} here")


# Failing recordings


async def test_a_session_is_written_while_it_runs_and_a_cut_tape_is_recognised_by_its_name(tmp_path: Path) -> None:
    """As after a kill, the recording is not ended; the file has all messages up to then."""
    sockets, tapes = AcceptingProvider(), tmp_path / "tapes"
    async with recording_bridge(sockets.script, tmp_path, tapes) as server, connect_realtime(server) as client:
        side = await sockets.next_session()
        await exchange(client, side, EXCHANGE)
        await until(lambda: len(cut_tapes(tapes)) == 1 and cut_tapes(tapes)[0].read_bytes().count(b"\n") == 9)
        written = cut_tapes(tapes)[0].read_bytes()
        assert not [*tapes.rglob("*.jsonl")]
        side.line.drop()
    killed = tmp_path / "killed.jsonl"
    killed.write_bytes(written)
    with pytest.raises(TapeError, match=r":9: .*cut"):
        read_any(killed)


async def test_the_bytes_that_wait_for_the_disk_are_bounded_and_the_length_of_a_session_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A session with too many waiting bytes continues without a tape; the total length does not matter."""
    tapes, message = tmp_path / "tapes", ("client", BINARY, b"x" * 9_000)
    sockets = AcceptingProvider()
    async with recording_bridge_to(sockets.script, tmp_path, TapeFolder(tapes), max_held_bytes=10_000) as (
        server,
        recording_thread,
    ):
        for messages in ([("client", BINARY, b"x" * 20_000), ("provider", TEXT, b"on")], [message] * 5):
            async with connect_realtime(server) as client:
                side = await sockets.next_session()
                for each in messages:
                    await exchange(client, side, [each])
                    await until(lambda: recording_thread.held_bytes == 0)
                await side.send(close_payload(1000), CLOSE)
                await client_close_frame(client)
                side.line.drop()
    assert messages_on(the_tape(tapes)) == [message] * 5
    [line] = [record.message for record in caplog.records if record.name == "bridge.recording"]
    assert "127.0.0.1:" in line
    assert "not recorded" in line
    assert "too many" in line


@pytest.mark.parametrize("fails", ["begin", "add", "seal"])
async def test_a_full_disk_loses_the_tape_but_not_the_session(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tapes = tmp_path / "tapes"
    folder = type("Full", (TapeFolder,), {fails: full})(tapes)
    sockets = AcceptingProvider()
    async with recording_bridge_to(sockets.script, tmp_path, folder) as (server, _), connect_realtime(server) as client:
        side = await sockets.next_session()
        await exchange(client, side, EXCHANGE)
        side.line.drop()
    assert not [*tapes.rglob("*.jsonl")]
    [line] = [record.message for record in caplog.records if record.name == "bridge.recording"]
    assert os.strerror(errno.ENOSPC) in line


# Order and pace of a replay

URL = "ws://provider.test/talk"


def taped(
    *messages: SentMessage,
    code: int = 1000,
    by: Literal["client", "provider"] = "provider",
    url: str = URL,
    step_ms: int = 100,
) -> SocketTape:
    """Return a tape with one message every `step_ms` after the handshake's answer."""
    request = TapeRequest.of("GET", url)
    messages = tuple(
        Message.of(step_ms * at, who, "text" if opcode == TEXT else "binary", data)  # type: ignore[arg-type]  # a Side
        for at, (who, opcode, data) in enumerate(messages, start=2)
    )
    ending = SocketEnding(end=SocketEnd.CLOSED, by=by, code=code, ms=step_ms * (len(messages) + 2))
    return SocketTape(request, Handshake(status=101, ms=step_ms), messages, ending)


def folder_of(folder: Path, *tapes: SocketTape) -> Path:
    (folder / "tapes").mkdir()
    for number, each in enumerate(tapes):
        write_socket_tape(folder / "tapes" / f"case-{number}.jsonl", each)
    return folder / "tapes"


def json(who: str, text: str) -> SentMessage:
    return who, TEXT, text.encode()


async def test_a_taped_message_is_sent_only_after_the_messages_before_it(tmp_path: Path) -> None:
    tape = taped(json("client", "{}"), json("provider", "[1]"), json("client", "{}"), json("provider", "[2]"))
    async with playing_bridge(folder_of(tmp_path, tape), tmp_path) as server, connect_realtime(server) as client:
        received = asyncio.create_task(client.next_frame())
        await turns(100)
        assert not received.done()
        await client.send(frame(b"{}"))
        assert await received == (TEXT, b"[1]")
        received = asyncio.create_task(client.next_frame())
        await turns(100)
        assert not received.done()
        await client.send(frame(b"{}"))
        assert await received == (TEXT, b"[2]")


@pytest.mark.parametrize(("pace", "factor"), [("recorded", 1.0), (0.5, 0.5), (3, 3.0)])
async def test_the_pauses_between_messages_are_those_of_the_tape(tmp_path: Path, pace: Pace, factor: float) -> None:
    """A pause starts at the last message of either side: a slow client delays the following messages."""
    tape = taped(json("provider", "[1]"), json("client", "{}"), json("provider", "[2]"), step_ms=2_000)
    step_s = 2 * factor
    async with playing_bridge(folder_of(tmp_path, tape), tmp_path, pace=pace) as server, connect_raw(server) as client:
        answer = asyncio.create_task(client.request(PATH, UPGRADE))
        await due(answer, step_s)
        received = asyncio.create_task(client.next_frame())
        await due(received, step_s)
        advance(4 * factor)
        await client.send(frame(b"{}"))
        received = asyncio.create_task(client.next_frame())
        await due(received, step_s)
        assert received.result() == (TEXT, b"[2]")
        closed = asyncio.create_task(client_close_frame(client))
        await due(closed, step_s)


async def due(waiting: "asyncio.Task[Any]", seconds: float) -> None:
    """Check that the task ends after this many seconds and not earlier."""
    await turns(300)
    advance(seconds - 0.5)
    await turns(100)
    assert not waiting.done()
    advance(0.5)
    await waiting


async def test_a_client_may_send_its_messages_ahead_of_the_tape(tmp_path: Path) -> None:
    messages = [json("provider", "[1]"), json("client", "{}"), json("provider", "[2]"), json("client", "[]")]
    async with (
        playing_bridge(folder_of(tmp_path, taped(*messages)), tmp_path) as server,
        connect_realtime(server) as client,
    ):
        await client.send(frame(b"{}") + frame(b"[]"))
        assert [(await client.next_frame())[1] for _ in range(2)] == [b"[1]", b"[2]"]
        assert await client_close_frame(client) == (1000, "")


# Messages that differ from the tape


async def mismatch_of(
    folder: Path, tape: SocketTape, *messages: tuple[int, bytes], matching: Matching = STRICT
) -> tuple[tuple[int, str] | None, list[str]]:
    response: list[str] = []
    bridge = playing_bridge(folder_of(folder, tape), folder, matching=matching, mismatches=response)
    async with bridge as server, connect_realtime(server) as client:
        for opcode, data in messages:
            await client.send(frame(data, opcode))
        return await client_close_frame(client), response


HELLO = taped(
    json("client", '{"type":"session.update"}'),
    json("provider", '{"type":"session.updated"}'),
    json("client", '{"type":"response.create","item":{"text":"Say hello.","n":1}}'),
    ("client", BINARY, b"\x00\x01\x02"),
)


@pytest.mark.parametrize(
    ("messages", "reason", "report"),
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
async def test_a_message_that_differs_from_the_tape_closes_the_session_with_1008_and_the_difference(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, messages: list[tuple[int, bytes]], reason: str, report: str
) -> None:
    closed, on_mismatch = await mismatch_of(tmp_path, HELLO, (TEXT, b'{"type":"session.update"}'), *messages)
    assert closed == (1008, reason)
    assert on_mismatch == [report.rstrip("\n")]
    assert on_mismatch[0] in caplog.messages


async def test_a_message_beyond_the_end_of_the_tape_closes_the_session_with_1008(tmp_path: Path) -> None:
    tape = taped(json("client", "{}"), by="client")
    closed, on_mismatch = await mismatch_of(tmp_path, tape, (TEXT, b"{}"), (TEXT, b'{"type": "more"}'))
    assert closed is not None
    assert closed[0] == 1008
    assert "message 2" in closed[1]
    [report] = on_mismatch
    assert "tapes/case-0.jsonl" in report
    assert '{"type": "more"}' in report


async def test_ignored_members_of_json_may_differ(tmp_path: Path) -> None:
    """Audio in JSON is an example."""
    tape = taped(json("client", '{"type":"append","audio":"AAAA"}'))
    matching = Matching(ignore_json=("$.audio",))
    closed, on_mismatch = await mismatch_of(
        tmp_path, tape, (TEXT, b'{"audio":"////","type":"append"}'), matching=matching
    )
    assert (closed, on_mismatch) == ((1000, ""), [])


async def test_the_reason_of_a_long_difference_fits_into_a_close_frame(tmp_path: Path) -> None:
    tape = taped(json("client", '{"a":"' + "é" * 500 + '"}'))
    closed, _ = await mismatch_of(tmp_path, tape, (TEXT, b'{"a":"' + "ü".encode() * 500 + b'"}'))
    assert closed is not None
    assert closed[0] == 1008
    assert len(closed[1].encode()) <= 123


# Selecting a tape


async def test_a_handshake_without_a_tape_fails_with_9019_and_the_nearest_tape(tmp_path: Path) -> None:
    tapes = folder_of(tmp_path, taped(url=f"{URL}?model=large"))
    async with playing_bridge(tapes, tmp_path) as server, connect_raw(server) as client:
        response = await client.request(f"{PATH}?model=small&api_key={SECRET}", UPGRADE)
    assert (response.status, response.sdk_code) == (502, 9019)
    message = orjson.loads(response.body)["error"]["message"]
    assert "ws://provider.test/talk?model=small\n" in message
    assert "tapes/case-0.jsonl" in message
    assert message.endswith('  query.model: "small" ≠ "large"')
    assert SECRET not in message


async def test_tapes_of_one_handshake_are_played_in_order_and_then_fail_with_9019(tmp_path: Path) -> None:
    tapes = folder_of(tmp_path, taped(json("provider", "1")), taped(json("provider", "2")))
    async with playing_bridge(tapes, tmp_path, exhausted="miss") as server:
        for wanted in (b"1", b"2"):
            async with connect_realtime(server) as client:
                assert await client.next_frame() == (TEXT, wanted)
        async with connect_raw(server) as client:
            response = await client.request(PATH, UPGRADE)
    assert (response.status, response.sdk_code) == (502, 9019)
    assert b"WEBSOCKET ws://provider.test/talk" in response.body


async def test_a_tape_of_http_does_not_answer_a_handshake(tmp_path: Path) -> None:
    tapes = folder_of(tmp_path)
    write_tape(tapes / "http.jsonl", http_tape(b"x", url="http://provider.test/talk", method="GET", body=b""))
    async with playing_bridge(tapes, tmp_path) as server, connect_raw(server) as client:
        response = await client.request(PATH, UPGRADE)
    assert orjson.loads(response.body)["error"]["message"].endswith('\n  method: "WEBSOCKET" ≠ "GET"')
