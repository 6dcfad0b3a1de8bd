"""The file that keeps what budgets have spent."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bridge.services.limits import spend_file
from bridge.services.limits.spend_file import SpendFile, Spent

HOUR_S = 3600


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SpendFile]:
    with closing(SpendFile(tmp_path / "spent.db")) as one:
        yield one


def spent(budget: str, window: int, usd: float) -> Spent:
    return Spent((budget, window), HOUR_S, usd)


def test_what_is_added_is_summed_up_by_purse_and_window(file: SpendFile):
    file.add([spent("a", 10, 1.0), spent("b", 10, 5.0)], now_s=10 * HOUR_S)
    file.add([spent("a", 10, 0.5), spent("a", 11, 2.0)], now_s=10 * HOUR_S)
    file.close()
    pages = file.load(now_s=10 * HOUR_S)
    assert pages == [(("a", 10), 1.5), (("a", 11), 2.0), (("b", 10), 5.0)]


def test_windows_that_count_no_more_are_neither_read_nor_kept(file: SpendFile):
    file.add([spent("a", 10, 1.0), spent("a", 11, 2.0)], now_s=11 * HOUR_S)
    assert file.load(now_s=12 * HOUR_S - 1) == [(("a", 10), 1.0), (("a", 11), 2.0)]
    assert file.load(now_s=12 * HOUR_S) == [(("a", 11), 2.0)]
    file.add([spent("b", 12, 1.0)], now_s=12 * HOUR_S)
    assert file.load(now_s=0) == [(("b", 12), 1.0), (("a", 11), 2.0)]


def test_of_more_pages_than_memory_holds_the_largest_are_read(file: SpendFile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spend_file, "MAX_WINDOWS", 2)
    file.add([spent("a", 10, 1.0), spent("b", 10, 3.0), spent("c", 10, 2.0)], now_s=10 * HOUR_S)
    assert file.load(now_s=10 * HOUR_S) == [(("c", 10), 2.0), (("b", 10), 3.0)]


def test_a_file_that_is_not_there_holds_nothing_and_is_not_made(file: SpendFile, tmp_path: Path):
    assert file.load(now_s=0) == []
    assert not list(tmp_path.iterdir())


def test_damage_that_shows_up_later_loses_nothing_of_what_is_added(file: SpendFile, tmp_path: Path):
    path = tmp_path / "spent.db"
    file.add([spent("a", 10, 1.0)], now_s=10 * HOUR_S)
    file.close()
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 8192)
    file.add([spent("b", 10, 2.0)], now_s=10 * HOUR_S)
    assert file.load(now_s=10 * HOUR_S) == [(("b", 10), 2.0)]
