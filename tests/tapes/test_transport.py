"""Tapes: what a file may hold, which tape answers a request, and how it is replayed."""

import asyncio
from collections import defaultdict
from pathlib import Path

import httpx
import pytest

from bridge.errors import UnusableAnswer
from bridge.providers import Target
from bridge.tapes.matching import STRICT, MatchKey, ReplayRequest
from bridge.tapes.transport import (
    Pace,
    StreamEnd,
    Tape,
    TapeError,
    TapeHead,
    TapeMiss,
    TapeTransport,
    check,
    read_tape,
    write_tape,
)
from bridge.upstream.body import Reads, pushed
from bridge.upstream.http import Call, Upstream
from tests.support.paths import ROOT
from tests.support.tapes import BODY, URL, folder_of, tape

KEPT = sorted([*(ROOT / "fixtures/tapes").rglob("*.jsonl"), *(ROOT / "bridge/demo/tapes").rglob("*.jsonl")])


def transport_of(folder: Path, *tapes: Tape, pace: Pace = "instant") -> TapeTransport:
    return TapeTransport(folder_of(folder, *tapes), pace=pace)


def request_of(body: bytes = BODY, url: str = URL, method: str = "POST") -> httpx.Request:
    return httpx.Request(method, url, content=body)


async def ask(transport: TapeTransport, request: httpx.Request | None = None) -> httpx.Response:
    return await transport.handle_async_request(request or request_of())


async def reads_of(response: httpx.Response) -> list[bytes]:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return [chunk async for chunk in response.stream]


# The file.


@pytest.mark.parametrize(
    "body",
    [
        b"",
        BODY,
        b'{"seed":123456789012345678901234567890}',
        b'{\n "pretty": true\n}',
        b"plain text",
        b"\x00\xff\xfe",
        b'"\\ud800"',
    ],
)
def test_a_request_body_comes_back_byte_for_byte(tmp_path: Path, body: bytes) -> None:
    write_tape(tmp_path / "one.jsonl", tape(body=body))
    assert read_tape(tmp_path / "one.jsonl").request.body == body


def test_a_tape_comes_back_as_it_was_written(tmp_path: Path) -> None:
    chunks = (b"caf\xc3", b"\xa9", "\u2028 \r\n \x00".encode(), b"", b"\xff")
    for case in (tape(*chunks), tape(head=None, end=StreamEnd.RESET), tape(end=StreamEnd.STALL)):
        write_tape(tmp_path / "one.jsonl", case)
        assert read_tape(tmp_path / "one.jsonl") == case
    write_tape(tmp_path / "one.jsonl", tape(*chunks))
    assert tuple(chunk.data for chunk in read_tape(tmp_path / "one.jsonl").chunks) == chunks


def test_header_pairs_keep_their_order_and_their_doubles(tmp_path: Path) -> None:
    headers = [("vary", "origin"), ("link", "<a>"), ("vary", "accept")]
    write_tape(tmp_path / "one.jsonl", tape(head=TapeHead(status=200, headers=headers, ms=0)))
    head = read_tape(tmp_path / "one.jsonl").head
    assert head is not None
    assert head.headers == headers


