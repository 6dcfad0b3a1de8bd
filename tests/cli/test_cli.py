"""The command line: what starts, what it says, and with which exit code it ends."""

import asyncio
import base64
import io
import json
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
import typer
from aiohttp.test_utils import unused_port
from typer.testing import CliRunner

from bridge.cli import app
from bridge.cli import call as provider_call
from bridge.cli.output import Printer
from bridge.cli.startup import urls
from bridge.client import ConnectionLost, Frame, connect
from bridge.demo.scenes import SCENES, STREAM
from bridge.tapes.transport import (
    StreamEnd,
    Tape,
    TapeChunk,
    TapeEnding,
    TapeHead,
    TapeRequest,
    TapeTransport,
    write_tape,
)
from tests.support.commands import BRIDGE, TAPES, TIMEOUT_S, environment, run, started, url_in
from tests.support.harness import config_of, running
from tests.support.paths import FIXTURES

PLAIN, STORY = SCENES[0].request, SCENES[3].request
TLS = FIXTURES / "tls"


def words(step: dict[str, object], *, data: bool = True) -> list[str]:
    """The arguments that ask for a step."""
    target = [str(step["provider"]), str(step["endpoint"])]
    return [*target, "--data", json.dumps(step["query"])] if data else target


# serve


async def test_serve_prints_its_url_and_drains_at_a_signal():
    """The event in flight ends whole, a new one is refused with 9022, the socket closes with 1001, and all is well."""
    with started("serve", "--port", "0", "--replay", str(TAPES), "--pace", "0.1") as server:
        url = url_in(server.stdout.readline())
        async with connect(url, reconnect=False) as bridge, bridge.create(STORY) as story:
            assert (await anext(story)).type == "created"
            server.send_signal(signal.SIGTERM)
            while (refused := await _first(bridge)).error is None:
                pass
            assert refused.error.code == 9022
            assert [frame async for frame in story][-1].type == "done"
            with pytest.raises(ConnectionLost, match="1001"):
                async with bridge.create(PLAIN) as late:
                    await anext(late)
        assert server.wait(TIMEOUT_S) == 0
        assert server.stdout.read() == ""
        messages = [json.loads(line)["message"] for line in server.stderr]
    assert [message for message in messages if message != "event"] == ["started", "draining", "stopped"]


async def _first(bridge) -> Frame:
    """The first frame of an event; asked for until the signal has come in."""
    async with bridge.create(PLAIN) as event:
        return await anext(event)


async def test_a_second_signal_ends_it_at_once():
    with started("serve", "--port", "0", "--replay", str(TAPES)) as server:
        async with connect(url_in(server.stdout.readline())) as bridge, bridge.create(STORY) as story:
            await anext(story)
            server.send_signal(signal.SIGINT)
            while (await _first(bridge)).error is None:
                pass
            server.send_signal(signal.SIGINT)
            with pytest.raises(ConnectionLost):
                _ = [frame async for frame in story]
        assert server.wait(TIMEOUT_S) == -signal.SIGINT


async def test_the_log_is_json_lines_that_hold_no_secret():
    secret = "sk-proj-9f8e7d6c5b4a39281706"
    with started("serve", "--port", "0", "--replay", str(TAPES), "--pace", "instant") as server:
        url = url_in(server.stdout.readline())
        async with connect(url, secret) as bridge:
            for provider, query in (("openai", PLAIN["query"]), ("openai", {"prompt": secret}), (secret, {})):
                step = {"provider": provider, "endpoint": f"chat/completions?key={secret}", "query": query}
                headers = {"authorization": f"Bearer {secret}", "x-api-key": secret, "cf-aig-authorization": secret}
                async with bridge.create({**step, "headers": headers}) as event:
                    _ = [frame async for frame in event]
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_S) == 0
        log = server.stderr.read()
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["message"] for line in lines].count("event") == 3
    assert secret not in log


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--port", "{taken}"], 1, "bridge: cannot listen on 127.0.0.1:{taken}: Address already in use\n"),
        (["--replay", "{folder}/none"], 1, "bridge: {folder}/none: No tape found"),
        (["--replay", "{folder}"], 1, "bridge: {folder}/bad.jsonl:1: "),
        (
            ["--tls-cert", f"{TLS}/localhost.pem", "--tls-key", f"{TLS}/localhost.pem"],
            2,
            f"tls_cert, tls_key: {TLS}/localhost.pem and {TLS}/localhost.pem cannot be used",
        ),
        (["--host", "0.0.0.0"], 2, "--host: 0.0.0.0 can be reached from other machines"),
        (
            ["--config", "{folder}/bridge.toml"],
            2,
            "{folder}/bridge.toml:2: server.prot: unknown key; did you mean port?",
        ),
    ],
)
def test_serve_reports_a_failed_start_in_one_line(args, code, message, tmp_path):
    (tmp_path / "bad.jsonl").write_text("{}\n")
    (tmp_path / "bridge.toml").write_text("[server]\nprot = 1\n")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        names = {"taken": listening.getsockname()[1], "folder": tmp_path}
        ended = run("serve", *(arg.format(**names) for arg in args))
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.startswith(message.format(**names))
    assert ended.stderr.count("\n") == 1


