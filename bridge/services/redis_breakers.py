"""Breakers that know what the breakers of other processes know, by way of Redis.

What opens or closes here is told on a channel, and kept in one sorted set for those who come later, by when it is due.
Processes agree on no clock: durations travel, and instants are those of Redis's own clock. While Redis is away nothing
is told, and each process has its own breakers; nobody waits for any of this.
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
"""How long a key stays in the set after it is due: it is open until somebody's probe has closed it."""

_PAUSE_S: Final = 0.2
"""Before the channel is asked for again: a Redis may be up, and not let us listen."""

_OF_OTHERS: Final = (ValueError, TypeError)
"""What is raised by something under our names that no bridge has written."""

_TELL: Final = f"""
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
    """Owns the breakers of this process, and the two tasks that tell and listen."""

    def __init__(self, store: RedisStore) -> None:
        self.breakers = Breakers(told=self._changed)
        self._store = store
        self._set, self._channel = store.key("breakers"), store.key("breakers", "changes")
        self._tell_script, self._join_script = store.script(_TELL), store.script(_JOIN)
        self._us = secrets.token_hex(8)
        self._tasks = Tasks()
        self._untold: dict[BreakerKey, float | None] = {}
        """By key, the latest change alone; no more keys than breakers know."""
        self._has_untold = asyncio.Event()

    def start(self) -> None:
        self._tasks.start(self._publish_all(), "breakers tell")
        self._tasks.start(self._receive_all(), "breakers listen")

    async def stop(self) -> None:
        await self._tasks.cancel_all()

    def _changed(self, key: BreakerKey, open_s: float | None) -> None:
        if len(self._untold) < MAX_KEYS:
            self._untold[key] = open_s
            self._has_untold.set()

    async def _publish_all(self) -> None:
        while True:
            await self._has_untold.wait()
            self._has_untold.clear()
            changes, self._untold = self._untold, {}
            try:
                for key, open_s in changes.items():
                    await self._publish(_written(key), None if open_s is None else round(open_s * 1000))
            except RedisDown:
                continue  # what is news now is none when Redis is back

    async def _publish(self, key: str, open_ms: int | None) -> None:
        message = json.dumps((self._us, key, open_ms))
        await self._tell_script((self._set, self._channel), (key, "" if open_ms is None else open_ms, message))

    async def _receive_all(self) -> None:
        while True:
            await self._store.wait_available()
            with suppress(RedisDown):
                await self._store.subscribe(self._channel, self._join, self._received)
            await asyncio.sleep(_PAUSE_S)

    async def _join(self) -> None:
        known: list[Any] = await self._join_script((self._set,), ())
        for key, open_ms in zip(known[::2], known[1::2], strict=True):
            with suppress(*_OF_OTHERS):
                self._learn(key, open_ms)

    def _received(self, message: bytes) -> None:
        with suppress(*_OF_OTHERS):
            who, key, open_ms = json.loads(message)
            if who != self._us:
                self._learn(key, open_ms)

    def _learn(self, key: str | bytes, open_ms: float | None) -> None:
        open_s = None if open_ms is None else min(open_ms / 1000, MAX_INTERVAL_S)
        self.breakers.merge(_read(key), open_s, asyncio.get_running_loop().time())


def _written(key: BreakerKey) -> str:
    return json.dumps((key.gateway, key.token, key.base_url, key.model, key.provider))


def _read(text: str | bytes) -> BreakerKey:
    """Raises ValueError, TypeError: for instance for a key of another version."""
    gateway, token, base_url, model, provider = json.loads(text)
    parts = gateway, token, base_url, provider, "" if model is None else model
    if not all(isinstance(part, str) for part in parts):
        raise TypeError(f"not the key of a breaker: {text!r}")
    return BreakerKey(gateway, token, base_url, model, provider)


@asynccontextmanager
async def redis_breakers(store: RedisStore) -> AsyncIterator[Breakers]:
    shared = RedisBreakers(store)
    shared.start()
    try:
        yield shared.breakers
    finally:
        await shared.stop()
