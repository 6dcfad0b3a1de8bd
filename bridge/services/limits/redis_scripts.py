"""Ledger windows in Redis, shared by all processes: one hash per window with the spent and the reserved amount.

Each of the two scripts is atomic. A reservation is also released when it is unknown if Redis made it, so `reserved` is
bounded by 0 from below and is exact again once nothing is in flight. A killed process never releases its reservations:
the cost of its events stays unknown, and the estimates count instead.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from bridge.services.limits.budgets import Budget
from bridge.services.limits.ledger import WindowTotals, windows_of
from bridge.services.limits.windows import WindowKey, weight_of
from bridge.services.redis import RedisStore

_REMEMBERED_S: Final = 600
"""Seconds for which Redis remembers a settled batch; no batch is sent again later than that."""

_RESERVE: Final = """
local reply = {0}
for index = 1, #KEYS / 2 do
    local limit, weight = tonumber(ARGV[3 * index - 1]), tonumber(ARGV[3 * index])
    local current = redis.call('HMGET', KEYS[2 * index - 1], 'spent', 'reserved')
    local before = redis.call('HMGET', KEYS[2 * index], 'spent', 'reserved')
    local spent, reserved = current[1] or '0', current[2] or '0'
    local spent_before, reserved_before = before[1] or '0', before[2] or '0'
    for _, number in ipairs({spent, reserved, spent_before, reserved_before}) do reply[#reply + 1] = number end
    if reply[1] == 0 and spent + reserved + (spent_before + reserved_before) * weight >= limit then reply[1] = index end
end
if reply[1] == 0 then
    for index = 1, #KEYS / 2 do
        redis.call('HINCRBYFLOAT', KEYS[2 * index - 1], 'reserved', ARGV[1])
        redis.call('EXPIRE', KEYS[2 * index - 1], ARGV[3 * index + 1])
    end
end
return reply
"""

_SETTLE: Final = f"""
if not redis.call('SET', KEYS[1], '', 'NX', 'EX', {_REMEMBERED_S}) then return end
for index = 1, #KEYS - 1 do
    local key = KEYS[index + 1]
    local reserved = (redis.call('HGET', key, 'reserved') or 0) - ARGV[3 * index - 1]
    redis.call('HINCRBYFLOAT', key, 'spent', ARGV[3 * index - 2])
    redis.call('HSET', key, 'reserved', string.format('%.17g', math.max(0, reserved)))
    redis.call('EXPIRE', key, ARGV[3 * index])
end
"""


@dataclass(slots=True)
class Settled:
    """Changes of one window: the amounts to add to `spent` and to take from `reserved`."""

    window_s: int
    spent: float = 0.0
    released: float = 0.0


class Batch:
    """Settlements of several windows. Its name makes repeated sending idempotent."""

    _numbers = count()
    _process_id = secrets.token_hex(8)

    def __init__(self, windows: dict[WindowKey, Settled]) -> None:
        self.windows = windows
        self.name = f"{self._process_id}:{next(self._numbers)}"


class SpendScripts:
    """Run the scripts. All methods raise RedisDown, as the store does."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._reserve, self._settle = store.script(_RESERVE), store.script(_SETTLE)

    async def reserve(
        self, budgets: Sequence[Budget], usd: float, now_s: float
    ) -> tuple[int | None, list[tuple[WindowTotals, WindowTotals]]]:
        """Reserve on all budgets or on none.

        Returns the index of the exhausted budget, None if all were reserved, and for each budget the totals of the
        current and the previous window before the reservation.
        """
        keys, args = [], [_text(usd)]
        for budget in budgets:
            rule = budget.rule
            keys += [self._key(window) for window in windows_of(budget, now_s)]
            weight = weight_of(rule.technique, now_s % rule.window_s, rule.window_s)
            args += [_text(rule.limit_usd), _text(weight), str(_keep_s(rule.window_s))]
        refused, *amounts = await self._reserve(keys, args)
        numbers = [float(number) for number in amounts]
        totals = [WindowTotals(*numbers[start : start + 2]) for start in range(0, len(numbers), 2)]
        return refused - 1 if refused else None, list(zip(totals[::2], totals[1::2], strict=True))

    async def settle(self, batch: Batch) -> None:
        keys, args = [self._store.key("settled", batch.name)], []
        for window, settled in batch.windows.items():
            keys.append(self._key(window))
            args += [_text(settled.spent), _text(settled.released), str(_keep_s(settled.window_s))]
        await self._settle(keys, args)

    def _key(self, window: WindowKey) -> str:
        return self._store.key("spent", window[0], str(window[1]))


def _keep_s(window_s: int) -> int:
    """Return the lifetime of a window's hash: a sliding window also needs the previous one."""
    return 2 * window_s + 1


def _text(usd: float) -> str:
    return f"{usd:.17g}"