def test_serve_leaves_a_tape_of_every_exchange_and_the_tapes_can_be_listed(tmp_path):
    question = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"In one sentence: what is a bridge for?"}]}'
    flags = ("--replay", str(TAPES), "--pace", "instant", "--record", str(tmp_path))
    with started("serve", "--port", "0", *flags) as bridge:
        assert bridge.stdout is not None
        url = url_in(bridge.stdout.readline())
        answered = run("call", "openai", "chat/completions", "--url", url, "--data", question)
        bridge.terminate()
        assert bridge.wait(TIMEOUT_S) == 0
    listed = run("tapes", "list", str(tmp_path))
    assert answered.returncode == listed.returncode == 0
    assert "000001-POST-chat-completions.jsonl" in listed.stdout
    assert run("tapes", "check", str(tmp_path)).returncode == 0


async def test_serve_runs_with_a_closed_stdout():
    port = unused_port()
    with started("serve", "--port", str(port), "--replay", str(TAPES), "--pace", "instant") as server:
        server.stdout.close()
        assert '"started"' in server.stderr.readline()
        async with connect(f"ws://127.0.0.1:{port}/v1/me/default") as bridge:
            assert (await _first(bridge)).error is None
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_S) == 0
        assert "Error" not in server.stderr.read()


def test_the_ready_line_names_each_gateway(tmp_path):
    config = config_of("[gateways.one]\n[gateways.two]\n", tmp_path)
    assert urls("ws://h:1", config) == ["ws://h:1/v1/{account}/one", "ws://h:1/v1/{account}/two"]
    assert urls("ws://h:1", config_of("", tmp_path)) == ["ws://h:1/v1/{account}/{gateway}"]


# check


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str


def invoke(*args: str, stdin: str | bytes = "", env: dict[str, str] | None = None) -> Ended:
    """A command within this process."""
    ended = CliRunner().invoke(app, list(args), input=stdin, env=env)
    return Ended(ended.exit_code, ended.stdout, ended.stderr)


def test_check_describes_a_configuration(tmp_path):
    path = tmp_path / "bridge.toml"
    path.write_text("[server]\nport = 9000\n[gateways.mine]\nmax_attempts = 2\n")
    ended = invoke("check", env={"BRIDGE_CONFIG": str(path)})
    assert (ended.code, ended.err) == (0, "")
    assert "listens on ws://127.0.0.1:9000 (this machine only)\n" in ended.out
    assert "  max_attempts = 2 (default 1)\n" in ended.out


def test_check_names_everything_that_is_wrong_by_key_and_line(tmp_path):
    path = tmp_path / "bridge.toml"
    path.write_text("[server]\nprot = 1\n[gateways.mine]\nmax_attempts = 9\n")
    ended = invoke("check", "--config", str(path))
    assert (ended.code, ended.out) == (2, "")
    assert [line.split(": ")[:2] for line in ended.err.splitlines()] == [
        [f"{path}:2", "server.prot"],
        [f"{path}:4", "gateways.mine.max_attempts"],
    ]


