"""Run the examples of the page on the request log, and compare its facts with the code."""

import re
import shlex
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from bridge.docs import pages
from bridge.relay.runner import new_id
from bridge.services.request_log.log import BATCH_ROWS, LINGER_S, MAX_BYTES, MAX_ROWS
from bridge.services.request_log.schema import LogRow
from bridge.services.request_log.table import RequestTable
from tests.support.commands import run, started
from tests.support.examples import blocks, text_of
from tests.support.log_rows import row

PAGE = pages.read("request-log").markdown
SHOWN_ID = "01a1f922-c87e-7410-a065-b234aaf9e09e"
ROW_ID = new_id()
"""Replaces the id of the page: an id contains the time of its event, and `--since` selects recent events."""
COMMANDS = re.findall(r"^\$ bridge (logs[^#\n]*)", PAGE.replace(SHOWN_ID, ROW_ID), re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (configuration,) = blocks("request-log", "toml")
    (tmp_path / "bridge.toml").write_text(configuration)
    failure = {"status_code": 503, "success": False, "metadata": '{"team":"search"}'}
    with closing(RequestTable(tmp_path / "requests.db")) as log:
        log.append([row()._replace(id=ROW_ID, created_at=time.time_ns() // 1_000_000, **failure)], {})
    return tmp_path


@pytest.mark.parametrize("command", [line for line in COMMANDS if "--follow" not in line])
def test_the_commands_do_what_is_shown(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    arguments, _, file = command.partition(" > ")
    result = run(*shlex.split(arguments))
    assert (result.returncode, result.stderr) == (0, "")
    assert ("rate" in arguments) or ROW_ID in result.stdout
    assert not file or file.strip().endswith(".csv")


def test_the_command_that_follows_runs_until_it_is_interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (command,) = [line for line in COMMANDS if "--follow" in line]
    with started(*shlex.split(command)) as following:
        assert following.stdout is not None
        assert following.stdout.readline().startswith("began")
        assert ROW_ID in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=60) == 0


def test_every_column_is_described() -> None:
    named = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert {*LogRow._fields, "score", "feedback", "custom_cost"} - named == set()


def test_the_numbers_are_those_of_the_code() -> None:
    text = text_of("request-log")
    assert f"every half second or every {BATCH_ROWS} rows" in text
    assert LINGER_S == 0.5
    assert f"up to {MAX_ROWS:,} events or {MAX_BYTES >> 20} MiB wait" in text
