"""`bridge replay` in a process of its own, and what a replay may be told on the command line."""

import json
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from urllib.error import HTTPError

import aiohttp
import pytest
import typer

from bridge.cli.replay import replay_options
from bridge.tapes.fault_injection import Reset, Slow
from bridge.tapes.file import StreamEnd, Tape, TapeChunk, TapeEnding, TapeHead, TapeRequest, write_tape
from bridge.tapes.matching import Matching
from tests.support.commands import TIMEOUT_S, run, run_here, started, url_in
from tests.support.harness import Client

URL = "https://api.openai.com/v1/chat/completions"
SSE = TapeHead(status=200, headers={"content-type": "text/event-stream"}, ms=5)
CHUNK = 'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'


def asking(user: str) -> bytes:
    return json.dumps({"model": "gpt-4o-mini", "user": user, "stream": True}).encode()


@pytest.fixture
def tapes(tmp_path: Path) -> Path:
    """A folder of two tapes for one request: a stream, and one that goes silent."""
    for number, end in enumerate([StreamEnd.EOF, StreamEnd.STALL]):
        request = TapeRequest.of("POST", URL, asking("recorded"))
        chunks = (TapeChunk.of(6, CHUNK.encode()), TapeChunk.of(7, b"data: [DONE]\n\n"))
        write_tape(tmp_path / f"{number}.jsonl", Tape(request, SSE, chunks, TapeEnding(end=end, ms=8)))
    return tmp_path


@contextmanager
def replaying(*args: str) -> Iterator[str]:
    """Where `bridge replay` listens; it has to end well when it is told to."""
    with started("replay", *args, "--port", "0") as server:
        word, url = server.stdout.readline().split()
        assert word == "ready"
        yield url
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_S) == 0
        assert server.stdout.read() == ""


def ask(url: str, user: str, path: str = "/v1/chat/completions") -> HTTPResponse:
    """As any program of any language would."""
    answer: HTTPResponse = urllib.request.urlopen(urllib.request.Request(url + path, asking(user)), timeout=TIMEOUT_S)
    return answer


def test_it_says_where_it_listens_answers_from_tapes_and_ends_at_a_signal_whatever_still_plays(tapes: Path) -> None:
    with replaying(str(tapes), "--pace", "0.5") as url:
        with ask(url, "recorded") as answer:
            assert answer.read().decode() == CHUNK + "data: [DONE]\n\n"
        silent = ask(url, "recorded", "/api.openai.com/v1/chat/completions")
        assert silent.readline().decode() == CHUNK.partition("\n")[0] + "\n"
    silent.close()


def test_its_options_say_what_may_differ_what_follows_and_what_goes_wrong(tapes: Path) -> None:
    options = ("--ignore-json", "$.user", "--exhausted", "miss", "--pace", "instant", "--fault", "status:503:first:1")
    with replaying(str(tapes / "0.jsonl"), *options) as url:
        statuses = []
        for user in ("first", "second", "third"):
            try:
                with ask(url, user) as answer:
                    statuses.append(answer.status)
            except HTTPError as error:
                statuses.append(error.code)
                error.close()
    assert statuses == [503, 200, 404]


@pytest.mark.parametrize("command", ["replay", "serve --replay"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--fault reset@7", "expected reset@head, reset@chunk:N or reset@end"),
        ("--ignore-json user", "it must begin with $, as in $.metadata.user_id"),
        ("--exhausted never", "is not repeat or miss"),
        ("--pace fast", "is not recorded, instant or a number"),
    ],
)
def test_invalid_replay_options_are_usage_errors(tapes: Path, command: str, options: str, words: str) -> None:
    refused = run_here(*command.split(), str(tapes), *options.split())
    assert refused.returncode == 2
    assert words in " ".join(refused.stderr.split())


async def test_a_bridge_that_replays_has_the_same_options(tapes: Path) -> None:
    options = ("--ignore-json", "$.user", "--exhausted", "miss", "--pace", "instant", "--fault", "status:503:first:1")
    with started("serve", "--replay", str(tapes / "0.jsonl"), *options, "--port", "0") as server:
        url = url_in(server.stdout.readline())
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            client = Client(socket)
            step = {"provider": "openai", "endpoint": "chat/completions", "query": json.loads(asking("else"))}
            lasts = [(await client.call({"eventId": number, **step}))[-1] for number in range(3)]
    assert [last.get("error", {}).get("code") for last in lasts] == [503, None, 9019]
    assert "exhausted tapes do not repeat" in lasts[-1]["error"]["message"]


@pytest.mark.parametrize("option", ["--fault reset@head", "--pace instant"])
def test_a_bridge_without_tapes_takes_no_rules_for_them(option: str) -> None:
    refused = run_here("serve", *option.split())
    assert refused.returncode == 2
    assert "--replay DIR" in refused.stderr


def test_a_folder_without_tapes_and_a_port_in_use_are_reported_in_one_line(tapes: Path, tmp_path: Path) -> None:
    refused = run("replay", str(tmp_path / "nowhere"))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"bridge: {tmp_path / 'nowhere'}: No tape found")
    assert refused.stderr.count("\n") == 1
    with replaying(str(tapes)) as url:
        port = url.rpartition(":")[2]
        refused = run("replay", str(tapes), "--port", port)
    assert (refused.returncode, refused.stderr) == (
        1,
        f"bridge: cannot listen on 127.0.0.1:{port}: Address already in use\n",
    )


def test_the_options_of_a_replay_are_the_arguments_of_whatever_plays_it() -> None:
    how = replay_options(0.0, ["seed"], ["$.user"], ["x-tenant"], "miss", ["reset@chunk:7", "slow:2x"])
    assert how == {
        "pace": 0.0,
        "matching": Matching(ignore_query=("seed",), ignore_json=("$.user",), match_headers=("x-tenant",)),
        "exhausted": "miss",
        "faults": [Reset(7), Slow(2)],
    }
    with pytest.raises(typer.BadParameter):
        replay_options(1.0, None, ["user"], None, "repeat", None)