OPENING = b'{"tape":1,"request":{"method":"POST","url":"https://api.example.com/","json":{}}}\n'
ANSWER = b'{"response":{"status":200,"headers":{},"ms":5}}\n'
END = b'{"end":"eof","ms":9}\n'


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", 1, "truncated"),
        (b"not JSON\n" + END, 1, "malformed"),
        (OPENING.replace(b"1", b"2", 1) + ANSWER + END, 1, "$.tape"),
        (OPENING.replace(b'"tape":1,', b"") + ANSWER + END, 1, "`tape`"),
        (OPENING.replace(b'"json"', b'"jsno"') + ANSWER + END, 1, "unknown field `jsno`"),
        (OPENING.replace(b'"json":{}', b'"json":{},"text":"x"') + ANSWER + END, 1, "one body"),
        (OPENING.replace(b"https://api.example.com/", b"/v1/chat") + ANSWER + END, 1, "absolute"),
        (OPENING.replace(b"api.example.com", b"api.example.com:port") + ANSWER + END, 1, "Invalid URL"),
        (OPENING, 1, "cut"),
        (OPENING + ANSWER, 2, "cut"),
        (OPENING + ANSWER + b'{"ms":6,"text":"Hel', 3, "cut"),
        (OPENING + ANSWER + b'{"ms":6,"text":"the \\"end\\""}\n', 3, "cut"),
        (OPENING + ANSWER + b'{"end":"bang"}\n', 3, "bang"),
        (OPENING + ANSWER + b'{"ms":6,"text":"\xff"}\n' + END, 3, "utf-8"),
        (OPENING.replace(b"{}", b"[" * 100_000) + ANSWER + END, 1, "recursion"),
        (OPENING + b'{"response":{"status":99,"headers":{},"ms":5}}\n' + END, 2, "status"),
        (OPENING + ANSWER + b'{"ms":6}\n' + END, 3, "either"),
        (OPENING + ANSWER + b'{"ms":-6,"text":""}\n' + END, 3, "$.ms"),
        (OPENING + ANSWER + b'{"ms":6,"base64":"!"}\n' + END, 3, "base64"),
        (OPENING + ANSWER + b"\n" + END, 3, "truncated"),
        (OPENING + ANSWER + END + END, 3, "unknown field `end`"),
    ],
)
def test_an_invalid_tape_is_refused_with_its_file_and_line(
    tmp_path: Path, content: bytes, line: int, words: str
) -> None:
    path = tmp_path / "hostile.jsonl"
    path.write_bytes(content)
    with pytest.raises(TapeError) as refused:
        read_tape(path)
    assert (refused.value.path, refused.value.line) == (path, line)
    assert str(refused.value).startswith(f"{path}:{line}: ")
    assert words in refused.value.message


def test_a_file_that_cannot_be_opened_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match=r"gone\.jsonl: Cannot be read: No such file"):
        read_tape(tmp_path / "gone.jsonl")


def test_a_folder_without_a_tape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match="No tape found"):
        TapeTransport(tmp_path)


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        (tape(head=None), "no response"),
        (tape(head=TapeHead(status=200, headers={"Content-Encoding": "gzip"}, ms=1)), "content-encoding"),
        (tape(b"early", head=TapeHead(status=200, ms=900)), "backwards"),
        (tape(url=URL + "&key=AIzaSyA1234567890abcdefghijklmnopqrstuvw"), "credential in its URL"),
        (tape(head=TapeHead(status=200, headers={"set-cookie": "session=1234567890abcdef"}, ms=1)), "in its headers"),
        (tape(body=b'{"headers":{"x":"Bearer 1234567890abcdef"}}'), "in a body"),
        (tape(b"data: your key sk-pro", b"j-0123456789abcdef"), "in a body"),
    ],
)
def test_check_reports_the_faults_of_a_tape(case: Tape, problem: str) -> None:
    assert check(tape(b'{"usageMetadata":{"promptTokenCount":123456789},"signature":"RXhhbXBsZQ=="}')) == []
    assert any(problem in line for line in check(case)), check(case)


# Which tape answers.


@pytest.mark.parametrize(
    ("taped", "sent"),
    [
        (BODY, request_of(url="https://API.example.com:443/v1/chat?a=1&b=2")),
        (BODY, request_of(url=URL + "&key=secret-of-the-caller")),
        (BODY, request_of(b'{ "messages": [{"content":"Say hello","role":"user"}],\n "model": "sm\\u0061ll" }')),
        (BODY, request_of(method="post")),
        (b'{"seed":123456789012345678901234567890}', request_of(b'{"seed": 123456789012345678901234567890}')),
        (b'{"text":"\\ud800","a":1}', request_of(b'{"a":1, "text":"\\ud800"}')),
        (b'{"a":' + b"[" * 400 + b"]" * 400 + b',"b":1}', request_of(b'{"b":1,"a":' + b"[" * 400 + b"]" * 400 + b"}")),
        (b"\x00\xff", request_of(b"\x00\xff")),
        (b"", request_of(b"")),
    ],
)
async def test_a_request_is_known_by_what_it_means(tmp_path: Path, taped: bytes, sent: httpx.Request) -> None:
    response = await ask(transport_of(tmp_path, tape(b"hello", body=taped)), sent)
    assert await response.aread() == b"hello"


