"""Ledger windows in a real Redis: each script is atomic, and a batch is settled once."""

from collections.abc import AsyncIterator

import pytest

from bridge.config.limits import SpendRule, Technique
from bridge.services.limits.budgets import Budget, Owner, SpendContext, matching_budgets
from bridge.services.limits.ledger import WindowTotals, windows_of
from bridge.services.limits.redis_scripts import Batch, Settled, SpendScripts
from bridge.services.redis import RedisStore, opened
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.needs("redis-server")

NOON_S = 43_200.0
HOUR_S = 3600


def budget_of(name: str = "hour", limit_usd: float = 10.0, technique: Technique = "fixed") -> Budget:
    rule = SpendRule(name, limit_usd, HOUR_S, technique)
    (found,) = matching_budgets(Owner("main"), [rule], SpendContext(None, "openai", None))
    return found


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[RedisStore]:
    async with opened(redis.url, "bridge") as store:
        yield store


def spent(budget: Budget, usd: float, released: float = 0.0, now_s: float = NOON_S) -> Batch:
    page, _ = windows_of(budget, now_s)
    return Batch({page: Settled(HOUR_S, usd, released)})


async def seen(pages: SpendScripts, budget: Budget, now_s: float = NOON_S) -> tuple[WindowTotals, WindowTotals]:
    """Return a budget's totals without reserving anything."""
    _, [found] = await pages.reserve([budget], 0.0, now_s)
    return found


async def test_an_unused_window_is_empty(store: RedisStore):
    assert await seen(SpendScripts(store), budget_of()) == (WindowTotals(), WindowTotals())


async def test_reserved_and_spent_amounts_are_exact(store: RedisStore):
    pages, hour = SpendScripts(store), budget_of()
    for usd in (0.1, 0.2, 1e-9):
        assert (await pages.reserve([hour], usd, NOON_S))[0] is None
    await pages.settle(spent(hour, 1 / 3, released=0.1))
    page, before = await seen(pages, hour)
    assert (page.spent, page.reserved) == (pytest.approx(1 / 3, rel=1e-12), pytest.approx(0.200000001, rel=1e-12))
    assert before == WindowTotals()


async def test_a_reservation_covers_all_budgets_or_none(store: RedisStore):
    pages, open_, empty = SpendScripts(store), budget_of("open"), budget_of("empty", limit_usd=0.0)
    refused, found = await pages.reserve([open_, empty], 5.0, NOON_S)
    assert (refused, found) == (1, [(WindowTotals(), WindowTotals())] * 2)
    assert (await seen(pages, open_))[0] == WindowTotals()


async def test_a_sliding_window_counts_a_share_of_the_previous_one(store: RedisStore):
    pages, hour = SpendScripts(store), budget_of(technique="sliding")
    await pages.settle(spent(hour, 12.0))
    assert (await pages.reserve([hour], 0.0, NOON_S + HOUR_S + 599))[0] == 0
    assert (await pages.reserve([hour], 0.0, NOON_S + HOUR_S + 601))[0] is None
    assert (await seen(pages, hour, NOON_S + HOUR_S + 601))[1] == WindowTotals(12.0)


async def test_a_fixed_window_ignores_the_previous_one(store: RedisStore):
    pages, hour = SpendScripts(store), budget_of()
    await pages.settle(spent(hour, 12.0))
    assert (await pages.reserve([hour], 0.0, NOON_S + HOUR_S))[0] is None


async def test_a_batch_is_settled_once_however_often_it_is_sent(store: RedisStore):
    """For nobody knows whether one that was not answered was taken."""
    pages, hour = SpendScripts(store), budget_of()
    batch = spent(hour, 2.0)
    for _ in range(3):
        await pages.settle(batch)
    await pages.settle(spent(hour, 2.0))
    assert (await seen(pages, hour))[0].spent == 4.0


async def test_releasing_an_unknown_reservation_leaves_zero(store: RedisStore):
    pages, hour = SpendScripts(store), budget_of()
    await pages.settle(spent(hour, 0.0, released=5.0))
    assert (await seen(pages, hour))[0] == WindowTotals()


async def test_a_window_expires_after_the_next_window(store: RedisStore, redis: RedisServer):
    pages, hour = SpendScripts(store), budget_of()
    await pages.reserve([hour], 1.0, NOON_S)
    key, number = windows_of(hour, NOON_S)[0]
    ttl = int(redis.command("TTL", store.key("spent", key, str(number)))[1:-2])
    assert HOUR_S < ttl <= 2 * HOUR_S + 1
