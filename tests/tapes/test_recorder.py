"""Recording: what was heard is on the tape, what was secret is not, and nobody waits for it."""

import asyncio
import base64
import errno
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from bridge.config import Configuration
from bridge.logs import format as loglines
from bridge.tapes.file import StreamEnd, Tape, TapeError, check, pairs, read_tape
from bridge.tapes.folder import TapeFolder, cut_tapes
from bridge.tapes.recorder import RecordingTransport, recording_transport
from bridge.tapes.transport import TapeTransport
from bridge.upstream.body import PushedBody
from bridge.upstream.transport import HttpTransport
from tests.support.clock import advance, turns
from tests.support.harness import Frame, config_of, connected, running
from tests.support.receivers import Collector, FedBody
from tests.support.socket_provider import Line, Provider, Script
from tests.support.tapes import chunk_data

URL = "https://api.example.com/v1/chat"


class Played(httpx.AsyncBaseTransport):
    """A transport whose every answer is these reads, or errors, one every second; it connects when it is asked to."""

    def __init__(self, *reads: bytes | Exception, error: Exception | None = None, connects: bool = True) -> None:
        self.reads, self.error, self.connects = reads, error, connects
        self.body: httpx.AsyncByteStream | None = None
        """Body of the answers in place of the reads."""
        self.headers: list[tuple[bytes, bytes]] = [(b"Content-Type", b"text/plain")]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.connects:
            request.extensions["on_connected"]()
        advance(1)
        if self.error is not None:
            raise self.error
        return httpx.Response(200, headers=self.headers, stream=self.body or ReadsInSeconds(self.reads))


class ReadsInSeconds(httpx.AsyncByteStream):
    def __init__(self, reads: tuple[bytes | Exception, ...]) -> None:
        self.reads = reads
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for read in self.reads:
            advance(1)
            if isinstance(read, Exception):
                raise read
            yield read

    async def aclose(self) -> None:
        self.closed = True


def request_of(body: bytes = b"{}", **headers: str) -> httpx.Request:
    return httpx.Request("POST", URL, content=body, headers=headers)


async def read_all(response: httpx.Response) -> list[bytes]:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        return [data async for data in response.stream]
    finally:
        await response.stream.aclose()


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def seconds(ms: int | None) -> int | None:
    """What the clock was advanced by; the machine took its own time as well."""
    return ms and round(ms / 1000)


