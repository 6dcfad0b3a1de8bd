"""Memory budgets and reservations: counted in the budget and its parent, bounded, and released."""

import pytest

from bridge.errors import OutOfMemoryBudget
from bridge.relay.memory import MemoryBudget, MemoryReservation


def test_only_bytes_that_fit_are_counted() -> None:
    budget = MemoryBudget(10, "this socket")
    budget.acquire(10)
    with pytest.raises(OutOfMemoryBudget, match="this socket holds 10 bytes of at most 10"):
        budget.acquire(1)
    assert budget.used == 10
    budget.release(3)
    budget.acquire(3)
    assert budget.used == 10


@pytest.mark.parametrize(("used", "is_full"), [(0, False), (9, False), (10, True), (11, True)])
def test_a_budget_is_full_at_its_limit(used: int, is_full: bool) -> None:
    budget = MemoryBudget(10, "this socket")
    budget.acquire(used, overdraw=True)
    assert budget.is_full is is_full


def test_a_budget_counts_in_its_parent_unless_one_of_them_is_exceeded() -> None:
    process = MemoryBudget(10, "the bridge")
    one, other = MemoryBudget(8, "this socket", process), MemoryBudget(8, "this socket", process)
    one.acquire(8)
    with pytest.raises(OutOfMemoryBudget, match=r"^the bridge holds 8"):
        other.acquire(3)
    assert (process.used, other.used) == (8, 0)
    with pytest.raises(OutOfMemoryBudget, match=r"^this socket holds 8"):
        one.acquire(1)
    assert (process.used, one.used) == (8, 8)
    one.release(8)
    other.acquire(8)
    assert (process.used, one.used, other.used) == (8, 0, 8)


def test_overdraw_may_exceed_a_budget_but_not_its_parent() -> None:
    process = MemoryBudget(10, "the bridge")
    socket = MemoryBudget(4, "this socket", process)
    socket.acquire(9, overdraw=True)
    assert (socket.used, socket.is_full, process.used) == (9, True, 9)
    with pytest.raises(OutOfMemoryBudget, match=r"^the bridge "):
        socket.acquire(2, overdraw=True)
    assert (socket.used, process.used) == (9, 9)


def test_a_reservation_releases_its_bytes_once() -> None:
    budget = MemoryBudget(10, "this socket")
    reservation, other = MemoryReservation(budget), MemoryReservation(budget)
    reservation.add(2)
    reservation.add(3)
    other.add(1)
    reservation.release(1)
    assert budget.used == 5
    with pytest.raises(OutOfMemoryBudget):
        reservation.add(6)
    reservation.release_all()
    reservation.release_all()
    assert budget.used == 1
    reservation.add(9)
    assert budget.is_full
