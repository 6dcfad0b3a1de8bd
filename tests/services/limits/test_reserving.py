"""Events that the reservations of others keep out wait for them to be settled."""

import asyncio

import pytest

from bridge.config.limits import SpendRule
from bridge.errors import SpendLimit
from bridge.services.limits import reserving
from bridge.services.limits.budgets import Budget, Owner, SpendContext, matching_budgets
from bridge.services.limits.ledger import BudgetReservation, SpendLedger
from bridge.services.limits.local import LocalBudgets
from bridge.services.limits.reserving import WAIT_S, Reservations
from tests.support.clock import advance, run_until_idle
from tests.support.wall_clock import Wall

pytestmark = pytest.mark.usefixtures("wall")


def budget_of(name: str = "day", limit_usd: float = 1.0) -> Budget:
    (found,) = matching_budgets(
        Owner("main"), [SpendRule(name, limit_usd, 86_400, "fixed")], SpendContext(None, "openai", None)
    )
    return found


def settled(reservations: list[BudgetReservation], usd: float) -> list[tuple[BudgetReservation, float]]:
    return [(reservation, usd) for reservation in reservations]


async def test_waiting_events_reserve_in_order():
    place, day, served = Reservations(LocalBudgets(SpendLedger())), budget_of(), list[int]()

    async def one(number: int) -> None:
        reservations = await place.reserve([day], 1.0)
        served.append(number)
        await run_until_idle()
        place.settle(settled(reservations, 0.1))

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(one(number))
    assert served == list(range(8))
    assert not len(place)


async def test_an_event_waits_for_each_of_two_budgets_and_reserves_neither_meanwhile():
    place, day, week = Reservations(LocalBudgets(SpendLedger())), budget_of("day"), budget_of("week")
    first, second = await place.reserve([day], 1.0), await place.reserve([week], 1.0)
    waiting = asyncio.create_task(place.reserve([day, week], 1.0))
    await run_until_idle()
    place.settle(settled(first, 0.0))
    await run_until_idle()
    third = await place.reserve([day], 1.0)
    place.settle([*settled(second, 0.0), *settled(third, 0.0)])
    assert {reservation.window[0] for reservation in await waiting} == {day.key, week.key}


async def test_all_waits_of_an_event_share_one_time_limit():
    place, day, week = Reservations(LocalBudgets(SpendLedger())), budget_of("day"), budget_of("week")
    first = await place.reserve([day], 1.0)
    await place.reserve([week], 1.0)
    waiting = asyncio.create_task(place.reserve([day, week], 1.0))
    await run_until_idle()
    advance(WAIT_S - 1)
    place.settle(settled(first, 0.0))
    await run_until_idle()
    advance(1)
    with pytest.raises(SpendLimit, match="'week'"):
        await waiting
    assert not len(place)


async def test_an_event_that_leaves_the_queue_does_not_block_the_next():
    place, day = Reservations(LocalBudgets(SpendLedger())), budget_of()
    first = await place.reserve([day], 1.0)
    head, behind = (asyncio.create_task(place.reserve([day], 1.0)) for _ in range(2))
    await run_until_idle()
    head.cancel()
    await run_until_idle()
    place.settle(settled(first, 0.0))
    assert await behind
    assert not len(place)


async def test_a_full_queue_refuses_events(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reserving, "MAX_WAITING", 1)
    place, day = Reservations(LocalBudgets(SpendLedger())), budget_of()
    await place.reserve([day], 1.0)
    waiting = asyncio.create_task(place.reserve([day], 1.0))
    await run_until_idle()
    with pytest.raises(SpendLimit):
        await place.reserve([day], 1.0)
    waiting.cancel()


async def test_a_settlement_in_a_new_window_wakes_the_next_event(wall: Wall):
    place, day = Reservations(LocalBudgets(SpendLedger())), budget_of()
    first = await place.reserve([day], 1.0)
    waiting = asyncio.create_task(place.reserve([day], 1.0))
    await run_until_idle()
    wall.advance(86_400)
    place.settle(settled(first, 5.0))
    assert await waiting
