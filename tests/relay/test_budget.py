"""Bytes that are held: counted where they are held and where that is part of, bounded, and given back."""

import pytest

from bridge.errors import OutOfMemoryBudget
from bridge.relay.budget import Budget, Hold


def test_what_fits_is_counted_and_what_does_not_is_not() -> None:
    budget = Budget(10, "this socket")
    budget.take(10)
    with pytest.raises(OutOfMemoryBudget, match=r"^this socket holds 10 bytes of at most 10; try again later$"):
        budget.take(1)
    assert budget.used == 10
    budget.give(3)
    budget.take(3)
    assert budget.used == 10


@pytest.mark.parametrize(("used", "is_full"), [(0, False), (9, False), (10, True), (11, True)])
def test_it_is_full_when_nothing_more_fits(used: int, is_full: bool) -> None:
    budget = Budget(10, "this socket")
    budget.take(used, overdraw=True)
    assert budget.is_full is is_full


def test_a_part_draws_on_the_whole_and_fails_without_having_drawn() -> None:
    whole = Budget(10, "the bridge")
    one, other = Budget(8, "this socket", whole), Budget(8, "this socket", whole)
    one.take(8)
    with pytest.raises(OutOfMemoryBudget, match=r"^the bridge holds 8"):
        other.take(3)
    assert (whole.used, other.used) == (8, 0)
    with pytest.raises(OutOfMemoryBudget, match=r"^this socket holds 8"):
        one.take(1)
    assert (whole.used, one.used) == (8, 8)
    one.give(8)
    other.take(8)
    assert (whole.used, one.used, other.used) == (8, 0, 8)


def test_a_part_may_be_overdrawn_but_never_the_whole() -> None:
    whole = Budget(10, "the bridge")
    part = Budget(4, "this socket", whole)
    part.take(9, overdraw=True)
    assert (part.used, part.is_full, whole.used) == (9, True, 9)
    with pytest.raises(OutOfMemoryBudget, match=r"^the bridge "):
        part.take(2, overdraw=True)
    assert (part.used, whole.used) == (9, 9)


def test_a_hold_gives_back_what_it_holds_and_only_once() -> None:
    budget = Budget(10, "this socket")
    hold, other = Hold(budget), Hold(budget)
    hold.add(2)
    hold.add(3)
    other.add(1)
    hold.give(1)
    assert budget.used == 5
    with pytest.raises(OutOfMemoryBudget):
        hold.add(6)
    hold.drop()
    hold.drop()
    assert budget.used == 1
    hold.add(9)
    assert budget.is_full