def test_check_looks_into_the_certificate(tmp_path):
    path = tmp_path / "bridge.toml"
    path.write_text(f'[server]\ntls_cert = "{TLS}/localhost.pem"\ntls_key = "{TLS}/localhost.pem"\n')
    ended = invoke("check", "--config", str(path))
    assert ended.code == 2
    assert "expected a certificate chain and its unencrypted key" in ended.err


# call


@pytest.fixture
async def call(tmp_path):
    """`bridge call` against a bridge over the demo's tapes and those in `tmp_path`."""
    record(tmp_path, "speak", "audio/mpeg", b"\xff\xf3\x00", b"\n\xfe")
    record(
        tmp_path, "tools", "application/json", b'{"choices":[{"message":{"content":null,"tool_calls":["\xc3\xa9"]}}]}'
    )
    record(tmp_path, "silent", "text/event-stream", b'data: {"choices":[]}\n\n', b"data: [DONE]\n\n")
    record(
        tmp_path,
        "breaks",
        "text/event-stream",
        b'data: {"choices":[{"delta":{"content":"Well"}}]}\n\n',
        end=StreamEnd.RESET,
    )
    tapes = TapeTransport([TAPES, tmp_path], pace=0.0)
    async with running(config_of("", tmp_path), tapes) as server:

        async def call(*args: str, stdin: str = "", **env: str) -> Ended:
            url = f"{server.url}/v1/me/default"
            return await asyncio.to_thread(invoke, "call", "--url", url, *args, stdin=stdin, env=env)

        yield call


def record(folder: Path, name: str, content_type: str, *chunks: bytes, end: StreamEnd = StreamEnd.EOF) -> None:
    """A tape that answers `openai NAME --data {}`."""
    request = TapeRequest.of("POST", f"https://api.openai.com/v1/{name}", b"{}")
    head = TapeHead(status=200, headers={"content-type": content_type}, ms=0)
    write_tape(
        folder / f"{name}.jsonl",
        Tape(request, head, tuple(TapeChunk.of(1, data) for data in chunks), TapeEnding(end=end)),
    )


async def test_call_prints_the_text_of_a_plain_answer_and_of_a_stream(call):
    assert await call(*words(PLAIN)) == Ended(0, "A bridge is for not having to choose a side.", "")
    ended = await call(*words(STREAM))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("A bridge is a promise that two shores make")
    assert ended.out.endswith("approving of the arrangement.")


async def test_call_prints_the_json_of_an_answer_without_text(call):
    ended = await call("openai", "tools", "--data", "{}")
    assert json.loads(ended.out) == {"choices": [{"message": {"content": None, "tool_calls": ["é"]}}]}
    assert ended.out.startswith('{\n  "choices": [\n')


async def test_call_prints_every_frame_as_it_came(call):
    ended = await call(*words(STREAM), "--frames")
    frames = [orjson.loads(line) for line in ended.out.splitlines()]
    assert {frame["type"] for frame in frames[1:-1]} == {"universal.stream"}
    assert (frames[0]["type"], frames[-1]["type"]) == ("universal.created", "universal.done")
    assert ended.code == 0


async def test_call_reads_its_data_from_a_file_or_from_stdin(call, tmp_path):
    data = json.dumps(PLAIN["query"])
    (tmp_path / "data.json").write_text(data)
    for source, stdin in (("-", data), (f"@{tmp_path}/data.json", "")):
        ended = await call(*words(PLAIN, data=False), "--data", source, stdin=stdin)
        assert ended == Ended(0, "A bridge is for not having to choose a side.", "")


async def test_call_falls_back(call):
    first, second = SCENES[2].request
    ended = await call(*words(first), "--fallback", f"mistral v1/chat/completions {json.dumps(second['query'])}")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("The Pont Neuf")


async def test_call_of_a_failed_event_tells_the_error_and_each_attempt(call):
    first = SCENES[2].request[0]
    failed = await call(*words(first))
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.startswith("error 503 (provider, retryable): ")
    assert "overloaded" in failed.err
    failed = await call(*words(first), "--fallback", "mistral v1/chat/completions {}", "--config", '{"maxAttempts": 0}')
    assert failed.code == 1
    lines = failed.err.splitlines()
    assert lines[0].startswith("warning: ")
    assert [line for line in lines if line.startswith("  step ")][-1].startswith("  step 1, mistral: 9019 No tape")


