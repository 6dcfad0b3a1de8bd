"""The cache file survives its processes, and a faulty file never delays an event."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from bridge.services.cache import sqlite as sqlite_cache
from bridge.services.cache.sqlite import (
    PAUSE_AFTER_FAULT_S,
    PURGE_S,
    READ_TIMEOUT_S,
    CacheTable,
    SqliteStore,
    open_sqlite_store,
)
from bridge.services.cache.stored import FORMAT_VERSION
from tests.support.clock import advance, until
from tests.support.paths import ROOT
from tests.support.stored_answers import KEYS, of_size, stored

MOST = 1 << 30


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.name == "bridge.cache" for record in caplog.records)


async def test_answers_survive_a_restart(tmp_path: Path) -> None:
    answer = stored(b"a", b"bc", stored_at=time.time())
    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        assert await store.get(KEYS[0]) is None
        store.put(KEYS[0], answer)
        assert await store.get(KEYS[0]) == answer
    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        assert await store.get(KEYS[0]) == answer
        assert store.faults == 0


async def test_stores_on_one_file_share_answers(tmp_path: Path) -> None:
    async with (
        open_sqlite_store(tmp_path / "cache.db", MOST) as one,
        open_sqlite_store(tmp_path / "cache.db", MOST) as other,
    ):
        one.put(KEYS[0], stored(b"first"))
        await one.get(KEYS[0])
        assert await other.get(KEYS[0]) == stored(b"first")
        other.put(KEYS[0], stored(b"second"))
        await other.get(KEYS[0])
        assert await one.get(KEYS[0]) == stored(b"second")


async def test_a_killed_writer_leaves_its_answers_and_an_intact_file(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    for count in (1, 150, 450):
        put = written_before_a_kill(path, count)
        async with open_sqlite_store(path, MOST) as store:
            for number in put:
                found = await store.get(KEYS[number])
                assert found is not None
                assert found.body.startswith(b"%d" % number * 500)
            assert store.faults == 0
        with sqlite3.connect(path) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        database.close()


def written_before_a_kill(path: Path, count: int) -> list[int]:
    """Kill the writer during its writes, and return the numbers of the answers that it reported as put."""
    command = [sys.executable, "-m", "tests.support.cache_writer", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        put = [int(writer.stdout.readline()) for _ in range(count)]
        writer.kill()
    return put


async def test_an_answer_of_another_format_version_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        store.put(KEYS[0], stored())
    monkeypatch.setattr(sqlite_cache, "_KEY_PREFIX", bytes([FORMAT_VERSION + 1]))
    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        assert await store.get(KEYS[0]) is None
        assert store.faults == 0


def test_the_file_keeps_its_bound_and_the_newest_answers(tmp_path: Path) -> None:
    table = CacheTable(tmp_path / "cache.db", 1 << 20)
    for key in KEYS:
        table.put(key, of_size(20_000))
    assert (tmp_path / "cache.db").stat().st_size < 2 << 20
    found = [table.get(key) is not None for key in KEYS]
    assert found == sorted(found)
    assert 30 < sum(found) < 60
    assert table.evictions == found.count(False)
    table.close()


def test_an_answer_larger_than_the_bound_is_evicted(tmp_path: Path) -> None:
    table = CacheTable(tmp_path / "cache.db", 1 << 20)
    table.put(KEYS[0], of_size(2 << 20))
    assert table.get(KEYS[0]) is None
    table.close()


async def test_expired_answers_are_purged_every_minute(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        store.put(KEYS[0], stored(stored_at=time.time() - 30, ttl_s=60))
        store.put(KEYS[1], stored())
        minutes = 0
        while await store.get(KEYS[0]) is not None:
            advance(PURGE_S)
            minutes += 1  # the thread purges in a time of its own
            assert minutes < 1000
        assert minutes > 0
        assert await store.get(KEYS[1]) is not None


async def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        store.put(KEYS[0], stored())
        await store.get(KEYS[0])
        assert {file.name: file.stat().st_mode & 0o077 for file in files_in(tmp_path)} == {
            "cache.db": 0,
            "cache.db-shm": 0,
            "cache.db-wal": 0,
        }


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_missing_folder_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with open_sqlite_store(tmp_path / "nowhere" / "cache.db", MOST):
            pass


async def test_a_file_that_is_not_a_database_counts_as_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache.db").write_text("Dear diary, " * 1000)
    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        store.put(KEYS[0], stored())
        assert await store.get(KEYS[0]) is None
        advance(PAUSE_AFTER_FAULT_S + 1)
        assert await store.get(KEYS[0]) is None
        assert store.faults >= 3
    assert warnings(caplog) == 1
    assert (tmp_path / "cache.db").read_text().startswith("Dear diary, ")


async def test_a_damaged_answer_is_not_found(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        store.put(KEYS[0], stored())
        await store.get(KEYS[0])
        with sqlite3.connect(tmp_path / "cache.db") as database:
            database.execute("UPDATE cached_answers SET answer = x'00'")
        database.close()
        assert await store.get(KEYS[0]) is None
        assert store.faults == 1


def has_faults(store: SqliteStore, count: int) -> bool:
    return store.faults == count


async def test_writes_to_a_locked_file_are_dropped_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        store.put(KEYS[0], stored())
        assert await store.get(KEYS[0]) is not None
        locking = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)
        locking.execute("BEGIN EXCLUSIVE")
        for faults in (1, 2, 3):
            store.put(KEYS[1], stored())
            await until(partial(has_faults, store, faults))
            advance(PAUSE_AFTER_FAULT_S + 1)
        locking.execute("ROLLBACK")
        locking.close()
        assert await store.get(KEYS[0]) is not None
        assert await store.get(KEYS[1]) is None
        store.put(KEYS[1], stored())
        assert await store.get(KEYS[1]) is not None
    assert warnings(caplog) == 1


async def test_a_full_disk_drops_new_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Small(CacheTable):
        def _connect(self) -> sqlite3.Connection:
            connection = super()._connect()
            connection.execute("PRAGMA max_page_count = 32")
            return connection

    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        store._table = Small(tmp_path / "cache.db", MOST)
        store.put(KEYS[0], stored())
        store.put(KEYS[1], of_size(1 << 20))
        assert await store.get(KEYS[0]) is not None
        await until(lambda: store.faults)
        advance(PAUSE_AFTER_FAULT_S + 1)
        assert await store.get(KEYS[0]) is not None
        assert await store.get(KEYS[1]) is None
    assert warnings(caplog) == 1


async def busy(store: SqliteStore) -> threading.Event:
    """Block the thread until the returned event is set."""
    go_on = threading.Event()
    is_busy = threading.Event()
    store._thread.run(lambda: is_busy.set() or go_on.wait())
    await until(is_busy.is_set)
    return go_on


async def test_a_read_from_a_slow_file_times_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        store.put(KEYS[0], stored())
        await store.get(KEYS[0])
        go_on = await busy(store)
        began_at = time.monotonic()
        assert await asyncio.gather(*(store.get(KEYS[0]) for _ in range(5))) == [None] * 5
        assert READ_TIMEOUT_S * 0.9 < time.monotonic() - began_at < 20 * READ_TIMEOUT_S
        assert await store.get(KEYS[0]) is None  # at once: it is left alone
        go_on.set()
        advance(PAUSE_AFTER_FAULT_S + 1)
        assert await store.get(KEYS[0]) is not None
    assert warnings(caplog) == 1


async def test_unwritten_answers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = of_size(10_000)
    monkeypatch.setattr(sqlite_cache, "MAX_UNWRITTEN_BYTES", 3 * answer.size_bytes)
    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        go_on = await busy(store)
        for key in KEYS[:10]:
            store.put(key, answer)
        assert store.faults == 7
        go_on.set()
        assert [await store.get(key) is not None for key in KEYS[:4]] == [True, True, True, False]


async def test_close_leaves_no_thread_and_no_open_file(tmp_path: Path) -> None:
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    async with open_sqlite_store(tmp_path / "cache.db", MOST) as store:
        store.put(KEYS[0], stored())
    await until(lambda: threading.active_count() == before[0])
    assert len(os.listdir("/proc/self/fd")) == before[1]
