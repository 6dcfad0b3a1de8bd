"""The plugin: as a user has it, by its entry point, in runs of pytest of their own; and as this house uses it."""

import os
import shutil
import threading
import tomllib
from pathlib import Path

import orjson
import pytest

from bridge.client import connect
from bridge.client.sync import connect as connect_sync
from bridge.testing.frames import BridgeFrames, without_secrets
from bridge.testing.transcripts import TranscriptDiffers, check, without_volatile
from tests.support.examples import blocks
from tests.support.paths import FIXTURES, ROOT

DEMO_TAPES = ROOT / "bridge" / "demo" / "tapes"
TAPES = FIXTURES / "tapes"
ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]

EXAMPLE, TURN = blocks("pytest", "python")

CLIENTS = """\
import asyncio, gc, threading
import pytest
from bridge.client import connect
from bridge.client.sync import connect as connect_sync

pytestmark = pytest.mark.bridge_tapes("tapes")
QUERY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "In one sentence: what is a bridge for?"}]}

def test_sync(bridge_url):
    assert bridge_url.startswith("ws://127.0.0.1:")
    with connect_sync(bridge_url) as bridge:
        assert bridge.request("openai", "chat/completions", QUERY).text

def test_left_as_it_runs(bridge_url):
    bridge = connect_sync(bridge_url, reconnect=False)
    bridge.create({"provider": "openai", "endpoint": "chat/completions", "query": QUERY}).open()
    test_left_as_it_runs.bridge = bridge

def test_no_thread_is_left():
    test_left_as_it_runs.bridge.close()
    gc.collect()
    assert threading.enumerate() == [threading.main_thread()]
"""
ASYNCHRONOUS = """
@pytest.mark.asyncio
async def test_async(bridge_url):
    async with connect(bridge_url) as bridge:
        assert (await bridge.request("openai", "chat/completions", QUERY)).text
    assert asyncio.all_tasks() == {asyncio.current_task()}

@pytest.mark.asyncio
async def test_async_frames(bridge_frames):
    frames = bridge_frames({"provider": "openai", "endpoint": "chat/completions", "query": QUERY})
    assert frames[-1]["metadata"]["success"]
"""
OTHERS = ["-p", "no:asyncio", "-p", "no:aiohttp", "-p", "no:anyio", "-p", "no:hypothesispytest"]
ASYNCIO = ["-o", "asyncio_default_fixture_loop_scope=function", "-o"]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with tapes, where this tree is installed; warnings and unknown markers are errors."""
    installed = pytester.mkdir("installed")
    info = installed / "universal_bridge-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: universal-bridge\nVersion: 0\n")
    lines = [f"{name} = {place}\n" for name, place in ENTRY_POINTS.items()]
    (info / "entry_points.txt").write_text("[pytest11]\n" + "".join(lines))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(installed), str(ROOT)]))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    shutil.copytree(DEMO_TAPES, pytester.path / "tapes")
    pytester.makeini("[pytest]\naddopts = --strict-markers --strict-config\nfilterwarnings = error\n")
    return pytester


def test_an_example_needs_three_lines_and_its_transcript(suite: pytest.Pytester) -> None:
    """Without a transcript it fails and says how to write one; written, it passes; a change is shown by its line."""
    suite.makepyfile(test_example=EXAMPLE)
    transcript = suite.path / "transcripts" / "test_example" / "test_the_model_says_what_a_bridge_is_for.jsonl"

    missing = suite.runpytest_subprocess(*OTHERS)
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(
        ["E *There is no transcript */test_example/*. Create it with `pytest --bridge-update`*"]
    )
    assert not transcript.exists()

    suite.runpytest_subprocess(*OTHERS, "--bridge-update").assert_outcomes(passed=1)
    suite.runpytest_subprocess(*OTHERS).assert_outcomes(passed=1)

    transcript.write_bytes(transcript.read_bytes().replace(b'"status":200', b'"status":201'))
    changed = suite.runpytest_subprocess(*OTHERS)
    changed.assert_outcomes(failed=1)
    changed.stdout.fnmatch_lines(["E *-*status*201*", "E *+*status*200*"])


@pytest.mark.parametrize(
    ("more", "options", "passed"),
    [
        (ASYNCHRONOUS, [*ASYNCIO, "asyncio_mode=auto"], 5),
        (ASYNCHRONOUS, [*ASYNCIO, "asyncio_mode=strict"], 5),
        ("", OTHERS, 3),
    ],
    ids=["auto", "strict", "without"],
)
def test_it_serves_any_test_and_leaves_nothing(
    suite: pytest.Pytester, more: str, options: list[str], passed: int
) -> None:
    """Warnings are errors, those of sockets and tasks that nobody closed among them."""
    suite.makepyfile(CLIENTS + more)
    suite.runpytest_subprocess("-Walways::ResourceWarning", "-Werror", *options, "--bridge-update").assert_outcomes(
        passed=passed
    )


def test_until_it_is_used_it_imports_nothing_but_pytest(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import sys

        def test_modules(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("bridge")
            ours = {name for name in sys.modules if name.partition(".")[0] == "bridge"}
            assert ours == {"bridge", "bridge.testing", "bridge.testing.plugin"}
            assert not {"aiohttp", "httpx", "msgspec", "orjson", "typer", "asyncio"} & sys.modules.keys()
        """
    )
    suite.runpytest_subprocess(*OTHERS).assert_outcomes(passed=1)


