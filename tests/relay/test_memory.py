"""Bytes that are held: counted where they are held and where that is part of, bounded, and given back."""

import pytest

from bridge.errors import OutOfMemoryBudget
from bridge.relay.memory import MemoryBudget, MemoryReservation


def test_what_fits_is_counted_and_what_does_not_is_not() -> None:
    budget = MemoryBudget(10, "this socket")
    budget.acquire(10)
    with pytest.raises(OutOfMemoryBudget, match=r"^this socket holds 10 bytes of at most 10; try again later$"):
        budget.acquire(1)
    assert budget.used == 10
    budget.release(3)
    budget.acquire(3)
    assert budget.used == 10


@pytest.mark.parametrize(("used", "is_full"), [(0, False), (9, False), (10, True), (11, True)])
def test_it_is_full_when_nothing_more_fits(used: int, is_full: bool) -> None:
    budget = MemoryBudget(10, "this socket")
    budget.acquire(used, overdraw=True)
    assert budget.is_full is is_full


def test_a_part_draws_on_the_whole_and_fails_without_having_drawn() -> None:
    whole = MemoryBudget(10, "the bridge")
    one, other = MemoryBudget(8, "this socket", whole), MemoryBudget(8, "this socket", whole)
    one.acquire(8)
    with pytest.raises(OutOfMemoryBudget, match=r"^the bridge holds 8"):
        other.acquire(3)
    assert (whole.used, other.used) == (8, 0)
    with pytest.raises(OutOfMemoryBudget, match=r"^this socket holds 8"):
        one.acquire(1)
    assert (whole.used, one.used) == (8, 8)
    one.release(8)
    other.acquire(8)
    assert (whole.used, one.used, other.used) == (8, 0, 8)


def test_a_part_may_be_overdrawn_but_never_the_whole() -> None:
    whole = MemoryBudget(10, "the bridge")
    part = MemoryBudget(4, "this socket", whole)
    part.acquire(9, overdraw=True)
    assert (part.used, part.is_full, whole.used) == (9, True, 9)
    with pytest.raises(OutOfMemoryBudget, match=r"^the bridge "):
        part.acquire(2, overdraw=True)
    assert (part.used, whole.used) == (9, 9)


def test_a_hold_gives_back_what_it_holds_and_only_once() -> None:
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
