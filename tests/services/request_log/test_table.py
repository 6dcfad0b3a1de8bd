"""Test the table in a real file: inserts, deletions and other processes."""

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bridge.services.request_log.damage import LogUnusable
from bridge.services.request_log.schema import APPLICATION_ID, MIGRATIONS, VERSION, LogRow
from bridge.services.request_log.table import MAX_DELETED_ROWS, RequestTable, RowBound
from tests.support.commands import environment
from tests.support.log_rows import row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[RequestTable]:
    with closing(RequestTable(path)) as log:
        yield log


def query_rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def ids(path: Path) -> list[object]:
    return [found for (found,) in query_rows(path, "SELECT id FROM requests ORDER BY seq")]


def counted(path: Path) -> dict[object, object]:
    return dict(query_rows(path, "SELECT gateway, rows FROM kept"))  # type: ignore[arg-type]  # rows of two


def test_a_row_is_read_as_it_was_written(log: RequestTable, path: Path) -> None:
    complete = row(metadata='{"a":1}', request_head=b"\x00\xff", reason="why")
    log.append([complete], {})
    assert query_rows(path, f"SELECT {', '.join(LogRow._fields)} FROM requests") == [tuple(complete)]


@pytest.mark.parametrize(("source", "custom"), [("custom", 1), ("prices", 0), (None, 0)])
def test_a_custom_cost_is_a_column(log: RequestTable, path: Path, source: str | None, custom: int) -> None:
    log.append([row(cost_source=source)], {})
    assert query_rows(path, "SELECT custom_cost FROM requests") == [(custom,)]


def test_only_the_owner_can_read_a_new_file(log: RequestTable, path: Path) -> None:
    log.append([row()], {})
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}


def test_a_batch_with_an_invalid_row_changes_nothing(log: RequestTable, path: Path) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        log.append([row(1), row(2), row(1)], {})
    assert (ids(path), counted(path)) == ([], {})
    log.append([row(1)], {})
    assert counted(path) == {"gateway": 1}


def test_a_full_gateway_that_stops_adds_no_row(log: RequestTable, path: Path) -> None:
    bounds = {"small": RowBound(2, stops=True), "gateway": RowBound()}
    rows = [row(n, gateway="small" if n % 2 else "gateway") for n in range(8)]
    assert log.append(rows, bounds) == {"small": 2}
    assert log.append([row(9, gateway="small")], bounds) == {"small": 1}
    assert counted(path) == {"small": 2, "gateway": 4}


def test_the_oldest_rows_of_a_full_gateway_are_deleted_in_small_steps(log: RequestTable, path: Path) -> None:
    log.append([row(n) for n in range(MAX_DELETED_ROWS + 12)], {})
    log.append([row(5000, gateway="other")], {})
    assert log.delete_oldest("gateway", 10)
    assert counted(path) == {"gateway": 12, "other": 1}
    assert not log.delete_oldest("gateway", 10)
    assert ids(path) == [row(n).id for n in range(MAX_DELETED_ROWS + 2, MAX_DELETED_ROWS + 12)] + [row(5000).id]


def test_old_rows_of_all_gateways_are_deleted(log: RequestTable, path: Path) -> None:
    log.append([row(n, gateway="ab"[n % 2]) for n in range(6)], {})
    assert not log.delete_before(row(4).id)
    assert (ids(path), counted(path)) == ([row(4).id, row(5).id], {"a": 1, "b": 1})
    assert not log.delete_before(row(9).id)
    assert counted(path) == {}


def test_a_moved_file_is_detected(log: RequestTable, path: Path) -> None:
    assert not log.is_replaced()
    path.rename(path.with_name("kept.db"))
    assert log.is_replaced()
    with closing(RequestTable(path)):
        assert log.is_replaced()


def test_a_file_of_the_first_version_gets_its_new_columns(path: Path) -> None:
    with closing(sqlite3.connect(path)) as first:
        first.executescript(MIGRATIONS[0])
        first.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1")
    with closing(RequestTable(path)) as log:
        log.append([row(closed_by="client", close_code=1000)], {})
    assert query_rows(path, "SELECT id, closed_by, close_code FROM requests") == [(row().id, "client", 1000)]


def test_an_earlier_schema_is_brought_up_to_date_with_its_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(RequestTable(path)) as log:
        log.append([row()], {})
    later = "ALTER TABLE requests ADD COLUMN more TEXT"
    monkeypatch.setattr("bridge.services.request_log.database.MIGRATIONS", (*MIGRATIONS, later))
    monkeypatch.setattr("bridge.services.request_log.database.VERSION", VERSION + 1)
    RequestTable(path).close()
    assert query_rows(path, "SELECT id, more FROM requests") == [(row().id, None)]
    assert query_rows(path, "PRAGMA user_version") == [(VERSION + 1,)]