def test_invalid_marker_arguments_fail_the_test_with_a_message(suite: pytest.Pytester) -> None:
    suite.mkdir("empty")
    suite.makepyfile(
        """
        import pytest

        def test_of_none(bridge_url): ...

        @pytest.mark.bridge_tapes("missing")
        def test_missing(bridge_url): ...

        @pytest.mark.bridge_tapes("empty")
        def test_empty(bridge_url): ...

        @pytest.mark.bridge_tapes("tapes", pase="instant")
        def test_misspelt(bridge_url): ...

        @pytest.mark.bridge_tapes("tapes", pace="fast")
        def test_pace(bridge_url): ...

        @pytest.mark.bridge_tapes("tapes", exhausted="wrap")
        def test_exhausted(bridge_url): ...

        @pytest.mark.bridge_tapes("tapes", fault="explode")
        def test_fault(bridge_url): ...
        """
    )
    run = suite.runpytest_subprocess(*OTHERS)
    run.assert_outcomes(errors=7)
    run.stdout.fnmatch_lines(
        [
            "No tapes for bridge_url: mark the test with @pytest.mark.bridge_tapes(*), or set bridge_tapes = *",
            "bridge_tapes: there is no */missing",
            "bridge_tapes: */empty: No tape found*",
            "bridge_tapes: bridge_tapes() got an unexpected keyword argument 'pase'*",
            "bridge_tapes: pace: 'fast' is not recorded, instant or a number",
            "bridge_tapes: exhausted: 'wrap' is not repeat or miss",
            "bridge_tapes: invalid fault 'explode'*",
        ]
    )


def test_tapes_of_the_ini_option_and_of_the_closest_marker(suite: pytest.Pytester) -> None:
    """The option's path is relative to its file; a marker's to the test's, or to rootdir."""
    suite.makeini("[pytest]\nbridge_tapes = tapes\n")
    suite.path.joinpath("below", "own").mkdir(parents=True)
    shutil.copy(DEMO_TAPES / "stream-anthropic.jsonl", suite.path / "below" / "own")
    suite.path.joinpath("below", "test_below.py").write_text(
        """
import pytest
from bridge.client.sync import connect

QUERY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "In one sentence: what is a bridge for?"}]}

STEP = {"provider": "openai", "endpoint": "chat/completions", "query": QUERY}

def status(url):
    with connect(url) as bridge, bridge.create(STEP) as event:
        return [frame.metadata.status for frame in event][-1]

def test_option(bridge_url):
    assert status(bridge_url) == 200

@pytest.mark.bridge_tapes(fault="status:503", config="bridge.toml")
def test_option_and_terms(bridge_url):
    assert status(bridge_url) == 503

@pytest.mark.bridge_tapes("own")
class TestMarked:
    def test_class(self, bridge_url):
        assert status(bridge_url) == 502

    @pytest.mark.bridge_tapes("tapes/plain-openai.jsonl")
    def test_closest(self, bridge_url):
        assert status(bridge_url) == 200
        """
    )
    suite.path.joinpath("bridge.toml").write_text('[providers.custom-mine]\nbase_url = "http://127.0.0.1:1"\n')
    suite.runpytest_subprocess(*OTHERS).assert_outcomes(passed=4)


