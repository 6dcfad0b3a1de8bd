"""The pages of a ledger in Redis, which all processes draw on: one hash for each, with what was spent and reserved.

Two scripts, each atomic. A reservation is given back even when nobody knows whether it was made, so `reserved` never
goes below 0: what was taken too much is right again once nothing is in flight. A process that is killed does not give
back what it had reserved; its events' costs will never be told, and so count as they were estimated.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from bridge.services.limits.budgets import Budget
from bridge.services.limits.ledger import PageKey, WindowTotals, windows_of
from bridge.services.limits.windows import weight_of
from bridge.services.redis import RedisStore

_REMEMBERED_S: Final = 600
"""How long Redis knows that a batch was settled: nobody sends it again later than that."""

_RESERVE: Final = """
local told = {0}
for each = 1, #KEYS / 2 do
    local limit, weight = tonumber(ARGV[3 * each - 1]), tonumber(ARGV[3 * each])
    local page = redis.call('HMGET', KEYS[2 * each - 1], 'spent', 'reserved')
    local before = redis.call('HMGET', KEYS[2 * each], 'spent', 'reserved')
    local spent, reserved = page[1] or '0', page[2] or '0'
    local spent_before, reserved_before = before[1] or '0', before[2] or '0'
    for _, number in ipairs({spent, reserved, spent_before, reserved_before}) do told[#told + 1] = number end
    if told[1] == 0 and spent + reserved + (spent_before + reserved_before) * weight >= limit then told[1] = each end
end
if told[1] == 0 then
    for each = 1, #KEYS / 2 do
        redis.call('HINCRBYFLOAT', KEYS[2 * each - 1], 'reserved', ARGV[1])
        redis.call('EXPIRE', KEYS[2 * each - 1], ARGV[3 * each + 1])
    end
end
return told
"""

_SETTLE: Final = f"""
if not redis.call('SET', KEYS[1], '', 'NX', 'EX', {_REMEMBERED_S}) then return end
for each = 1, #KEYS - 1 do
    local key = KEYS[each + 1]
    local reserved = (redis.call('HGET', key, 'reserved') or 0) - ARGV[3 * each - 1]
    redis.call('HINCRBYFLOAT', key, 'spent', ARGV[3 * each - 2])
    redis.call('HSET', key, 'reserved', string.format('%.17g', math.max(0, reserved)))
    redis.call('EXPIRE', key, ARGV[3 * each])
end
"""


@dataclass(slots=True)
class Settled:
    """What is to be done to one page."""

    window_s: int
    spent: float = 0.0
    given_back: float = 0.0


class Batch:
    """Several pages' settlements, told once however often they are sent."""

    _numbers = count()
    _us = secrets.token_hex(8)

    def __init__(self, pages: dict[PageKey, Settled]) -> None:
        self.pages = pages
        self.name = f"{self._us}:{next(self._numbers)}"


class SpendScripts:
    """Raises RedisDown, as the store does."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._reserve, self._settle = store.script(_RESERVE), store.script(_SETTLE)

    async def reserve(
        self, budgets: Sequence[Budget], usd: float, now_s: float
    ) -> tuple[int | None, list[tuple[WindowTotals, WindowTotals]]]:
        """On each of them, or on none: then the index of the one that is used up. And their pages as they were, of
        the window of now and of the one before.
        """
        keys, args = [], [_text(usd)]
        for budget in budgets:
            rule = budget.rule
            keys += [self._key(page) for page in windows_of(budget, now_s)]
            part = weight_of(rule.technique, now_s % rule.window_s, rule.window_s)
            args += [_text(rule.limit_usd), _text(part), str(_keep_s(rule.window_s))]
        refused, *told = await self._reserve(keys, args)
        numbers = [float(number) for number in told]
        pages = [WindowTotals(*numbers[start : start + 2]) for start in range(0, len(numbers), 2)]
        return refused - 1 if refused else None, list(zip(pages[::2], pages[1::2], strict=True))

    async def settle(self, batch: Batch) -> None:
        keys, args = [self._store.key("settled", batch.name)], []
        for page, settled in batch.pages.items():
            keys.append(self._key(page))
            args += [_text(settled.spent), _text(settled.given_back), str(_keep_s(settled.window_s))]
        await self._settle(keys, args)

    def _key(self, page: PageKey) -> str:
        return self._store.key("spent", page[0], str(page[1]))


def _keep_s(window_s: int) -> int:
    """Through the window after it, of which a sliding one is made too."""
    return 2 * window_s + 1


def _text(usd: float) -> str:
    return f"{usd:.17g}"