def _newer(path: Path) -> None:
    RequestTable(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE things (name TEXT)")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_newer, f"written by a newer bridge (schema 99; this version supports {VERSION})"),
        (_of_another_program, "is a database but not a request log"),
        (lambda path: path.write_bytes(b"no database, " * 100), "file is not a database"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.parent.joinpath("gone").symlink_to(path) or path.symlink_to(path.parent / "gone"), "symb"),
    ],
    ids=["newer", "another program's", "no database", "a folder", "a circle of links"],
)
def test_a_foreign_file_is_refused_and_unchanged(path: Path, make, why: str) -> None:  # type: ignore[no-untyped-def]  # a lambda
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(LogUnusable, match=str(path)) as refused:
        RequestTable(path)
    assert why in str(refused.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


WRITER = """
import sys
from pathlib import Path
from bridge.services.request_log.table import RequestTable
from tests.support.log_rows import row
log = RequestTable(Path(sys.argv[1]))
first = int(sys.argv[2])
for batch in range(40):
    log.append([row(first + batch * 10 + n) for n in range(10)], {})
    log.delete_oldest("gateway", 300)
log.close()
"""


def test_two_processes_on_one_file_keep_correct_counts(path: Path) -> None:
    """Both processes start at the same time, without an existing file."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, str(first)], env=environment(), stderr=subprocess.PIPE)
        for first in (0, 100_000)
    ]
    assert [(writer.communicate(timeout=60)[1], writer.returncode) for writer in writers] == [(b"", 0)] * 2
    rows = len(ids(path))
    assert 300 <= rows <= 310
    assert counted(path) == {"gateway": rows}


def test_a_row_keeps_its_place_after_all_older_ones_were_deleted(log: RequestTable, path: Path) -> None:
    log.append([row(1)], {})
    log.delete_before(row(2).id)
    log.append([row(3)], {})
    assert query_rows(path, "SELECT seq FROM requests") == [(2,)]


# Shares.


def kept_by(path: Path) -> dict[object, object]:
    """Return the number of rows of each token; an exclamation mark marks refused events."""
    by_token = "SELECT token || CASE refused WHEN 1 THEN '!' ELSE '' END AS whose, count(*) FROM requests GROUP BY 1"
    counted_by_hand = dict(query_rows(path, by_token))  # type: ignore[arg-type]  # rows of two
    shares = "SELECT token || CASE refused WHEN 1 THEN '!' ELSE '' END, rows FROM shares"
    assert counted_by_hand == dict(query_rows(path, shares))  # type: ignore[arg-type]  # rows of two
    return counted_by_hand


def tidy(log: RequestTable, most: int) -> None:
    while log.delete_oldest("gateway", most):
        pass


def test_refused_events_displace_no_other_rows(log: RequestTable, path: Path) -> None:
    log.append([row(n, token="quiet") for n in range(50)], {})
    for start in range(1000, 14_000, 1000):
        log.append([row(start + n, token="hostile", refused=True, success=False) for n in range(1000)], {})
        tidy(log, 100)
    assert kept_by(path) == {"quiet": 50, "hostile!": 50}
    log.append([row(20_000 + n, token="busy") for n in range(60)], {})
    tidy(log, 100)
    assert kept_by(path) == {"quiet": 40, "busy": 50, "hostile!": 10}


def test_the_token_with_most_rows_displaces_its_own_rows(log: RequestTable, path: Path) -> None:
    log.append([row(n, token="quiet") for n in range(50)], {})
    log.append([row(1000 + n, token="busy") for n in range(5000)], {})
    tidy(log, 100)
    assert kept_by(path) == {"quiet": 50, "busy": 50}
    assert ids(path)[-1] == row(5999).id


def test_rows_deleted_for_their_age_leave_the_shares(log: RequestTable, path: Path) -> None:
    log.append([row(n, token="ab"[n % 2], refused=n < 2) for n in range(6)], {})
    log.delete_before(row(4).id)
    assert kept_by(path) == {"a": 1, "b": 1}


def test_a_full_log_that_stops_has_room_for_another_token(log: RequestTable, path: Path) -> None:
    bounds = {"gateway": RowBound(10, stops=True, is_shared=True)}
    assert log.append([row(n, token="busy") for n in range(20)], bounds) == {"gateway": 15}
    assert log.append([row(100 + n, token="quiet") for n in range(3)], bounds) == {}
    assert log.append([row(200 + n, token="quiet", refused=True) for n in range(3)], bounds) == {"gateway": 2}
    assert kept_by(path) == {"busy": 5, "quiet": 3, "quiet!": 1}


def test_wrong_shares_of_an_earlier_version_do_not_exceed_the_bound(log: RequestTable, path: Path) -> None:
    log.append([row(n, token="a") for n in range(20)], {})
    with closing(sqlite3.connect(path)) as earlier:
        earlier.execute("UPDATE shares SET rows = 3, token = 'gone'")
        earlier.commit()
    tidy(log, 10)
    assert (len(ids(path)), counted(path)) == (10, {"gateway": 10})
    log.append([row(100 + n, token="a") for n in range(20)], {})
    tidy(log, 10)
    assert len(ids(path)) == 10


def test_a_file_of_the_second_version_has_its_rows_counted_by_token(path: Path) -> None:
    with closing(sqlite3.connect(path)) as second:
        second.executescript("".join(MIGRATIONS[:2]))
        second.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 2")
        old = row(token="a")._asdict()
        del old["refused"]
        second.execute(f"INSERT INTO requests ({', '.join(old)}) VALUES ({', '.join('?' * len(old))})", [*old.values()])
        second.commit()
    RequestTable(path).close()
    assert kept_by(path) == {"a": 1}