MISSING = """\
import pytest

pytestmark = pytest.mark.bridge_tapes("tapes")

def test_another_question(bridge_frames):
    bridge_frames({"provider": "openai", "endpoint": "chat/completions", "query": {"model": "none"}})

def test_another_host(bridge_frames):
    bridge_frames({"provider": "cerebras", "endpoint": "chat/completions", "query": {"model": "none"}})

@pytest.mark.bridge_tapes(config="bridge.toml")
def test_with_a_configuration(bridge_frames):
    bridge_frames({"provider": "custom-mine", "endpoint": "chat/completions", "query": {"model": "none"}})
"""
CONFIG_HINT = 'E *If the provider\'s base URL comes from your configuration, * bridge_tapes(…, config="bridge.toml")*'


@pytest.mark.parametrize("options", [["--bridge-update"], []], ids=["update", "compare"])
def test_a_request_that_no_tape_answers_fails_and_is_never_written(suite: pytest.Pytester, options: list[str]) -> None:
    """Not even where a transcript is asked for: it would make the failure what is expected."""
    suite.makepyfile(test_missing=MISSING)
    suite.path.joinpath("bridge.toml").write_text('[providers.custom-mine]\nbase_url = "http://127.0.0.1:1"\n')
    run = suite.runpytest_subprocess(*OTHERS, *options)
    run.assert_outcomes(failed=3)
    run.stdout.fnmatch_lines(["E *NoTranscript: No tape for POST https://api.openai.com/*", CONFIG_HINT])
    run.stdout.fnmatch_lines(["E *NoTranscript: No tape for POST https://api.cerebras.ai/*", CONFIG_HINT])
    hints = [
        line for line in run.outlines if line.startswith("E ") and "base URL comes from your configuration" in line
    ]
    assert len(hints) == 2
    assert not (suite.path / "transcripts").exists()


