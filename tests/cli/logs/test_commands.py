"""`bridge logs` over a real file. `tests/docs/test_request_log.py` starts its commands as a shell does."""

import csv
import io
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from bridge.cli.logs import filters
from bridge.services.request_log.schema import LogRow
from bridge.services.request_log.table import RequestTable
from tests.support.commands import run_here, started
from tests.support.log_rows import row

NOW_MS = time.time_ns() // 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[RequestTable]:
    with closing(RequestTable(path)) as log:
        yield log


def logs(*args: object, **environ: str) -> subprocess.CompletedProcess[str]:
    return run_here("logs", *map(str, args), **environ)


def err_lines_of(*args: object) -> list[str]:
    done = logs(*args)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def recent(number: int, **changes: object) -> LogRow:
    return row(NOW_MS - row().created_at - 60_000 + number, **changes)


def stored(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT id, score, feedback, metadata FROM requests ORDER BY id").fetchall()


# The list


def test_a_table_row_has_the_main_fields_and_the_complete_id(log: RequestTable, path: Path) -> None:
    log.append([row(1), row(2, status_code=503, success=False, tokens_in=None, tokens_out=None, cost=None)], {})
    head, first, second = err_lines_of("--path", path)
    assert head.split() == ["began", "status", "ms", "tokens", "USD", "gateway", "provider", "model", "id"]
    assert first.split()[2:] == ["200", "640", "12", "4", "0.000004", "gateway", "openai", "gpt-4o-mini", row(1).id]
    assert second.split()[2:] == ["503", "640", "gateway", "openai", "gpt-4o-mini", row(2).id]


def test_the_newest_are_listed_and_stand_last(log: RequestTable, path: Path) -> None:
    log.append([row(number) for number in range(500)], {})
    _, *lines = err_lines_of("--path", path, "--limit", 300)
    assert [line.split()[-1] for line in lines] == [row(number).id for number in range(200, 500)]
    assert len(err_lines_of("--path", path)) == 1 + 20


def test_an_empty_log_is_a_heading(log: RequestTable, path: Path) -> None:
    assert len(err_lines_of("--path", path)) == 1


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (("--gateway", "b"), {1}),
        (("--provider", "anthropic"), {2}),
        (("--model", "claude"), {2}),
        (("--status", "429"), {3}),
        (("--status", "4xx"), {3}),
        (("--failed",), {3}),
        (("--success",), {0, 1, 2}),
        (("--metadata", "team=search"), {0, 1}),
        (("--metadata", "team=search", "--metadata", "paid=true"), {1}),
        (("--since", "30m"), {0, 1, 2, 3}),
        (("--since", "2001-01-01T00:00:00+00:00"), {0, 1, 2, 3}),
        (("--since", "2999-01-01"), set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_filters_hold_for_the_list_and_for_an_export(
    log: RequestTable, path: Path, flags: tuple[str, ...], found: set[int]
) -> None:
    rows = [
        recent(0, metadata='{"team":"search"}'),
        recent(1, gateway="b", metadata='{"team":"search","paid":true}'),
        recent(2, provider="anthropic", model="claude"),
        recent(3, status_code=429, success=False),
    ]
    log.append(rows, {})
    wanted = {rows[at].id for at in found}
    assert {line.split()[-1] for line in err_lines_of("--path", path, *flags)[1:]} == wanted
    assert {orjson.loads(line)["id"] for line in err_lines_of("export", "--path", path, *flags)} == wanted


def test_to_follow_is_to_see_what_is_written_from_now_on(log: RequestTable, path: Path) -> None:
    log.append([row(1)], {})
    with started("logs", "--path", str(path), "--follow", "--gateway", "gateway") as following:
        assert following.stdout is not None
        assert following.stdout.readline().startswith("began")
        assert row(1).id in following.stdout.readline()
        log.append([row(2, gateway="other"), row(3)], {})
        assert row(3).id in following.stdout.readline()
        log.append([row(0)], {})  # it began earlier, and ended last
        assert row(0).id in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=60) == 0
        assert following.stderr is not None
        assert following.stderr.read() == ""


# One, all, and what it was worth


def test_show_tells_all_that_is_kept_bodies_last(log: RequestTable, path: Path) -> None:
    log.append([row(metadata='{"team":"search"}', request_head='{"q":1}\n{"q":2}', response_head=b"\xff\xfe")], {})
    lines = err_lines_of("show", "--path", path, row().id)
    assert lines[0] == f"id: {row().id}"
    assert {'metadata: {"team": "search"}', "success: true", "cost: 4.05e-06", "tokens_in: 12"} <= set(lines)
    assert lines[-7:] == ["", "request_head:", '{"q":1}', '{"q":2}', "", "response_head:", "//4="]
    assert not [line for line in lines if line.startswith(("score", "reason"))]


def test_an_export_holds_every_column_in_either_form(log: RequestTable, path: Path) -> None:
    hard = row(2, reason='a "quoted", longer\nreason', metadata='{"a":1}', cached=True, response_head=b"\xff")
    log.append([row(1), hard], {})
    first, second = map(orjson.loads, err_lines_of("export", "--path", path))
    written = logs("export", "--path", path, "--format", "csv").stdout
    of_csv = list(csv.DictReader(io.StringIO(written, newline="")))
    assert list(of_csv[0]) == list(first)
    assert set(first) == {*LogRow._fields, "custom_cost", "score", "feedback"}
    assert first["created_at"] == "2023-11-14T22:13:20.001+00:00"
    assert (second["metadata"], second["cached"], second["response_head"]) == ({"a": 1}, True, "/w==")
    assert (of_csv[1]["reason"].replace("\r\n", "\n"), of_csv[1]["metadata"]) == (second["reason"], '{"a":1}')
    assert (of_csv[1]["cached"], of_csv[1]["score"]) == ("true", "")


def test_an_export_may_be_bounded_and_goes_from_the_oldest_on(log: RequestTable, path: Path) -> None:
    log.append([row(number) for number in range(450)], {})
    lines = err_lines_of("export", "--path", path, "--limit", 250)
    assert [orjson.loads(line)["id"] for line in lines] == [row(number).id for number in range(250)]
    assert len(err_lines_of("export", "--path", path)) == 450
    assert logs("export", "--path", path, "--gateway", "none", "--format", "csv").stdout == ""


def test_a_reader_that_goes_away_ends_an_export_without_a_word_of_python(log: RequestTable, path: Path) -> None:
    log.append([row(number, request_head="x" * 10_000) for number in range(400)], {})
    with started("logs", "export", "--path", str(path)) as exporting:
        assert exporting.stdout is not None
        exporting.stdout.read(100)
        exporting.stdout.close()
        exporting.wait(timeout=60)
        assert exporting.stderr is not None
        assert "Traceback" not in exporting.stderr.read()


def test_a_rating_is_kept_with_its_event(log: RequestTable, path: Path) -> None:
    log.append([row(1, metadata='{"a":1}'), row(2)], {})
    assert (
        err_lines_of("rate", "--path", path, row(1).id, "--score", 87.5, "--thumbs", "up", "--metadata", "by=me") == []
    )
    assert stored(path) == [(row(1).id, 87.5, 1, '{"a":1,"by":"me"}'), (row(2).id, None, None, None)]
    err_lines_of("rate", "--path", path, row(1).id, "--thumbs", "down")
    assert stored(path)[0][1:3] == (87.5, -1)
    err_lines_of("rate", "--path", path, row(1).id, "--thumbs", "none")
    assert stored(path)[0][1:3] == (87.5, 0)


# What a stranger wrote


def test_what_would_move_the_cursor_is_shown_and_not_sent(log: RequestTable, path: Path) -> None:
    nasty = "a\x1b[2J\x9b31m[bold]\rb\u202e"
    log.append([row(model=nasty, reason=nasty, request_head=nasty, metadata=orjson.dumps({"x": nasty}).decode())], {})
    shown = logs("show", "--path", path, row().id).stdout + logs("--path", path).stdout
    assert re.findall(r"[^\x20-\x7e\n…]", shown) == []
    assert "[bold]" in shown


# What is wrong is told in a line


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        (("--path", "gone.db"), 1, "bridge: gone.db: no such file"),
        (("show", "--path", "gone.db", "x"), 1, "bridge: gone.db: no such file"),
        (("rate", "--path", "gone.db", "x", "--score", "1"), 1, "bridge: gone.db: no such file"),
        (("export", "--path", "gone.db"), 1, "bridge: gone.db: no such file"),
        ((), 2, "no log is named"),
        (("--config", "gone.toml"), 2, "gone.toml cannot be read"),
        (("--path", "x", "--status", "999"), 2, "invalid status '999'"),
        (("--path", "x", "--since", "soon"), 2, "'soon' is neither"),
        (("--path", "x", "--metadata", "team"), 2, "'team' is not KEY=VALUE"),
        (("rate", "--path", "x", "id"), 2, "a rating needs --score"),
        (("rate", "--path", "x", "id", "--score", "101"), 2, "100"),
        (("--path", "x", "show", "id"), 2, "put --path after the command"),
        (("export", "--path", "x", "--format", "xml"), 2, "xml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_errors_are_reported_in_one_line(args: tuple[str, ...], code: int, why: str) -> None:
    done = logs(*args)
    assert (done.returncode, done.stdout) == (code, "")
    assert why in " ".join(done.stderr.replace("│", "").split())
    assert "Traceback" not in done.stderr


def test_an_event_that_is_not_there_and_a_database_that_is_no_log(
    log: RequestTable, path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE things (name TEXT)")
    for args, why in (
        (("show", "--path", path, "nobody"), "has no event nobody"),
        (("rate", "--path", path, "nobody", "--score", "1"), "has no event nobody"),
        (("--path", other), "is a database but not a request log"),
    ):
        done = logs(*args)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert why in done.stderr


def test_more_metadata_than_an_event_may_have_are_refused(log: RequestTable, path: Path) -> None:
    log.append([row(1, metadata='{"a":1,"b":2,"c":3,"d":4}')], {})
    assert logs("rate", "--path", path, row(1).id, "--metadata", "e=5", "--metadata", "f=6").returncode == 1
    assert stored(path)[0][3] == '{"a":1,"b":2,"c":3,"d":4}'


# Which log


def test_the_log_is_named_itself_or_by_the_environment_or_by_a_configuration(
    log: RequestTable, path: Path, tmp_path: Path
) -> None:
    """Whose secrets need not be there."""
    log.append([row()], {})
    config = tmp_path / "bridge.toml"
    config.write_text('[server]\nlog_path = "log.db"\n[gateways.prod.tokens]\napp = "env:NOT_SET"')
    for done in (
        logs("--path", path),
        logs("--config", config),
        logs(BRIDGE_CONFIG=str(config)),
        logs(BRIDGE_SERVER_LOG_PATH=str(path)),
        logs("--config", tmp_path / "gone.toml", BRIDGE_SERVER_LOG_PATH=str(path)),
    ):
        assert row().id in done.stdout, done.stderr
    config.write_text("[server]\n")
    assert "names no log" in logs("--config", config).stderr


@pytest.mark.parametrize(
    ("text", "statuses"), [("200", [200]), ("5xx", list(range(500, 600))), ("4XX", list(range(400, 500)))]
)
def test_a_status_is_one_or_all_of_a_hundred(text: str, statuses: list[int]) -> None:
    assert list(filters._statuses(text)) == statuses
