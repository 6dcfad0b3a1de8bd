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


def test_amounts_are_summed_by_budget_and_window(file: SpendFile):
    file.add([spent("a", 10, 1.0), spent("b", 10, 5.0)], now_s=10 * HOUR_S)
    file.add([spent("a", 10, 0.5), spent("a", 11, 2.0)], now_s=10 * HOUR_S)
    file.close()
    pages = file.load(now_s=10 * HOUR_S)
    assert pages == [(("a", 10), 1.5), (("a", 11), 2.0), (("b", 10), 5.0)]


def test_expired_windows_are_neither_read_nor_kept(file: SpendFile):
    file.add([spent("a", 10, 1.0), spent("a", 11, 2.0)], now_s=11 * HOUR_S)
    assert file.load(now_s=12 * HOUR_S - 1) == [(("a", 10), 1.0), (("a", 11), 2.0)]
    assert file.load(now_s=12 * HOUR_S) == [(("a", 11), 2.0)]
    file.add([spent("b", 12, 1.0)], now_s=12 * HOUR_S)
    assert file.load(now_s=0) == [(("b", 12), 1.0), (("a", 11), 2.0)]


def test_the_largest_windows_are_read_if_memory_cannot_hold_all(file: SpendFile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spend_file, "MAX_WINDOWS", 2)
    file.add([spent("a", 10, 1.0), spent("b", 10, 3.0), spent("c", 10, 2.0)], now_s=10 * HOUR_S)
    assert file.load(now_s=10 * HOUR_S) == [(("c", 10), 2.0), (("b", 10), 3.0)]


def test_loading_a_missing_file_returns_nothing_and_creates_nothing(file: SpendFile, tmp_path: Path):
    assert file.load(now_s=0) == []
    assert not list(tmp_path.iterdir())


def test_late_damage_loses_none_of_the_new_amounts(file: SpendFile, tmp_path: Path):
    path = tmp_path / "spent.db"
    file.add([spent("a", 10, 1.0)], now_s=10 * HOUR_S)
    file.close()
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 8192)
    file.add([spent("b", 10, 2.0)], now_s=10 * HOUR_S)
    assert file.load(now_s=10 * HOUR_S) == [(("b", 10), 2.0)]
