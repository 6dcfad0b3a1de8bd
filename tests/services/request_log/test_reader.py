"""Test filters and order of rows, also while other processes write."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bridge.services.request_log.damage import LogUnusable
from bridge.services.request_log.reader import PAGE_ROWS, LogFilter, RequestReader, rate
from bridge.services.request_log.table import RequestTable
from tests.support.log_rows import BEGAN_MS, row

ALL = LogFilter()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log?.db"  # a name that a URI has to spell otherwise


@pytest.fixture
def log(path: Path) -> Iterator[RequestTable]:
    with closing(RequestTable(path)) as log:
        yield log


def test_the_newest_rows_are_sorted_by_begin(log: RequestTable, path: Path) -> None:
    log.append([row(3), row(1), row(2)], {})
    with RequestReader(path) as reader:
        assert [each["id"] for each in reader.newest(ALL, 2)] == [row(2).id, row(3).id]


def test_bodies_are_read_only_on_request(log: RequestTable, path: Path) -> None:
    log.append([row(request_head="{}", response_head=b"\xff")], {})
    with RequestReader(path) as reader:
        (listed,) = reader.newest(ALL, 1)
        whole = reader.row(row().id)
    assert "request_head" not in listed
    assert whole
    assert (whole["request_head"], whole["response_head"]) == ("{}", b"\xff")


def test_a_missing_row_is_none(log: RequestTable, path: Path) -> None:
    with RequestReader(path) as reader:
        assert reader.row("no such") is None
        assert reader.last_seq() == 0


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (LogFilter(gateway="b"), {1}),
        (LogFilter(provider="anthropic"), {2}),
        (LogFilter(model="claude"), {2}),
        (LogFilter(status=range(400, 500)), {3}),
        (LogFilter(status=range(429, 430)), {3}),
        (LogFilter(status=range(500, 600)), set()),
        (LogFilter(success=False), {3}),
        (LogFilter(success=True), {0, 1, 2}),
        (LogFilter(since_ms=BEGAN_MS + 2), {2, 3}),
        (LogFilter(metadata={"team": "search"}), {0, 1}),
        (LogFilter(metadata={"team": "search", "paid": "true"}), {1}),
        (LogFilter(metadata={"seat": "7"}), {1}),
        (LogFilter(metadata={'a"]': "x"}), {2}),
        (LogFilter(metadata={"team": "SEARCH"}), set()),
        (LogFilter(gateway="b", success=False), set()),
    ],
    ids=lambda value: str(value),
)
def test_a_filter_requires_all_its_conditions(
    log: RequestTable, path: Path, wanted: LogFilter, found: set[int]
) -> None:
    rows = [
        row(0, metadata='{"team":"search","paid":false}'),
        row(1, gateway="b", metadata='{"team":"search","paid":true,"seat":7}'),
        row(2, provider="anthropic", model="claude", metadata='{"a\\"]":"x"}'),
        row(3, status_code=429, success=False),
    ]
    log.append(rows, {})
    with RequestReader(path) as reader:
        assert {each["id"] for each in reader.newest(wanted, 9)} == {rows[at].id for at in found}
        assert {each["id"] for each in reader.rows(wanted, None)} == {rows[at].id for at in found}
        assert {each["id"] for each in reader.rows_between(0, 9, wanted)} == {rows[at].id for at in found}


def test_more_than_a_page_is_read_page_by_page_and_stops_where_it_should(log: RequestTable, path: Path) -> None:
    many = 2 * PAGE_ROWS + 7
    log.append([row(n) for n in range(many)], {})
    with RequestReader(path) as reader:
        assert [each["seq"] for each in reader.rows(ALL, None)] == list(range(1, many + 1))
        assert [each["seq"] for each in reader.rows(ALL, PAGE_ROWS + 1)] == list(range(1, PAGE_ROWS + 2))
        assert [each["seq"] for each in reader.rows_between(3, many - 2, ALL)] == list(range(4, many - 1))


def test_a_reader_sees_what_is_written_while_it_reads_and_keeps_nobody_from_writing(
    log: RequestTable, path: Path
) -> None:
    log.append([row(n) for n in range(PAGE_ROWS)], {})
    with RequestReader(path) as reader:
        rows = reader.rows(ALL, None)
        next(rows)
        log.append([row(PAGE_ROWS + 1)], {})
        log.delete_before(row(10).id)
        assert [each["id"] for each in rows][-1] == row(PAGE_ROWS + 1).id


def test_a_rating_is_written_to_its_row_while_the_log_is_open(log: RequestTable, path: Path) -> None:
    log.append([row(1), row(2)], {})
    assert rate(path, row(1).id, {"score": 87.5, "feedback": -1})
    assert not rate(path, "no such", {"score": 1})
    with RequestReader(path) as reader:
        assert [(each["score"], each["feedback"]) for each in reader.newest(ALL, 2)] == [(87.5, -1), (None, None)]


def test_a_log_that_nobody_writes_is_read_where_nothing_may_be_written(path: Path) -> None:
    with closing(RequestTable(path)) as log:
        log.append([row()], {})
    for each in path.parent.iterdir():
        each.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        with RequestReader(path) as reader:
            assert len(reader.newest(ALL, 9)) == 1
    finally:
        path.parent.chmod(0o700)


def test_a_column_of_a_later_version_is_read_as_well(log: RequestTable, path: Path) -> None:
    log.append([row()], {})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE requests ADD COLUMN more TEXT DEFAULT 'x'")
    with RequestReader(path) as reader:
        assert reader.newest(ALL, 1)[0]["more"] == "x"


def test_an_unreadable_file_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(LogUnusable, match=r"gone\.db: no such file"):
        RequestReader(tmp_path / "gone.db")
    (tmp_path / "text.db").write_text("no database, " * 100)
    with pytest.raises(LogUnusable, match=r"text\.db: file is not a database"):
        RequestReader(tmp_path / "text.db")
    with pytest.raises(LogUnusable, match="no such file"):
        rate(tmp_path / "gone.db", "id", {"score": 1})