async def test_call_of_a_stream_that_breaks_prints_what_came_and_then_the_error(call):
    ended = await call("openai", "breaks", "--data", "{}")
    assert (ended.code, ended.out) == (1, "Well")
    assert ended.err.startswith("error 9016 (provider, retryable): ")


async def test_call_writes_audio_unchanged_and_reports_an_empty_answer(call):
    assert (await call("openai", "speak", "--data", "{}", "--frames")).out.count("universal.stream") == 2
    ended = await call("openai", "silent", "--data", "{}")
    assert (ended.code, ended.out) == (0, "")
    assert "--frames" in ended.err


@pytest.mark.parametrize(
    "args",
    [
        ["--data", "{"],
        ["--data", "@no-such-file"],
        ["--data", "@~no-such-user/file"],
        ["--data", ""],
        ["--header", "no colon"],
        ["--header", ": no name"],
        ["--header", "a: 1", "--header", "A: 2"],
        ["--fallback", "mistral"],
        ["--fallback", "mistral chat {"],
        ["--fallback", "{"],
        ["--config", "[]"],
        ["--timeout", "0"],
        ["--nonsense"],
    ],
)
def test_wrong_usage_ends_with_2_and_names_the_option(args):
    ended = invoke("call", "openai", "chat/completions", *args)
    assert (ended.code, ended.out) == (2, "")
    assert args[-2 if len(args) > 1 else 0] in ended.err


def test_without_a_bridge_call_ends_with_3():
    ended = invoke("call", "openai", "x", "--url", f"ws://user:hunter2@127.0.0.1:{unused_port()}/v1/me/default")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("bridge: cannot connect to ws://")
    assert ended.err.endswith(": Connection refused\n")
    assert "hunter2" not in ended.err


def test_call_that_takes_too_long_or_is_interrupted_cancels_its_event():
    """And a reader of its output that leaves is no reason for a traceback."""
    with started("serve", "--port", "0", "--replay", str(TAPES)) as server:
        url = url_in(server.stdout.readline())
        late = run("call", "--url", url, *words(STORY), "--timeout", "1")
        assert late.returncode == 1
        assert "timeout after 1 s" in late.stderr
        assert "A bridge" in late.stdout
        with started("call", "--url", url, *words(STORY)) as story:
            assert story.stdout.read(1) == "A"
            story.send_signal(signal.SIGINT)
            assert story.wait(TIMEOUT_S) == 130
            assert story.stderr.read() == ""
        with started("call", "--url", url, *words(STORY)) as story:
            assert story.stdout.read(1) == "A"
            story.stdout.close()
            assert story.wait(TIMEOUT_S) == 1
            assert story.stderr.read() == ""
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_S) == 0
        events = [line for line in map(json.loads, server.stderr) if line["message"] == "event"]
    assert [event["code"] for event in events] == [9020, 9020, 9020]


# What call asks for.


def test_a_step_holds_what_was_given_and_its_data_to_the_byte():
    step = provider_call.step(
        "openai", "chat", '{ "n": 1.0, "big": 123456789012345678901234567890 }', ["A-b : c: d"], "PUT"
    )
    assert orjson.dumps(step) == (
        b'{"provider":"openai","endpoint":"chat","method":"PUT","headers":{"a-b":"c: d"},'
        b'"query":{ "n": 1.0, "big": 123456789012345678901234567890 }}'
    )
    assert provider_call.step("openai", "models", None, [], "GET") == {
        "provider": "openai",
        "endpoint": "models",
        "method": "GET",
    }