def test_a_miss_tells_any_client_of_the_configuration(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest
        from bridge.client import EventFailed
        from bridge.client.sync import connect

        @pytest.mark.bridge_tapes("tapes")
        def test_another_host(bridge_url):
            with connect(bridge_url) as bridge, pytest.raises(EventFailed, match="config="):
                bridge.request("cerebras", "chat/completions", {})
        """
    )
    suite.runpytest_subprocess(*OTHERS).assert_outcomes(passed=1)


CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}]}
KEY = "sk-0123456789abcdef0123456789"
HELLO = {"provider": "openai", "endpoint": "chat/completions", "query": CHAT}


@pytest.mark.bridge_tapes(TAPES / "openai")
def test_frames_come_as_they_are_and_are_kept_without_what_changes(bridge_frames: BridgeFrames) -> None:
    [frame] = bridge_frames(HELLO)
    assert frame["response"]["choices"]
    assert len(frame["metadata"]["logId"]) > 1


class TestNamed:
    @pytest.mark.parametrize("scheme", ["Bearer/"])
    @pytest.mark.bridge_tapes(TAPES / "openai", TAPES / "mistral")
    def test_requests_of_any_form(self, bridge_frames: BridgeFrames, scheme: str) -> None:
        """One after the other, each call with its own file; a fallback chain is a list; no key is kept."""
        hello = HELLO | {"headers": {"Authorization": f"Bearer {KEY}"}}
        missed = HELLO | {"query": {"model": "none"}}
        assert len(bridge_frames(hello, [missed, hello])) == 2
        assert len(bridge_frames({"steps": [hello], "headers": {"x-api-key": KEY}})) == 1
        kept = list(Path(__file__).parent.joinpath("transcripts", "test_plugin").glob("TestNamed*"))
        name = "TestNamed-test_requests_of_any_form-Bearer"
        assert {path.name for path in kept} == {f"{name}.jsonl", f"{name}-2.jsonl"}
        assert not any(KEY.encode() in path.read_bytes() for path in kept)


@pytest.mark.bridge_tapes(TAPES / "openai")
async def test_tests_with_a_loop_of_their_own(bridge_url: str) -> None:
    async with connect(bridge_url) as bridge:
        assert (await bridge.request("openai", "chat/completions", CHAT)).text


@pytest.mark.bridge_tapes(TAPES / "openai", exhausted="miss")
@pytest.mark.parametrize("time", [1, 2])
def test_each_test_plays_its_tapes_from_their_beginning(bridge_url: str, time: int) -> None:
    with connect_sync(bridge_url) as bridge:
        assert bridge.request("openai", "chat/completions", CHAT).text


def test_no_thread_of_a_bridge_outlives_its_test() -> None:
    assert not [thread for thread in threading.enumerate() if thread.name == "bridge client"]


def test_a_transcript_with_invalid_json_is_reported_by_line(tmp_path: Path) -> None:
    path = tmp_path / "merged.jsonl"
    path.write_bytes(b'{"client":{}}\n<<<<<<< ours\n')
    with pytest.raises(TranscriptDiffers, match=r"merged\.jsonl:2: not JSON"):
        check(path, [], update=False)
    check(path, [{"client": {}}], update=True)
    check(path, [{"client": {}}], update=False)


def test_a_long_difference_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    check(path, [{"bridge": {"chunk": number}} for number in range(1000)], update=True)
    with pytest.raises(TranscriptDiffers, match=r"… and \d+ more lines\Z") as differs:
        check(path, [{"bridge": {"chunk": -number}} for number in range(1000)], update=False)
    assert str(differs.value).count("\n") < 210


def test_steady_leaves_the_frame_as_it_was() -> None:
    frame = {"type": "universal.done", "metadata": {"logId": "x", "attempts": [{"step": "0", "durationMs": 7}]}}
    before = orjson.dumps(frame)
    assert without_volatile(frame)["metadata"] == {"logId": "…", "attempts": [{"step": "0", "durationMs": 0}]}
    assert without_volatile({"type": "universal.heartbeat"}) == {"type": "universal.heartbeat"}
    assert orjson.dumps(frame) == before


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        ({"headers": {"x-api-key": "k3y", "n": 1}}, {"headers": {"x-api-key": "[redacted]", "n": "1"}}),
        ({"endpoint": "v1/x?key=k3y&alt=sse"}, {"endpoint": "v1/x?key=[redacted]&alt=sse"}),
        ([{"endpoint": 7, "headers": None}, "no step"], [{"endpoint": 7, "headers": None}, "no step"]),
        ({"steps": [{"endpoint": "?key=k3y"}]}, {"steps": [{"endpoint": "?key=[redacted]"}]}),
        ({"headers": {"Authorization": "Bearer k3y"}}, {"headers": {"Authorization": "Bearer [redacted]"}}),
        ({"query": {"headers": {"x-api-key": "k3y"}}}, {"query": {"headers": {"x-api-key": "k3y"}}}),
    ],
)
def test_a_request_is_kept_without_its_secrets(request_: object, kept: object) -> None:
    assert without_secrets(request_) == kept


# Realtime sessions.

REALTIME = FIXTURES / "realtime"
_, STRAYED = blocks("tapes", "text")


@pytest.fixture
def realtime_suite(suite: pytest.Pytester) -> pytest.Pytester:
    shutil.copytree(REALTIME, suite.path / "tapes", dirs_exist_ok=True)
    return suite


def test_a_session_is_played_to_any_client(realtime_suite: pytest.Pytester) -> None:
    """And leaves nothing: warnings are errors, those of sockets and tasks that nobody closed among them."""
    realtime_suite.makepyfile(TURN)
    realtime_suite.runpytest_subprocess("-Walways::ResourceWarning", "-Werror", *OTHERS).assert_outcomes(passed=1)


def test_a_session_that_strays_fails_its_test_with_the_difference(realtime_suite: pytest.Pytester) -> None:
    """Whatever the test makes of its closing."""
    realtime_suite.makepyfile(
        test_failing=TURN.replace("three", "four"),
        test_content=TURN.replace("three", "four").replace("        text = ", "        return\n        text = "),
    )
    run = realtime_suite.runpytest_subprocess(*OTHERS, "test_failing.py")
    run.assert_outcomes(failed=1, errors=1)
    run.stdout.fnmatch_lines(["*ERROR at teardown*", "*received 1008 (policy violation)*"])
    assert STRAYED in run.stdout.str()
    content = realtime_suite.runpytest_subprocess(*OTHERS, "test_content.py")
    content.assert_outcomes(passed=1, errors=1)
    assert STRAYED in content.stdout.str()
