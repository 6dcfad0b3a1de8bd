"""Test counters that one process increments and all can read."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.services.metrics.shared_counters import CountersFull, SharedCounters

KEY = ("events", "a gateway's", "ä")

COUNTS_FOR_EVER = """
import sys
from pathlib import Path
from bridge.services.metrics.shared_counters import SharedCounters
tally = SharedCounters(Path(sys.argv[1]))
row = tally.row(("events",), 2)
print("counting", flush=True)
while True:
    row[0] += 1
    row[1] += 1
"""


def seen_by(tally: SharedCounters) -> list[tuple[tuple[str, ...], list[float], bool]]:
    """Return the rows of the other processes."""
    return sorted((key, list(row), is_alive) for key, row, is_alive in tally.others())


def test_a_new_row_is_zeros_and_exists_once() -> None:
    counters = SharedCounters()
    row = counters.row(KEY, 3)
    row[1] += 2
    assert list(counters.row(KEY, 3)) == [0.0, 2.0, 0.0]
    assert [(key, list(row)) for key, row in counters.rows()] == [(KEY, [0.0, 2.0, 0.0])]
    assert seen_by(counters) == []


def test_counts_are_visible_to_other_processes_at_once(tmp_path: Path) -> None:
    one, other = SharedCounters(tmp_path), SharedCounters(tmp_path)
    one.row(KEY, 2)[1] += 5
    other.row(KEY, 2)[0] += 1
    assert seen_by(one) == [(KEY, [1.0, 0.0], True)]
    assert seen_by(other) == [(KEY, [0.0, 5.0], True)]
    one.close()
    other.close()


def test_a_new_process_continues_the_counts_of_an_ended_one(tmp_path: Path) -> None:
    one, other = SharedCounters(tmp_path), SharedCounters(tmp_path)
    one.row(KEY, 1)[0] += 5
    one.close()
    assert seen_by(other) == [(KEY, [5.0], False)]
    following = SharedCounters(tmp_path)
    following.row(KEY, 1)[0] += 1
    assert seen_by(other) == [(KEY, [6.0], True)]
    assert len(list(tmp_path.iterdir())) == 2
    following.close()
    other.close()


def test_counts_survive_a_kill(tmp_path: Path) -> None:
    other = SharedCounters(tmp_path)
    with subprocess.Popen([sys.executable, "-c", COUNTS_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE) as counting:
        assert counting.stdout is not None
        counting.stdout.readline()
        while not any(row[0] > 1000 for _, row, _ in other.others()):
            pass
        [(_, before, is_alive)] = seen_by(other)
        assert is_alive
        os.kill(counting.pid, signal.SIGKILL)
    [(_, after, is_alive)] = seen_by(other)
    assert not is_alive
    assert after[0] >= before[0]
    assert after[0] - after[1] in {0, 1}, "killed between two additions, at most"
    other.close()


def test_a_row_left_unfinished_by_a_kill_is_ignored(tmp_path: Path) -> None:
    one = SharedCounters(tmp_path)
    one.row(("first",), 1)[0] = 1
    [path] = tmp_path.iterdir()
    one.close()
    with path.open("r+b") as file:
        used = int.from_bytes(file.read(8), sys.byteorder)
        file.seek(used)
        file.write(b"\x40" * 256)
    following = SharedCounters(tmp_path)
    assert list(following.row(("second",), 4)) == [0.0] * 4
    assert [key for key, _ in following.rows()] == [("first",), ("second",)]
    following.close()


def test_the_number_of_rows_is_bounded() -> None:
    counters = SharedCounters(max_rows=2)
    for each in "ab":
        counters.row((each,), 1)
    with pytest.raises(CountersFull):
        counters.row(("c",), 1)
    assert counters.row(("a",), 1)[0] == 0


def test_the_maximal_number_of_rows_fits() -> None:
    counters = SharedCounters()
    for each in range(8192):
        counters.row(("bridge_duration_seconds", "g" * 64, f"custom-{each:060}", "answered"), 60)
    with pytest.raises(CountersFull):
        counters.row(("one more",), 1)