def test_a_fallback_is_three_words_or_a_step_and_gets_no_headers_of_the_first(tmp_path):
    (tmp_path / "data.json").write_text("[1]")
    first = provider_call.step("openai", "chat", "{}", ["authorization: Bearer secret"], None)
    whole = '{"provider": "groq", "endpoint": "chat", "headers": {"authorization": "Bearer other"}}'
    fallbacks = [
        provider_call.fallback(text) for text in ('mistral v1/chat {"a": [1, 2]}', f"a b @{tmp_path}/data.json", whole)
    ]
    request = orjson.loads(orjson.dumps(provider_call.request(first, fallbacks, '{"maxAttempts": 2}')))
    assert request == {
        "config": {"maxAttempts": 2},
        "steps": [
            {"provider": "openai", "endpoint": "chat", "headers": {"authorization": "Bearer secret"}, "query": {}},
            {"provider": "mistral", "endpoint": "v1/chat", "query": {"a": [1, 2]}},
            {"provider": "a", "endpoint": "b", "query": [1]},
            {"provider": "groq", "endpoint": "chat", "headers": {"authorization": "Bearer other"}},
        ],
    }


def test_an_invalid_header_is_not_shown_because_it_may_be_a_key():
    with pytest.raises(typer.BadParameter) as refused:
        provider_call.step("openai", "chat", None, ["sk-secret"], None)
    assert "sk-secret" not in refused.value.message
    with pytest.raises(typer.BadParameter) as refused:
        provider_call.fallback("openai sk-secret")
    assert "sk-secret" not in refused.value.message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no disk that is always full")
def test_a_full_disk_is_reported_in_one_line():
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*BRIDGE, "check"], stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), timeout=TIMEOUT_S
        )
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "no space left on device" in ended.stderr


# What call shows.


class Stream(io.TextIOWrapper):
    """Remembers what was written; a terminal, or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self._is_terminal = terminal

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def written(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()


def shown(*frames: dict[str, object], terminal: bool, frames_too: bool = False) -> tuple[bytes, str]:
    """What a printer writes of an event's frames, and what it says about them."""
    out, err = Stream(terminal=terminal), Stream(terminal=terminal)
    printer = Printer(out, err, frames=frames_too)
    stdin = [Frame.of(orjson.dumps({"metadata": {}, **frame})) for frame in frames]
    for frame in stdin:
        printer.show(frame)
    printer.end_line()
    printer.conclude(stdin[-1])
    return out.written, err.written.decode()


def stream(response: object, **beside: object) -> dict[str, object]:
    return {"type": "universal.stream", "response": response, **beside}


CREATED = {"type": "universal.created"}
DONE = {"type": "universal.done"}


def test_on_a_terminal_an_answer_cannot_move_the_cursor_and_its_line_ends():
    frames = (CREATED, stream("a\x1b]52;c;aGk=\x07b\x9b2J\r\n\tc"), DONE)
    assert shown(*frames, terminal=True)[0].decode() == "a\ufffd]52;c;aGk=\ufffdb\ufffd2J\ufffd\n\tc\n"
    assert shown(*frames, terminal=False)[0] == "a\x1b]52;c;aGk=\x07b\x9b2J\r\n\tc".encode()


def test_frames_on_a_terminal_are_the_same_json_without_what_could_harm():
    frame = stream("a\x7f\x9b2J\u202eb", metadata={})
    raw = shown(frame, terminal=True, frames_too=True)[0]
    assert orjson.loads(raw) == frame
    assert raw.isascii()
    assert "\u202e".encode() in shown(frame, terminal=False, frames_too=True)[0]


def test_bytes_go_to_a_file_as_they_are_and_to_no_terminal():
    pieces = [stream(base64.b64encode(data).decode(), encoding="base64") for data in (b"\xff\x00", b"\n")]
    assert shown(CREATED, *pieces, DONE, terminal=False) == (b"\xff\x00\n", "")
    out, err = shown(CREATED, *pieces, DONE, terminal=True)
    assert out == b""
    assert "redirect it to a file" in err


def test_a_restarted_answer_is_reported():
    again = {"type": "universal.created", "metadata": {"restarted": True, "step": "1"}}
    out, err = shown(CREATED, stream("half an"), again, stream("all of it"), DONE, terminal=True)
    assert out == b"half an\nall of it\n"
    assert "step 1 starts again" in err


def test_an_error_tells_how_long_to_wait():
    error = {"code": 429, "message": "slow\x1bly", "source": "provider", "retryable": True, "retryAfterMs": 1500}
    _, err = shown({"type": "universal.error", "error": error}, terminal=True)
    assert err == "error 429 (provider, retryable after 1500 ms): slow\ufffdly\n"
