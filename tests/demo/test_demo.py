"""The demo: it goes as it should, it notices when it does not, and what it prints works as printed."""

import dataclasses
import io
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import orjson
import pytest

from bridge.client import Frame
from bridge.demo.scenes import SCENES, Played
from bridge.demo.screen import PlainScreen, TerminalScreen, show_paragraph, show_received
from bridge.demo.snippets import command
from bridge.demo.stage import play, text_of_tape
from tests.support.commands import TAPES, TIMEOUT_S, environment, run, started

PACE = "0.2"
"""Quick, and yet slow enough that a cancel comes before the story's end."""


@pytest.fixture(scope="module")
def printed() -> Iterator[str]:
    """What `bridge demo --stay` prints, which serves meanwhile; then it is interrupted."""
    with started("demo", "--stay", "--pace", PACE) as demo:
        lines = []
        for line in demo.stdout:
            lines.append(line)
            if line.startswith("Serving"):
                break
        yield "".join(lines)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(TIMEOUT_S) == 0
        assert demo.stderr.read() == ""


def test_all_four_scenes_go_as_they_should(printed):
    assert re.findall(r"^\d  (.*)$", printed, re.MULTILINE) == [scene.title for scene in SCENES]
    assert printed.count("   ✓ ") == 4
    assert "✗" not in printed
    assert "All four scenes succeeded.\n" in printed


def test_every_frame_is_shown_completely(printed):
    shown = re.findall(r"^   ← (\w+) .*?(\{.*\})$", printed, re.MULTILINE)
    frames = [orjson.loads(raw) for _, raw in shown]
    assert [frame["type"] for frame in frames] == [f"universal.{kind}" for kind, _ in shown]
    assert len(frames) > 80


def snippet(printed: str, heading: str) -> str:
    """The code below the heading that begins so."""
    _, *parts = re.split(r"^# (.*)\n\n", printed.partition("\n\nServing")[0], flags=re.MULTILINE)
    [code] = [code for title, code in zip(parts[::2], parts[1::2], strict=True) if title.startswith(heading)]
    return code


STREAMED = text_of_tape(TAPES / "stream-anthropic.jsonl")