def tapes_in(folder: Path) -> list[Tape]:
    return [read_tape(path) for path in sorted(folder.rglob("*.jsonl"))]


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the bridge logs, as it is written."""
    written: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(loglines.as_json(record).decode())

    handler, logger = Kept(), logging.getLogger("bridge")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield written
    logger.removeHandler(handler)
    logger.setLevel(level)


# What is on the tape.


async def test_every_read_is_a_chunk_with_its_instant(tmp_path: Path) -> None:
    transport = recording_transport(Played(b"caf\xc3", b"\xa9", b"", b"!"), tmp_path)
    assert await read_all(await transport.handle_async_request(request_of(b'{"a": 1}'))) == [b"caf\xc3", b"\xa9", b"!"]
    await transport.aclose()
    (tape,) = tapes_in(tmp_path)
    assert (tape.request.method, tape.request.url, tape.request.body) == ("POST", URL, b'{"a": 1}')
    assert tape.head is not None
    assert (tape.head.status, pairs(tape.head.headers)) == (200, [("content-type", "text/plain")])
    assert [chunk.data for chunk in tape.chunks] == [b"caf\xc3", b"\xa9", b"!"]
    assert [seconds(line.ms) for line in (tape.head, *tape.chunks, tape.ending)] == [1, 2, 3, 5, 5]
    assert tape.ending.end is StreamEnd.EOF


async def delivered(folder: Path) -> tuple[FedBody, PushedBody, RecordingTransport]:
    """Return a body that the test feeds, its recorded form, and the transport."""
    inner = Played()
    inner.body = body = FedBody()
    transport = recording_transport(inner, folder)
    response = await transport.handle_async_request(request_of())
    assert isinstance(response.stream, PushedBody)
    return body, response.stream, transport


async def test_a_body_that_is_known_to_be_whole_need_not_be_asked_for_its_end(tmp_path: Path) -> None:
    body, recorded, transport = await delivered(tmp_path)
    collector = Collector(recorded, on_data=Collector.pause).start()
    body.arrive(b"all")
    body.finish()
    assert (recorded.ended, collector.is_ended) == (True, False)
    await recorded.aclose()
    await transport.aclose()
    assert [(len(tape.chunks), tape.ending.end) for tape in tapes_in(tmp_path)] == [(1, StreamEnd.EOF)]


@pytest.mark.parametrize(("is_cut", "end"), [(False, StreamEnd.EOF), (True, StreamEnd.RESET)])
async def test_each_delivery_is_recorded_and_passed_on_at_once(tmp_path: Path, is_cut: bool, end: StreamEnd) -> None:
    body, recorded, transport = await delivered(tmp_path)
    first, second = Collector(recorded), Collector(recorded)
    body.arrive(b"a")
    assert first.start().text == b"a"
    second.start()
    body.arrive(b"b", b"c")
    assert second.reads == [b"b", b"c"]
    (body.cut if is_cut else body.finish)()
    assert second.outcome == (b"bc", not is_cut, "cut" if is_cut else None)
    await recorded.aclose()
    assert body.is_closed
    await transport.aclose()
    assert [(b"".join(chunk_data(tape)), tape.ending.end) for tape in tapes_in(tmp_path)] == [(b"abc", end)]


async def test_a_recorded_body_is_paused_and_resumed_where_it_is_read(tmp_path: Path) -> None:
    body, recorded, transport = await delivered(tmp_path)
    collector = Collector(recorded, on_data=Collector.pause).start()
    body.arrive(b"a", b"b")
    assert (collector.text, body.is_flowing) == (b"a", False)
    collector.resume()
    assert (collector.text, body.is_flowing) == (b"ab", False)
    await collector.aclose()
    body.arrive(b"c")
    await transport.aclose()
    assert [(chunk_data(tape), tape.ending.end) for tape in tapes_in(tmp_path)] == [([b"a", b"b"], StreamEnd.CLIENT)]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (httpx.ReadError("lost"), StreamEnd.RESET),
        (httpx.RemoteProtocolError("no chunk"), StreamEnd.RESET),
        (httpx.DecodingError("no gzip"), StreamEnd.RESET),
        (httpx.ReadTimeout("silent"), StreamEnd.CLIENT),
    ],
)
async def test_a_body_that_breaks_ends_its_tape_there(tmp_path: Path, error: Exception, end: StreamEnd) -> None:
    transport = recording_transport(Played(b"one", error), tmp_path)
    response = await transport.handle_async_request(request_of())
    with pytest.raises(type(error)):
        await read_all(response)
    await transport.aclose()
    (tape,) = tapes_in(tmp_path)
    assert ([chunk.data for chunk in tape.chunks], tape.ending.end, seconds(tape.ending.ms)) == ([b"one"], end, 3)


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (httpx.ReadError("lost"), StreamEnd.RESET),
        (httpx.WriteError("lost"), StreamEnd.RESET),
        (httpx.ReadTimeout("silent"), StreamEnd.CLIENT),
        (asyncio.CancelledError(), StreamEnd.CLIENT),
    ],
)
async def test_a_connection_that_breaks_before_the_answer_leaves_a_tape_without_one(
    tmp_path: Path, error: Exception, end: StreamEnd
) -> None:
    transport = recording_transport(Played(error=error), tmp_path)
    with pytest.raises(type(error)):
        await transport.handle_async_request(request_of())
    await transport.aclose()
    (tape,) = tapes_in(tmp_path)
    assert (tape.head, tape.chunks, tape.ending.end, seconds(tape.ending.ms)) == (None, (), end, 1)


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ConnectTimeout("silent"), asyncio.CancelledError()]
)
async def test_a_connection_that_was_never_made_leaves_no_tape_and_no_line(
    tmp_path: Path, lines: list[str], error: Exception
) -> None:
    transport = recording_transport(Played(error=error, connects=False), tmp_path)
    with pytest.raises(type(error)):
        await transport.handle_async_request(request_of())
    await transport.aclose()
    assert (files_in(tmp_path), lines) == ([], [])


async def test_what_no_tape_can_tell_leaves_none_but_a_line(tmp_path: Path, lines: list[str]) -> None:
    transport = recording_transport(Played(error=httpx.RemoteProtocolError("no HTTP")), tmp_path)
    with pytest.raises(httpx.RemoteProtocolError):
        await transport.handle_async_request(request_of())
    await transport.aclose()
    assert files_in(tmp_path) == []
    [message] = [json.loads(line)["message"] for line in lines]
    assert "api.example.com is not recorded" in message


async def test_a_client_that_leaves_early_ends_the_tape(tmp_path: Path) -> None:
    transport = recording_transport(Played(b"one", b"two"), tmp_path)
    response = await transport.handle_async_request(request_of())
    assert isinstance(response.stream, httpx.AsyncByteStream)
    await anext(aiter(response.stream))
    await response.stream.aclose()
    await response.stream.aclose()
    await transport.aclose()
    assert [(len(tape.chunks), tape.ending.end) for tape in tapes_in(tmp_path)] == [(1, StreamEnd.CLIENT)]


async def test_the_caller_still_hears_of_its_connection_and_a_transport_need_not_tell(tmp_path: Path) -> None:
    received: list[str] = []
    for connects in (True, False):
        transport = recording_transport(Played(b"x", connects=connects), tmp_path)
        request = httpx.Request(
            "POST", URL, extensions={"on_connected": lambda: received.append("yes"), "target": b"/"}
        )
        await read_all(await transport.handle_async_request(request))
        await transport.aclose()
    assert (received, len(tapes_in(tmp_path))) == (["yes"], 2)


async def test_an_identity_coding_is_none(tmp_path: Path) -> None:
    inner = Played(b"x")
    inner.headers.append((b"content-encoding", b"Identity"))
    transport = recording_transport(inner, tmp_path)
    await read_all(await transport.handle_async_request(request_of()))
    await transport.aclose()
    assert [check(tape) for tape in tapes_in(tmp_path)] == [[]]


async def test_tapes_are_numbered_in_the_order_of_their_exchanges_whichever_ends_first(tmp_path: Path) -> None:
    transport = recording_transport(Played(b"x"), tmp_path)
    first = await transport.handle_async_request(request_of(b"first"))
    second = await transport.handle_async_request(request_of(b"second"))
    await read_all(second)
    await read_all(first)
    await transport.aclose()
    assert [tape.request.body for tape in tapes_in(tmp_path)] == [b"first", b"second"]


# What goes wrong with it, and for whom.


async def test_a_crash_leaves_complete_tapes_and_marks_the_cut_one(tmp_path: Path) -> None:
    """As after a crash, nobody ends the second exchange; what is there of it is its request, without its secret."""
    transport = recording_transport(Played(b"x"), tmp_path)
    await read_all(await transport.handle_async_request(request_of(b"whole")))
    await transport.handle_async_request(request_of(b"cut", authorization="Bearer planted-secret"))
    await transport.aclose()
    assert [tape.request.body for tape in tapes_in(tmp_path)] == [b"whole"]
    (part,) = cut_tapes(tmp_path)
    assert b"planted" not in part.read_bytes()
    with pytest.raises(TapeError, match="was cut"):
        read_tape(part)


@pytest.mark.parametrize("bounds", [{"max_tape_bytes": 10_000}, {"max_held_bytes": 10_000}])
async def test_what_is_too_long_is_passed_on_but_not_recorded(
    tmp_path: Path, lines: list[str], bounds: dict[str, int]
) -> None:
    long = [b"x" * 4000] * 3
    transport = RecordingTransport(Played(*long), TapeFolder(tmp_path), **bounds)
    assert await read_all(await transport.handle_async_request(request_of())) == long
    await transport.aclose()
    assert files_in(tmp_path) == []
    (line,) = lines
    assert "is not recorded" in line


async def test_what_has_been_written_makes_room(tmp_path: Path, lines: list[str]) -> None:
    written, loop = asyncio.Event(), asyncio.get_running_loop()

    class Telling(TapeFolder):
        def seal(self, part: Path) -> Path:
            loop.call_soon_threadsafe(written.set)
            return super().seal(part)

    transport = RecordingTransport(Played(b"x" * 1000), Telling(tmp_path), max_held_bytes=20_000)
    for _ in range(10):
        await read_all(await transport.handle_async_request(request_of()))
        await written.wait()
        written.clear()
    await transport.aclose()
    assert (len(tapes_in(tmp_path)), lines) == (10, [])


async def test_a_request_too_long_for_a_tape_is_sent_all_the_same(tmp_path: Path, lines: list[str]) -> None:
    transport = RecordingTransport(Played(b"x"), TapeFolder(tmp_path), max_tape_bytes=10_000)
    assert await read_all(await transport.handle_async_request(request_of(b"x" * 10_000))) == [b"x"]
    await transport.aclose()
    assert (files_in(tmp_path), len(lines)) == ([], 1)


@pytest.mark.parametrize("when", ["begin", "finish"])
async def test_a_full_disk_costs_a_tape_and_a_line_but_never_an_exchange(
    tmp_path: Path, lines: list[str], when: str
) -> None:
    class Full(TapeFolder):
        def begin(self, *args: object) -> Path:
            return self._raise() if when == "begin" else tmp_path / "part"

        def finish(self, *args: object) -> Path:
            return self._raise()

        def keep(self, *args: object) -> Path:
            return self._raise()

        def _raise(self) -> Path:
            raise OSError(errno.ENOSPC, "No space left on device", "secret-name")

    transport = RecordingTransport(Played(b"x"), Full(tmp_path))
    assert await read_all(await transport.handle_async_request(request_of())) == [b"x"]
    await transport.aclose()
    messages = [json.loads(line)["message"] for line in lines]
    assert len(messages) == 1
    assert messages[0].endswith("could not be written: No space left on device")


async def test_a_hanging_disk_blocks_no_exchange(tmp_path: Path) -> None:
    go_on = threading.Event()

    class Hanging(TapeFolder):
        def begin(self, *args: object) -> Path:
            assert go_on.wait(60)
            return super().begin(*args)  # type: ignore[arg-type]  # what it was called with

    transport = RecordingTransport(Played(b"x"), Hanging(tmp_path))
    for _ in range(20):
        assert await read_all(await transport.handle_async_request(request_of())) == [b"x"]
    assert tapes_in(tmp_path) == []
    assert transport.recording_thread.unwritten == 20
    go_on.set()
    await transport.aclose()
    assert len(tapes_in(tmp_path)) == 20
    assert (transport.recording_thread.unwritten, transport.recording_thread.held_bytes) == (0, 0)


async def test_the_log_has_the_number_of_exchanges_that_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.tapes.writer.BACKLOG_WARNING", 4)
    go_on = threading.Event()

    class Hanging(TapeFolder):
        def begin(self, *args: object) -> Path:
            assert go_on.wait(60)
            return super().begin(*args)  # type: ignore[arg-type]  # what it was called with

    transport = RecordingTransport(Played(b"x"), Hanging(tmp_path))
    for _ in range(6):
        await read_all(await transport.handle_async_request(request_of()))
    closing = asyncio.create_task(transport.aclose())
    await turns()
    advance(1.1)
    await turns()
    go_on.set()
    await closing
    waiting, ending, done = (record.getMessage() for record in caplog.records if record.name == "bridge.recording")
    assert waiting.startswith("4 exchanges wait")
    assert ending.startswith("6 exchanges wait")
    assert "backlog of tapes has been written" in done


async def test_a_body_that_is_closed_after_the_transport_harms_nobody(tmp_path: Path) -> None:
    transport = recording_transport(Played(b"x"), tmp_path)
    response = await transport.handle_async_request(request_of())
    await transport.aclose()
    assert await read_all(response) == [b"x"]


# Through a running bridge.


def chunked(*pieces: bytes, head: bytes = b"200 OK\r\nContent-Type: text/event-stream", cut: bool = False) -> Script:
    """Sends each piece so that the bridge reads it alone."""

    async def script(line: Line) -> None:
        while True:
            await line.request()
            await line.send(b"HTTP/1.1 " + head + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in pieces:
                await line.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await turns(3)
            if cut:
                line.reset()
                return
            await line.send(b"0\r\n\r\n")

    return script


def telling(frames: list[Frame]) -> list[Frame]:
    """Without what differs from call to call."""
    for frame in frames:
        for name in ("logId", "durationMs"):
            frame["metadata"].pop(name, None)
    return frames


STREAM = (
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"Hel',
    b'lo"}}]}\n\ndata: {"choices":[{"index":0,"delta":{"content":" caf\xc3',
    b'\xa9"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
)


@pytest.mark.parametrize("frames", ["items", "raw"])
@pytest.mark.parametrize(
    "script",
    [
        chunked(*STREAM),
        chunked(*STREAM[:4], cut=True),
        chunked(*(STREAM[2][at : at + 1] for at in range(len(STREAM[2]))), cut=True),
        chunked(b'{"id":1,', b'"choices":[]}', head=b"200 OK\r\nContent-Type: application/json\r\nX-Title: caf\xe9"),
        chunked(b'{"error":', b'{"message":"no"}}', head=b"400 Bad Request\r\nContent-Type: application/json"),
        chunked(b"\x00\xff", b"\xfe", head=b"200 OK\r\nContent-Type: audio/mpeg"),
    ],
    ids=["whole", "cut", "byte by byte", "in one piece", "an error", "audio"],
)
async def test_a_recording_replays_to_the_same_frames_chunk_for_chunk(
    tmp_path: Path, script: Script, frames: str
) -> None:
    async with Provider(script) as provider:
        config = config_of(f'[providers.custom-p]\nbase_url = "http://127.0.0.1:{provider.port}/v1"', tmp_path)
        recorder = recording_transport(HttpTransport(), tmp_path / "tapes")
        recorded = await frames_over(config, recorder, frames)
        replayed = await frames_over(config, TapeTransport(tmp_path / "tapes", pace="instant"), frames)
    if "error" in recorded[-1]:  # what broke is told in other words by a tape
        assert recorded[-1]["error"].pop("message")
        assert replayed[-1]["error"].pop("message")
    assert recorded == replayed
    assert [check(tape) for tape in tapes_in(tmp_path / "tapes")] == [[]]


async def frames_over(config: Configuration, transport: httpx.AsyncBaseTransport, frames: str) -> list[Frame]:
    step = {
        "provider": "custom-p",
        "endpoint": "chat/completions",
        "headers": {"Authorization": "Bearer planted-secret-1", "X-Title": "caf\xe9 \u2713"},
        "query": {"model": "m", "stream": True, "tools": [{"type": "mcp", "authorization": "planted-secret-2"}]},
    }
    async with running(config, transport) as server, connected(server) as client:
        return telling(await client.call({"eventId": "e", "config": {"frames": frames}, **step}))


async def test_a_client_that_cancels_leaves_a_tape_that_says_so(tmp_path: Path) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", STREAM[0], b"data: x\n\n")
        await line.gone()

    async with Provider(script) as provider:
        config = config_of(f'[providers.custom-p]\nbase_url = "http://127.0.0.1:{provider.port}"', tmp_path)
        transport = recording_transport(HttpTransport(), tmp_path / "tapes")
        async with running(config, transport) as server, connected(server) as client:
            await client.create({"eventId": "e", "provider": "custom-p", "endpoint": "x", "query": {}})
            while "response" not in await client.receive():
                pass
            await client.cancel("e")
            await client.until_last("e")
    assert [(len(tape.chunks) > 0, tape.ending.end) for tape in tapes_in(tmp_path / "tapes")] == [
        (True, StreamEnd.CLIENT)
    ]


PLANTED = {
    name: f"planted-{number}-{name}/x"
    for number, name in enumerate(["bearer", "key", "query", "field", "gateway", "subprotocol", "cookie", "nested"])
}


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"200 OK"])
async def test_no_planted_secret_is_on_any_tape_or_in_any_log_line(
    tmp_path: Path, lines: list[str], status: bytes
) -> None:
    """Of headers, query parameters, JSON fields, subprotocols; echoed in the answer, read byte by byte."""
    async with Provider(echo(status)) as provider:
        config = config_of(f'[providers.custom-p]\nbase_url = "http://127.0.0.1:{provider.port}"', tmp_path)
        transport = recording_transport(HttpTransport(), tmp_path / "tapes")
        offered = {"Sec-WebSocket-Protocol": f"realtime, cf-aig-authorization.{PLANTED['subprotocol']}"}
        async with (
            running(config, transport) as server,
            connected(server, headers={"cf-aig-authorization": f"Bearer {PLANTED['gateway']}"}) as client,
        ):
            await client.call(
                {
                    "eventId": "e",
                    "provider": "custom-p",
                    "endpoint": f"x?key={PLANTED['query']}&alt=sse",
                    "headers": {"Authorization": f"Bearer {PLANTED['bearer']}", "x-api-key": PLANTED["key"], **offered},
                    "query": {"tool": {"client_secret": PLANTED["field"], "args": nested()}},
                }
            )
    (file,) = files_in(tmp_path / "tapes")
    content = file.read_text() + str(file) + "".join(lines)
    assert lines
    for secret in PLANTED.values():
        assert secret not in content
        assert secret[:-2] not in content
        assert base64.b64encode(secret.encode()).decode()[:12] not in content
    assert [check(tape) for tape in tapes_in(tmp_path / "tapes")] == [[]]


def nested() -> str:
    return json.dumps({"api_key": PLANTED["nested"]})


def echo(status: bytes) -> Script:
    """Answers with what it was sent, in JSON, and with each planted secret in base64; a byte at a time."""

    async def script(line: Line) -> None:
        head = await line.head()
        sent = head + await line.body(head)
        coded = [base64.b64encode(secret.encode()).decode() for secret in PLANTED.values() if secret.encode() in sent]
        body = json.dumps({"error": {"message": sent.decode(), "coded": coded}}).encode()
        await line.send(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nX-Echo: %b\r\nSet-Cookie: a=%b; Path=/\r\n"
            % (status, PLANTED["key"].encode(), PLANTED["cookie"].encode())
            + b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for byte in body:
            await line.send(b"1\r\n%c\r\n" % byte)
            await turns(2)
        await line.send(b"0\r\n\r\n")

    return script