@pytest.mark.parametrize(
    "sent",
    [
        request_of(method="GET"),
        request_of(url="http://api.example.com:8080/v1/chat?b=2&a=1"),
        request_of(url="https://api.example.com/v1/chat?a=1"),
        request_of(BODY.replace(b"hello", b"Hello")),
        request_of(b"\xff" + BODY),
        request_of(b""),
    ],
)
async def test_a_request_that_means_something_else_is_a_miss(tmp_path: Path, sent: httpx.Request) -> None:
    with pytest.raises(TapeMiss) as missed:
        await ask(transport_of(tmp_path, tape()), sent)
    assert missed.value.request is sent


async def test_tapes_of_one_request_play_in_the_order_of_their_paths_and_the_last_repeats(tmp_path: Path) -> None:
    transport = transport_of(tmp_path, tape(b"one"), tape(b"other", body=b"{}"), tape(b"two"))
    bodies = [await (await ask(transport)).aread() for _ in range(4)]
    assert bodies == [b"one", b"two", b"two", b"two"]


async def test_several_folders_and_single_files_make_one_library(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write_tape(tmp_path / "deep" / "er" / "a.jsonl", tape(b"deep"))
    write_tape(tmp_path / "single.jsonl", tape(b"single", body=b"{}"))
    transport = TapeTransport([tmp_path / "deep", tmp_path / "single.jsonl"], pace="instant")
    assert await (await ask(transport)).aread() == b"deep"
    assert await (await ask(transport, request_of(b"{}"))).aread() == b"single"


async def test_a_miss_names_the_nearest_tape_and_the_first_differences(tmp_path: Path) -> None:
    transport = transport_of(tmp_path, tape(body=b'{"prompt":"far away","n":1,"x":[1,2]}'), tape())
    request = request_of(b'{"model":"small","messages":[{"role":"user","content":"Say hi"}],"stream":true}')
    with pytest.raises(TapeMiss) as missed:
        await ask(transport, request)
    head, nearest, *differences = str(missed.value).splitlines()
    assert head.endswith("POST https://api.example.com/v1/chat?b=2&a=1")
    assert f"{tmp_path.name}/case-1.jsonl" in nearest
    assert differences == ['  messages[0].content: "Say hi" ≠ "Say hello"', "  stream: true ≠ (absent)"]


@pytest.mark.parametrize(
    ("sent", "difference"),
    [
        (request_of(url=URL.replace("b=2", "b=3")), '  query.b: "3" ≠ "2"'),
        (request_of(url=URL + "&a=1"), "  a difference too deep or too slight"),
        (request_of(method="PUT"), '  method: "PUT" ≠ "POST"'),
        (request_of(b"\xff"), r"  body: b'\xff' ≠ …"),
        (request_of(BODY.replace(b'"Say hello"', b"[]")), '  messages[0].content: [] ≠ "Say hello"'),
        (request_of(BODY.replace(b"}]", b'},{"role":"user"}]')), '  messages[1]: {"role": "user"} ≠ (absent)'),
    ],
)
async def test_a_miss_shows_each_kind_of_difference(tmp_path: Path, sent: httpx.Request, difference: str) -> None:
    with pytest.raises(TapeMiss) as missed:
        await ask(transport_of(tmp_path, tape()), sent)
    assert str(missed.value).splitlines()[-1].startswith(difference.partition("…")[0])


async def test_a_miss_shows_long_texts_where_they_part(tmp_path: Path) -> None:
    alike = "All work and no play " * 100
    transport = transport_of(tmp_path, tape(body=f'{{"prompt":"{alike} makes Jack"}}'.encode()))
    with pytest.raises(TapeMiss, match=r'prompt: "?….*makes Jill" ≠ ….*makes Jack"'):
        await ask(transport, request_of(f'{{"prompt":"{alike} makes Jill"}}'.encode()))


async def test_a_miss_on_an_unknown_host_or_path_says_what_there_is_the_most_like_first(tmp_path: Path) -> None:
    transport = transport_of(tmp_path, tape(url="https://other.example.com/"), tape())
    with pytest.raises(TapeMiss) as missed:
        await ask(transport, request_of(url="https://api.example.com/v1/chats"))
    assert str(missed.value).splitlines()[-2:] == ["  api.example.com/v1/chat", "  other.example.com/"]


async def test_a_miss_is_bounded_and_holds_no_secret(tmp_path: Path) -> None:
    transport = transport_of(tmp_path, tape(body=b'{"' + b"k" * 5000 + b'":1}'))
    with pytest.raises(TapeMiss) as missed:
        await ask(transport, request_of(b"{}", url=URL + "&key=secret-of-the-caller"))
    assert len(str(missed.value)) <= 1500
    assert "secret-of-the-caller" not in str(missed.value)


async def test_to_its_caller_a_miss_is_an_answer_that_cannot_be_used_and_is_not_asked_for_again(tmp_path: Path) -> None:
    target = Target("https", "api.example.com", None, b"/v1/chats", "https://api.example.com")
    with pytest.raises(UnusableAnswer, match="No tape for POST") as missed:
        await Upstream(transport_of(tmp_path, tape())).open(Call("POST", target, [], b"{}", lambda: None))
    assert not missed.value.retryable


# How it is replayed.


async def test_the_head_and_every_read_are_replayed_as_recorded(tmp_path: Path) -> None:
    headers = [("content-type", "text/event-stream"), ("x-double", "1"), ("x-double", "2")]
    chunks = [b"data: {", b"", b'"a":1}\n\n', b"caf\xc3", b"\xa9"]
    transport = transport_of(tmp_path, tape(*chunks, head=TapeHead(status=201, headers=headers, ms=1)))
    response = await ask(transport)
    assert (response.status_code, response.headers.multi_items()) == (201, headers)
    assert await reads_of(response) == chunks


async def test_a_reset_breaks_the_body_after_its_last_chunk(tmp_path: Path) -> None:
    response = await ask(transport_of(tmp_path, tape(b"one", b"two", end=StreamEnd.RESET)))
    stream = aiter(response.stream)  # type: ignore[arg-type]  # httpx types it as either kind
    assert [await anext(stream), await anext(stream)] == [b"one", b"two"]
    with pytest.raises(httpx.ReadError, match="reset"):
        await anext(stream)


async def test_a_reset_before_the_head_breaks_the_request(tmp_path: Path) -> None:
    with pytest.raises(httpx.ReadError):
        await ask(transport_of(tmp_path, tape(head=None, end=StreamEnd.RESET)))


@pytest.mark.parametrize("end", [StreamEnd.STALL, StreamEnd.CLIENT])
async def test_a_stall_waits_until_it_is_cancelled(tmp_path: Path, end: StreamEnd) -> None:
    response = await ask(transport_of(tmp_path, tape(b"one", end=end)))
    waiting = asyncio.create_task(reads_of(response))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await response.aclose()


async def test_a_stall_before_the_head_answers_nothing(tmp_path: Path) -> None:
    transport = transport_of(tmp_path, tape(head=None, end=StreamEnd.STALL))
    waiting = asyncio.create_task(ask(transport))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_body_that_was_closed_early_gives_nothing_more(tmp_path: Path) -> None:
    response = await ask(transport_of(tmp_path, tape(b"one", b"two")))
    stream = aiter(response.stream)  # type: ignore[arg-type]  # httpx types it as either kind
    assert await anext(stream) == b"one"
    await response.aclose()
    with pytest.raises(httpx.StreamClosed):
        await anext(stream)


async def test_an_answer_plays_until_it_is_closed(tmp_path: Path) -> None:
    transport = transport_of(tmp_path, tape(b"one", b"two"))
    first, second = await ask(transport), await ask(transport)
    assert transport.playing == 2
    await first.aclose()
    await second.aclose()
    await second.aclose()
    assert transport.playing == 0


async def test_the_connection_is_reported_once_and_a_miss_makes_none(tmp_path: Path) -> None:
    connected: list[str] = []
    extensions = {"on_connected": lambda: connected.append("yes")}
    transport = transport_of(tmp_path, tape(b"one"))
    await ask(transport, httpx.Request("POST", URL, content=BODY, extensions=extensions))
    assert connected == ["yes"]
    with pytest.raises(TapeMiss):
        await ask(transport, httpx.Request("POST", URL, content=b"{}", extensions=extensions))
    assert connected == ["yes"]


class Clock:
    """A clock that only sleeping moves; it remembers when each sleep ended."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.woken_at: list[float] = []

    def now(self) -> float:
        return self.at

    async def sleep(self, delay_s: float) -> None:
        self.at += delay_s
        self.woken_at.append(round(self.at - 1000, 6))


@pytest.mark.parametrize(
    ("pace", "woken_at"),
    [("recorded", [0.1, 0.2, 0.3, 0.4]), ("instant", []), (10.0, [1.0, 2.0, 3.0, 4.0]), (0.5, [0.05, 0.1, 0.15, 0.2])],
)
async def test_head_chunks_and_end_come_at_their_instants(tmp_path: Path, pace: Pace, woken_at: list[float]) -> None:
    clock = Clock()
    folder = folder_of(tmp_path, tape(b"one", b"two"))
    response = await ask(TapeTransport(folder, pace=pace, now=clock.now, sleep=clock.sleep))
    assert await reads_of(response) == [b"one", b"two"]
    assert clock.woken_at == woken_at


async def test_a_reader_who_tarries_delays_nothing_but_itself(tmp_path: Path) -> None:
    clock = Clock()
    folder = folder_of(tmp_path, tape(b"one", b"two"))
    response = await ask(TapeTransport(folder, now=clock.now, sleep=clock.sleep))
    clock.at += 0.25
    assert await reads_of(response) == [b"one", b"two"]
    assert clock.woken_at == [0.1, 0.4]


async def test_a_read_that_was_cancelled_loses_nothing(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def sleep(_: float) -> None:
        await gate.wait()

    folder = folder_of(tmp_path, tape(b"one", head=TapeHead(status=200, ms=0)))
    response = await ask(TapeTransport(folder, now=lambda: 0.0, sleep=sleep))
    first = asyncio.create_task(reads_of(response))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert await reads_of(response) == [b"one"]


# The tapes that are kept here.


def test_there_are_tapes_to_check() -> None:
    assert len({path.parent for path in KEPT}) > 15


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_kept_tape_is_whole_in_order_and_free_of_credentials(path: Path) -> None:
    assert check(read_tape(path)) == []


def test_kept_tapes_are_told_apart_by_their_requests_unless_they_are_numbered() -> None:
    cases: defaultdict[MatchKey, set[str]] = defaultdict(set)
    for path in KEPT:
        request = read_tape(path).request
        key = STRICT.key(ReplayRequest.of(request.method, request.url, request.body))
        cases[key].add(f"{path.parent.name}/{path.stem.partition('.')[0]}")
    assert [names for names in cases.values() if len(names) > 1] == []


async def test_a_body_whose_tape_was_read_to_its_end_is_at_its_end_ever_after(tmp_path: Path) -> None:
    response = await ask(transport_of(tmp_path, tape(b"all")))
    assert isinstance(response.stream, httpx.AsyncByteStream)
    body = pushed(response.stream)
    reads = Reads(body)
    assert [data async for data in reads] == [b"all"]
    assert [data async for data in reads] == []
    assert body.ended
