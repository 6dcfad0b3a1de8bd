"""Damaged files, transient faults and files that are not request logs are distinguished."""

import errno
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.services.request_log.damage import (
    LogDamaged,
    LogFaulty,
    LogUnusable,
    from_os_error,
    identity,
    is_damage,
    set_aside,
)
from bridge.services.request_log.table import RequestTable
from tests.support.log_rows import row

NOW = datetime(2026, 11, 28, 13, 5, 1, 250_000, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def write_log(path: Path) -> None:
    with closing(RequestTable(path)) as log:
        log.append([row(n, request_head="x" * 10_000) for n in range(50)], {})


def damage(path: Path, where: slice, with_: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[where] = with_ * len(data[where])
    path.write_bytes(data)


DAMAGES = {
    "zeros in place of all": lambda path: damage(path, slice(None), b"\0"),
    "a header of zeros": lambda path: damage(path, slice(0, 4096), b"\0"),
    "a first page of noise": lambda path: damage(path, slice(100, 16_384), b"\xa5"),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 64),
}


@pytest.mark.parametrize("do_damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_recognised(do_damage, path: Path) -> None:  # type: ignore[no-untyped-def]  # a lambda
    write_log(path)
    do_damage(path)
    with pytest.raises(LogDamaged, match=r"log\.db") as damaged:
        RequestTable(path)
    assert is_damage(damaged.value)


def test_a_text_file_is_not_a_damaged_log(path: Path) -> None:
    path.write_text('[server]\nlog_path = "log.db"  # größer\n' * 500)
    with pytest.raises(LogUnusable) as refused:
        RequestTable(path)
    assert not isinstance(refused.value, LogFaulty)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY])
def test_a_transient_fault_is_not_damage(code: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = sqlite3.OperationalError("it may pass")
    error.sqlite_errorcode = code | 0x100  # type: ignore[misc]  # an extended code, as SQLite gives it

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("bridge.services.request_log.database.sqlite3.connect", fail)
    with pytest.raises(LogFaulty) as faulty:
        RequestTable(path)
    assert not is_damage(faulty.value)
    assert not is_damage(error)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, LogFaulty), (errno.EDQUOT, LogFaulty), (errno.EACCES, LogUnusable)]
)
def test_a_full_disk_is_transient_and_a_wrong_path_is_not(number: int, kind: type, path: Path) -> None:
    assert type(from_os_error(path, OSError(number, "why"))) is kind


def test_a_file_is_set_aside_with_its_write_ahead_log(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).write_text(suffix)
    assert set_aside(path, identity(path), NOW) == path.with_name("log.db.damaged-2026-11-28T130501.250000Z")
    found = {each.name: each.read_text() for each in path.parent.iterdir()}
    assert found == {
        "log.db.damaged-2026-11-28T130501.250000Z": "",
        "log.db.damaged-2026-11-28T130501.250000Z-wal": "-wal",
    }


def test_a_file_replaced_by_another_process_is_not_renamed(path: Path) -> None:
    path.write_text("damaged")
    damaged = identity(path)
    path.rename(path.with_name("set aside"))
    path.write_text("new")
    assert set_aside(path, damaged, NOW) is None
    assert set_aside(path, None, NOW) is None
    assert path.read_text() == "new"
