"""Circuit breakers that share their state with other processes through Redis.

Changes are published on a channel, and kept in one sorted set, ordered by due time, for processes that start later.
Process clocks may differ: durations are sent, and instants are those of Redis's clock. While Redis is unavailable
nothing is published and each process has its own breakers; no event waits for any of this.
"""

import asyncio
import json  # not orjson: a model's name may hold a lone surrogate
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from bridge.policy.breaker import MAX_INTERVAL_S, MAX_KEYS, BreakerKey, Breakers
from bridge.services.redis import RedisDown, RedisStore
from bridge.tasks import Tasks

_KEEP_MS: Final = int(2 * MAX_INTERVAL_S * 1000)
"""A key stays in the set for this long after its due time: a breaker stays open until a probe closes it."""

_PAUSE_S: Final = 0.2
"""Delay before subscribing again: Redis may be available and still refuse the subscription."""

_INVALID_DATA: Final = (ValueError, TypeError)
"""Errors raised by data under the bridge's keys that no bridge wrote."""

_PUBLISH: Final = f"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local open_ms = tonumber(ARGV[2])
if not open_ms then
    redis.call('ZREM', KEYS[1], ARGV[1])
else
    redis.call('ZADD', KEYS[1], now + open_ms, ARGV[1])
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - {_KEEP_MS})
    redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -{MAX_KEYS + 1})
    redis.call('PEXPIRE', KEYS[1], {2 * _KEEP_MS})
end
redis.call('PUBLISH', KEYS[2], ARGV[3])
"""

_JOIN: Final = f"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('ZRANGEBYSCORE', KEYS[1], now - {_KEEP_MS}, '+inf', 'WITHSCORES')
for index = 2, #known, 2 do known[index] = known[index] - now end
return known
"""


class RedisBreakers:
    """Own the breakers of this process, and the two tasks that publish and receive changes."""

    def __init__(self, store: RedisStore) -> None:
        self.breakers = Breakers(report=self._changed)
        self._store = store
        self._set, self._channel = store.key("breakers"), store.key("breakers", "changes")
        self._publish_script, self._join_script = store.script(_PUBLISH), store.script(_JOIN)
        self._process_id = secrets.token_hex(8)
        self._tasks = Tasks()
        self._unpublished: dict[BreakerKey, float | None] = {}
        """The latest change of each key; bounded by the number of breakers."""
        self._has_unpublished = asyncio.Event()

    def start(self) -> None:
        self._tasks.start(self._publish_all(), "breakers publish")
        self._tasks.start(self._receive_all(), "breakers receive")

    async def stop(self) -> None:
        await self._tasks.cancel_all()

    def _changed(self, key: BreakerKey, open_s: float | None) -> None:
        if len(self._unpublished) < MAX_KEYS:
            self._unpublished[key] = open_s
            self._has_unpublished.set()

    async def _publish_all(self) -> None:
        while True:
            await self._has_unpublished.wait()
            self._has_unpublished.clear()
            changes, self._unpublished = self._unpublished, {}
            try:
                for key, open_s in changes.items():
                    await self._publish(_to_json(key), None if open_s is None else round(open_s * 1000))
            except RedisDown:
                continue  # stale by the time Redis is available again

    async def _publish(self, key: str, open_ms: int | None) -> None:
        message = json.dumps((self._process_id, key, open_ms))
        await self._publish_script((self._set, self._channel), (key, "" if open_ms is None else open_ms, message))

    async def _receive_all(self) -> None:
        while True:
            await self._store.wait_available()
            with suppress(RedisDown):
                await self._store.subscribe(self._channel, self._join, self._received)
            await asyncio.sleep(_PAUSE_S)

    async def _join(self) -> None:
        known: list[Any] = await self._join_script((self._set,), ())
        for key, open_ms in zip(known[::2], known[1::2], strict=True):
            with suppress(*_INVALID_DATA):
                self._learn(key, open_ms)

    def _received(self, message: bytes) -> None:
        with suppress(*_INVALID_DATA):
            sender, key, open_ms = json.loads(message)
            if sender != self._process_id:
                self._learn(key, open_ms)

    def _learn(self, key: str | bytes, open_ms: float | None) -> None:
        open_s = None if open_ms is None else min(open_ms / 1000, MAX_INTERVAL_S)
        self.breakers.merge(_from_json(key), open_s, asyncio.get_running_loop().time())


def _to_json(key: BreakerKey) -> str:
    return json.dumps((key.gateway, key.token, key.base_url, key.model, key.provider))


def _from_json(text: str | bytes) -> BreakerKey:
    """Parse a key. Raises ValueError or TypeError, for instance for a key of another version."""
    gateway, token, base_url, model, provider = json.loads(text)
    parts = gateway, token, base_url, provider, "" if model is None else model
    if not all(isinstance(part, str) for part in parts):
        raise TypeError(f"not the key of a breaker: {text!r}")
    return BreakerKey(gateway, token, base_url, model, provider)


@asynccontextmanager
async def redis_breakers(store: RedisStore) -> AsyncIterator[Breakers]:
    """Run the breakers and their two tasks."""
    shared = RedisBreakers(store)
    shared.start()
    try:
        yield shared.breakers
    finally:
        await shared.stop()
