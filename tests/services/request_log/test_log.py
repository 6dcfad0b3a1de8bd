"""Test the request log with a real file: events become rows, and a faulty disk delays no event."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bridge.protocol.ids import uuid7
from bridge.relay.summary import BodyPreviews, EventSummary
from bridge.services.request_log import log as request_log
from bridge.services.request_log.damage import LogUnusable
from bridge.services.request_log.log import QueueBounds
from bridge.services.request_log.writer import RequestLogWriter
from bridge.settings.step import StepSettings
from tests.support.clock import until
from tests.support.summaries import event_summary

NOISE = bytes(range(256)) * 64
DAY_NS = 86_400 * 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all delays."""
    monkeypatch.setattr("bridge.services.request_log.database.BUSY_S", 0.001)
    monkeypatch.setattr("bridge.services.request_log.writer.RETRY_S", 0.001)
    monkeypatch.setattr("bridge.services.request_log.log.LINGER_S", 0.001)


@pytest.fixture
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Another connection, which can lock the file; the fixture closes it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        yield other


def event(number: int, **changes: Any) -> EventSummary:
    now_ns = time.time_ns()
    return event_summary(
        **{"log_id": uuid7(now_ns // 10**6, number), "created_at_ns": now_ns, "event_id": number, **changes}
    )


def kept(path: Path, gateway: str = "gateway") -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT event_id FROM requests WHERE gateway = ? ORDER BY seq", (gateway,))
        return [int(number) for (number,) in rows]


def kept_by_now(path: Path) -> list[int]:
    """Return the rows like `kept`, for a file that may be replaced at the same time."""
    try:
        return kept(path)
    except sqlite3.DatabaseError:  # it is empty yet, or about to be replaced
        return []


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "bridge.requests"]


async def test_every_event_has_a_row_after_close(path: Path) -> None:
    async with request_log.open_request_log(path, 0) as log:
        for number in range(2000):
            log.on_event_end(event(number))
    assert kept(path) == list(range(2000))
    assert (log.dropped, log.waiting) == (0, 0)


async def test_a_single_event_is_written_before_close(path: Path) -> None:
    async with request_log.open_request_log(path, 0) as log:
        log.on_event_end(event(1))
        await until(lambda: kept(path) == [1])


async def test_an_event_with_collect_log_off_gets_no_row(path: Path) -> None:
    async with request_log.open_request_log(path, 0) as log:
        log.on_event_end(event(1, settings=StepSettings(collect_log=False)))
        log.on_event_end(event(2))
    assert kept(path) == [2]


async def test_rows_wait_for_a_locked_file_which_is_logged_once(
    path: Path, locked: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with request_log.open_request_log(path, 0) as log:
        locked.execute("BEGIN IMMEDIATE")
        log.on_event_end(event(1))
        await until(lambda: logged(caplog))
        for number in range(2, 10):
            log.on_event_end(event(number))
        await asyncio.to_thread(time.sleep, 0.05)  # many a try of the writer's
        assert len(logged(caplog)) == 1
        locked.execute("ROLLBACK")
        await until(lambda: kept(path) == list(range(1, 10)))
    failed, recovered = logged(caplog)
    assert "cannot be written" in failed
    assert "database is locked" in failed
    assert "written again" in recovered
    assert log.dropped == 0


@pytest.mark.parametrize(
    "bounds", [QueueBounds(rows=5), QueueBounds(bytes=5 * 24_500)], ids=["too many rows", "too many bytes"]
)
async def test_events_beyond_the_bounds_are_dropped_and_counted(
    path: Path, locked: sqlite3.Connection, bounds: QueueBounds
) -> None:
    body = b"x" * 10_000
    async with request_log.open_request_log(path, 0, bounds) as log:
        locked.execute("BEGIN IMMEDIATE")
        log.on_event_end(event(0))
        await until(lambda: log.waiting == 0)  # the thread has it in its hands
        for number in range(1, 20):
            log.on_event_end(event(number, bodies=BodyPreviews(body, body)))
        assert 3 <= log.waiting <= 5
        lost = log.dropped
        assert lost == 19 - log.waiting
        locked.execute("ROLLBACK")
        await until(lambda: log.waiting == 0)
        log.on_event_end(event(99))
    assert kept(path) == [*range(20 - lost), 99]
    assert log.dropped == lost


async def test_refused_events_fill_at_most_a_tenth_of_the_queue(path: Path, locked: sqlite3.Connection) -> None:
    async with request_log.open_request_log(path, 0, QueueBounds(rows=30)) as log:
        locked.execute("BEGIN IMMEDIATE")
        log.on_event_end(event(0))
        await until(lambda: log.waiting == 0)  # the thread has it in its hands
        for number in range(1, 20):
            log.on_event_end(event(number, token="hostile", success=False, added_ms=None))
        log.on_event_end(event(20, token="quiet"))
        locked.execute("ROLLBACK")
        await until(lambda: log._refused_in == log._refused_out)
        log.on_event_end(event(21, success=False, added_ms=None))
    assert kept(path) == [0, 1, 2, 3, 20, 21]
    assert log.dropped == 16


async def test_a_slow_disk_and_its_recovery_are_logged_once(
    path: Path, locked: sqlite3.Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.services.request_log.database.BUSY_S", 60)  # it is no failure to wait for the other
    async with request_log.open_request_log(path, 0, QueueBounds(rows=3)) as log:
        locked.execute("BEGIN IMMEDIATE")
        for number in range(20):
            log.on_event_end(event(number))
        [slow] = logged(caplog)
        assert "too slowly" in slow
        locked.execute("ROLLBACK")
        await until(lambda: len(logged(caplog)) == 2)
    _, recovered, total = logged(caplog)
    assert "again" in recovered
    assert total.startswith(f"{log.dropped} events")
    assert log.dropped == 20 - len(kept(path)) > 0


async def test_rows_wait_while_the_disk_is_full(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    body = b"y" * 60_000
    async with request_log.open_request_log(path, 0) as log:
        assert log._writer._file is not None
        log._writer._file._connection.execute("PRAGMA max_page_count = 10")  # SQLite's own way to run out of room
        log.on_event_end(event(1, bodies=BodyPreviews(body, body)))
        log.on_event_end(event(2, bodies=BodyPreviews(body, body)))
        await until(lambda: kept(path) == [1, 2])  # it opens the file anew, and that has room
    failed, recovered = logged(caplog)
    assert "disk is full" in failed
    assert "written again" in recovered


def full_disk(*_: object, **__: object) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL  # type: ignore[misc]  # as SQLite gives it
    raise error


async def test_a_start_on_a_full_disk_writes_rows_once_there_is_space(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr("bridge.services.request_log.database.sqlite3.connect", full_disk)
        opening = request_log.open_request_log(path, 0)
        log = await opening.__aenter__()
        log.on_event_end(event(1))
        await until(lambda: log._writer.faults > 2)
    await until(lambda: kept_by_now(path) == [1])
    await opening.__aexit__(None, None, None)
    assert (log.dropped, log._writer.is_failing) == (0, False)
    failed, recovered = logged(caplog)
    assert "cannot be written" in failed
    assert "written again" in recovered
    assert next(record for record in caplog.records if record.name == "bridge.requests").levelno == logging.ERROR
    assert {name: value for name, _, value in log.samples()}["bridge_log_faults_total"] > 2


@pytest.fixture
def damaged(path: Path) -> Path:
    path.write_bytes(NOISE)
    return path


async def test_a_damaged_log_is_set_aside_at_the_start_and_a_new_one_is_begun(
    damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = damaged
    async with request_log.open_request_log(path, 0) as log:
        log.on_event_end(event(1))
    assert (kept(path), log.dropped, log._writer.faults) == ([1], 0, 1)
    [aside] = path.parent.glob("log.db.damaged-*")
    assert aside.read_bytes() == NOISE
    [line] = logged(caplog)
    assert str(aside) in line


def overwrite(path: Path) -> None:
    """Overwrite everything except the header."""
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (path.stat().st_size - 100))


@pytest.mark.parametrize("at_its_end", [False, True])
async def test_a_log_that_is_damaged_later_is_set_aside_and_a_new_one_is_begun(
    path: Path, at_its_end: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with request_log.open_request_log(path, 0) as log:
        log.on_event_end(event(1))
        await until(lambda: kept(path) == [1])
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        overwrite(path)
        log._writer._file._connection.execute("PRAGMA shrink_memory")  # type: ignore[union-attr]  # forget its pages
        log.on_event_end(event(2))
        if not at_its_end:
            await until(lambda: kept_by_now(path) == [2])
    assert (kept(path), log.dropped) == ([2], 0)
    [aside] = path.parent.glob("log.db.damaged-*[Z]")
    assert any(str(aside) in line for line in logged(caplog))


def test_on_a_disk_that_damages_each_new_file_only_one_a_minute_is_set_aside(path: Path) -> None:
    path.write_bytes(NOISE)
    writer = RequestLogWriter(path)
    writer.closing.set()  # what fails is not tried again
    for number in range(3):
        writer.close()
        writer._file = None
        path.write_bytes(NOISE)
        writer.write([event(number)])
    assert (writer.is_failing, writer.lost) == (True, 3)
    assert len(list(path.parent.glob("log.db.damaged-*"))) == 1


async def test_a_moved_log_is_replaced_by_a_new_one(path: Path) -> None:
    async with request_log.open_request_log(path, 0) as log:
        log.on_event_end(event(1))
        await until(lambda: kept(path) == [1])
        for each in list(path.parent.iterdir()):
            each.rename(each.with_name("old-" + each.name))
        log.on_event_end(event(2))
    assert kept(path) == [2]
    assert kept(path.with_name("old-log.db")) == [1]


async def test_a_log_that_cannot_write_still_closes_and_counts_drops(
    path: Path, locked: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with request_log.open_request_log(path, 0) as log:
        locked.execute("BEGIN IMMEDIATE")
        for number in range(3):
            log.on_event_end(event(number))
    locked.execute("ROLLBACK")
    assert (kept(path), log.dropped) == ([], 3)
    assert logged(caplog)[-1].startswith("3 events have no row")


async def test_an_invalid_row_does_not_affect_others(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with request_log.open_request_log(path, 0) as log:
        log.on_event_end(event(1))
        log.on_event_end(event(2, account="half\udcff"))
        log.on_event_end(event(3, request_bytes=1 << 70))
        log.on_event_end(event(4, bodies=BodyPreviews("no bytes", b"")))  # type: ignore[arg-type]  # that is the test
        log.on_event_end(event(5))
    assert kept(path) == [1, 2, 5]
    assert log.dropped == 2
    first, total = logged(caplog)
    assert "gets no row" in first
    assert total.startswith("2 events have no row")


async def test_a_gateway_that_deletes_old_rows_keeps_its_bound(path: Path) -> None:
    async with request_log.open_request_log(path, 0) as log:
        for number in range(1500):
            log.on_event_end(event(number, log_rows=100))
            log.on_event_end(event(number, gateway="other", log_id=uuid7(number, number)))
    assert kept(path) == list(range(1400, 1500))
    assert len(kept(path, "other")) == 1500


async def test_a_gateway_that_stops_keeps_its_first_rows_and_logs_it_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with request_log.open_request_log(path, 0) as log:
        for number in range(1000):
            log.on_event_end(event(number, log_rows=10, log_strategy="STOP_INSERTING"))
    assert kept(path) == list(range(10))
    [line] = logged(caplog)
    assert "gateway gateway is full (10 rows)" in line
    assert log.dropped == 0  # it is as was asked for


async def test_rows_are_kept_for_so_many_days(path: Path) -> None:
    old_ns = time.time_ns() - 3 * DAY_NS
    async with request_log.open_request_log(path, 0) as log:
        log.on_event_end(event(1, log_id=uuid7(old_ns // 10**6, 1), created_at_ns=old_ns))
        log.on_event_end(event(2))
    assert kept(path) == [1, 2]
    async with request_log.open_request_log(path, 4) as log:
        log.on_event_end(event(3))
    assert kept(path) == [1, 2, 3]
    async with request_log.open_request_log(path, 2) as log:
        log.on_event_end(event(4))
    assert kept(path) == [2, 3, 4]


async def test_two_logs_can_share_one_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.services.request_log.database.BUSY_S", 60)
    async with request_log.open_request_log(path, 0) as one, request_log.open_request_log(path, 0) as other:
        for number in range(1000):
            one.on_event_end(event(number))
            other.on_event_end(event(number, gateway="other", log_id=uuid7(number, number)))
    assert (kept(path), kept(path, "other")) == (list(range(1000)), list(range(1000)))


async def test_a_closed_log_takes_no_event_and_leaves_no_thread(path: Path) -> None:
    async with request_log.open_request_log(path, 0) as log:
        pass
    log.on_event_end(event(1))
    assert not log._queue._thread.is_alive()
    assert kept(path) == []


async def test_a_file_that_is_not_a_log_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(LogUnusable, match="Is a directory"):
        async with request_log.open_request_log(tmp_path, 0):
            raise AssertionError("not reached")


async def test_samples_report_dropped_and_waiting_events(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "bridge.requests")
    async with request_log.open_request_log(path, 0, QueueBounds(rows=0)) as log:
        log.on_event_end(event(1))
        assert list(log.samples()) == [
            ("bridge_log_dropped_total", (), 1),
            ("bridge_log_waiting", (), 0),
            ("bridge_log_faults_total", (), 0),
        ]