def test_the_shell_snippet_works_as_printed(printed, tmp_path):
    finished = subprocess.run(
        ["sh", "-c", snippet(printed, "From a shell")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        timeout=TIMEOUT_S,
    )
    assert (finished.stdout, finished.stderr, finished.returncode) == (STREAMED, "", 0)


def test_the_python_snippet_works_as_printed(printed):
    code = snippet(printed, "From Python")
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (finished.stdout, finished.stderr, finished.returncode) == (f"{STREAMED}\n", "", 0)


@pytest.mark.needs("npm-ws")
def test_the_javascript_snippet_works_as_printed(printed):
    code = snippet(printed, "From JavaScript")
    finished = subprocess.run(["node", "-e", code], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (finished.stdout, finished.stderr, finished.returncode) == (f"{STREAMED}\n", "", 0)


def test_however_fast_it_is_played_a_part_of_the_long_answer_is_left_to_cancel():
    out = io.StringIO()
    assert play(TAPES, PlainScreen(out), stay=False, port=0, pace=0) == 0, out.getvalue()


# What it notices.


def test_a_tape_that_is_missing_fails_its_scene_and_the_demo(tmp_path):
    tapes = shutil.copytree(TAPES, tmp_path / "tapes")
    (tapes / "plain-openai.jsonl").unlink()
    out = io.StringIO()
    assert play(tapes, PlainScreen(out), stay=False, port=0, pace=float(PACE)) == 1
    assert out.getvalue().count("   ✓ ") == 3
    assert "   ✗ " in out.getvalue()
    assert "Not all scenes succeeded." in out.getvalue()


def test_missing_tapes_and_a_port_in_use_are_reported_in_one_line(tmp_path):
    out = io.StringIO()
    assert play(tmp_path, PlainScreen(out), stay=False, port=0, pace=0) == 1
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        assert play(TAPES, PlainScreen(out), stay=False, port=port, pace=0) == 1
    no_tapes, no_port = out.getvalue().splitlines()
    assert no_tapes.startswith(f"{tmp_path}: No tape found")
    assert no_port == f"cannot listen on 127.0.0.1:{port}: Address already in use"


def test_an_invalid_port_is_a_usage_error():
    ended = run("demo", "--port", "99999")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "'--port'" in ended.stderr
    assert "Traceback" not in ended.stderr


TAPED = "all of it"


def frame(kind: str, **more: object) -> Frame:
    return Frame.of(orjson.dumps({"type": f"universal.{kind}", **more}))


CREATED, STREAM = frame("created", metadata={}), frame("stream", metadata={})
ANSWER = frame("created", metadata={"success": True}, response={})
DONE = frame("done", metadata={"success": True, "step": "0"})
ATTEMPTS = [{"step": "0", "status": 503}, {"step": "1", "status": 200}]
CHAINED = frame("done", metadata={"success": True, "step": "1", "attempts": ATTEMPTS})
CANCELLED = frame("error", metadata={}, error={"code": 9020})

PLAYED_WELL = [
    Played([ANSWER], TAPED, TAPED, 0),
    Played([CREATED, STREAM, STREAM, DONE], TAPED, TAPED, 0),
    Played([CREATED, STREAM, CHAINED], TAPED, TAPED, 0),
    Played([CREATED, STREAM, CANCELLED], "all", TAPED, 0),
]


@pytest.mark.parametrize(("scene", "played"), list(zip(SCENES, PLAYED_WELL, strict=True)))
def test_a_scene_that_went_well_has_no_problems(scene, played):
    assert list(scene.check(played)) == []


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        (1, {"frames": [ANSWER, DONE]}),
        (1, {"frames": [CREATED]}),
        (1, {"frames": [frame("created", metadata={"success": False}, response={})]}),
        (1, {"received": "something else"}),
        (1, {"received": "", "taped": ""}),
        (2, {"frames": [CREATED, DONE]}),
        (2, {"frames": [CREATED, STREAM]}),
        (2, {"frames": [CREATED, STREAM, CANCELLED]}),
        (2, {"frames": [STREAM, CREATED, DONE]}),
        (2, {"received": "all of"}),
        (3, {"frames": [CREATED, STREAM, DONE]}),
        (3, {"frames": [CREATED, STREAM, frame("done", metadata={"success": True, "step": "1"})]}),
        (3, {"frames": [CREATED, STREAM, CREATED, STREAM, CHAINED]}),
        (4, {"frames": [CREATED, STREAM, DONE], "received": TAPED}),
        (4, {"frames": [CREATED, STREAM, frame("error", metadata={}, error={"code": 9016})]}),
        (4, {"received": ""}),
        (4, {"received": "not"}),
        (4, {"received": TAPED}),
        (4, {"still_playing": 1}),
    ],
)
def test_a_scene_that_went_otherwise_has_a_problem(number, changes):
    assert list(SCENES[number - 1].check(dataclasses.replace(PLAYED_WELL[number - 1], **changes)))


# How it is shown.


def test_on_a_terminal_every_line_fits_its_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    out = io.StringIO()
    screen = TerminalScreen(out)
    show_received(
        screen, frame("stream", metadata={"eventId": "event-1"}, response={"choices": [{"delta": {"content": "A\nB"}}]})
    )
    show_paragraph(screen, "One question, one answer, and a sentence that is longer than the terminal is wide.")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 60
    assert '← stream   "A\\nB" ' in lines[0]
    assert lines[0].endswith("…")


def test_what_is_to_be_copied_is_not_broken_at_the_terminals_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    out = io.StringIO()
    TerminalScreen(out).write("[bold]" + "x" * 200)
    assert out.getvalue() == "[bold]" + "x" * 200 + "\n"


def test_the_command_is_named_only_if_path_leads_to_it(monkeypatch, tmp_path):
    """iproute2 has a command `bridge` too."""
    ours, theirs = tmp_path / "ours" / "bridge", tmp_path / "theirs" / "bridge"
    for program in (ours, theirs):
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(ours)])
    monkeypatch.setenv("PATH", f"{ours.parent}:{theirs.parent}")
    assert command() == "bridge"
    monkeypatch.setenv("PATH", f"{theirs.parent}:{ours.parent}")
    assert command() == str(ours)
    monkeypatch.setattr(sys, "argv", ["/somewhere/bridge/__main__.py"])
    assert command() == f"{sys.executable} -m bridge"
