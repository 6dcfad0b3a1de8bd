"""What was spent and what is reserved, window by window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config.limits import SpendRule, Technique
from bridge.errors import SpendLimit
from bridge.services.limits.budgets import Budget, Owner, SpendContext, matching_budgets
from bridge.services.limits.ledger import BudgetReservation, SpendLedger

NOON_S = 43_200.0


def budget_of(
    limit_usd: float = 10.0, window_s: int = 3600, technique: Technique = "fixed", name: str = "hour"
) -> Budget:
    rule = SpendRule(name, limit_usd, window_s, technique)
    (found,) = matching_budgets(Owner("main"), [rule], SpendContext(None, "openai", None))
    return found


def spend(ledger: SpendLedger, budget: Budget, usd: float, now_s: float) -> None:
    reservations = ledger.reserve([budget], 0.0, now_s)
    ledger.settle((reservation, usd) for reservation in reservations)


def test_a_reservation_is_released_when_the_event_ends():
    ledger, hour = SpendLedger(), budget_of()
    first = ledger.reserve([hour], 10.0, NOON_S)
    with pytest.raises(SpendLimit):
        ledger.reserve([hour], 1.0, NOON_S)
    ledger.settle((reservation, 2.0) for reservation in first)
    ledger.reserve([hour], 1.0, NOON_S)


def test_an_estimate_alone_refuses_no_event():
    """A budget limits what is spent: while some is left, one more event may begin, whatever it may cost."""
    SpendLedger().reserve([budget_of(limit_usd=0.01)], 500.0, NOON_S)


def test_a_budget_of_zero_refuses_every_event():
    with pytest.raises(SpendLimit):
        SpendLedger().reserve([budget_of(limit_usd=0.0)], 0.0, NOON_S)


def test_a_reservation_covers_all_budgets_or_none():
    ledger, open_, empty = SpendLedger(), budget_of(name="open"), budget_of(limit_usd=0.0, name="empty")
    with pytest.raises(SpendLimit, match="'empty'"):
        ledger.reserve([open_, empty], 10.0, NOON_S)
    ledger.reserve([open_], 10.0, NOON_S)


def test_a_fixed_window_starts_empty():
    ledger, hour = SpendLedger(), budget_of()
    spend(ledger, hour, 10.0, NOON_S + 3599.0)
    with pytest.raises(SpendLimit) as refused:
        ledger.reserve([hour], 0.0, NOON_S + 3599.5)
    assert refused.value.retry_after_ms == 501
    ledger.reserve([hour], 0.0, NOON_S + 3600.0)


def test_a_sliding_window_includes_a_share_of_the_previous_one():
    ledger, hour = SpendLedger(), budget_of(technique="sliding")
    spend(ledger, hour, 12.0, NOON_S + 3599.0)
    with pytest.raises(SpendLimit) as refused:
        ledger.reserve([hour], 0.0, NOON_S + 3600.0)
    assert refused.value.retry_after_ms == 600_001
    ledger.reserve([hour], 0.0, NOON_S + 3600.0 + 600.001)


def test_an_event_is_charged_to_the_window_in_which_it_began():
    ledger, hour = SpendLedger(), budget_of()
    late = ledger.reserve([hour], 1.0, NOON_S + 3599.0)
    ledger.settle((reservation, 10.0) for reservation in late)
    ledger.reserve([hour], 0.0, NOON_S + 3600.0)
    with pytest.raises(SpendLimit):
        ledger.reserve([hour], 0.0, NOON_S + 3599.0)


def test_a_reservation_released_twice_frees_no_extra_money():
    ledger = SpendLedger()
    reservation = BudgetReservation(("key", 1), 60, 5.0)
    ledger.settle([(reservation, 0.0), (reservation, 0.0)])
    assert ledger.totals(("key", 1)).reserved == 0.0


def test_the_most_recently_used_budgets_are_kept():
    """However many budgets clients make up, by values of their own."""
    ledger, ours = SpendLedger(max_windows=100), budget_of()
    spend(ledger, ours, 10.0, NOON_S)
    for number in range(1000):
        ledger.add((f"made up {number}", 0), 0.1, 0.0)
        ledger.add((ours.key, 12), 0.0, 0.0)
    assert len(ledger) == 100
    with pytest.raises(SpendLimit):
        ledger.reserve([ours], 0.0, NOON_S)


def test_an_event_without_cost_evicts_no_budget():
    ledger, ours = SpendLedger(max_windows=100), budget_of()
    spend(ledger, ours, 10.0, NOON_S)
    for number in range(1000):
        other = budget_of()._replace(key=f"made up {number}")
        ledger.settle((reservation, 0.0) for reservation in ledger.reserve([other], 0.1, NOON_S))
        ledger.learn((other.key, 12), 0.0)
    assert len(ledger) == 1
    with pytest.raises(SpendLimit):
        ledger.reserve([ours], 0.0, NOON_S)


@given(st.lists(st.tuples(st.floats(0.01, 3.0), st.booleans()), max_size=60))
def test_many_in_flight_never_overshoot_by_more_than_the_last_estimate(events):
    """Where estimates are right."""
    ledger, hour = SpendLedger(), budget_of()
    running: list[tuple[list[BudgetReservation], float]] = []
    spent = 0.0
    for usd, one_ends in events:
        if one_ends and running:
            reservations, cost = running.pop(0)
            ledger.settle((reservation, cost) for reservation in reservations)
            spent += cost
        try:
            running.append((ledger.reserve([hour], usd, NOON_S), usd))
        except SpendLimit:
            continue
        assert spent + sum(cost for _, cost in running) < 10.0 + usd + 1e-9
