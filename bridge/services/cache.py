"""Answers given again, and provider calls shared, where a step's settings say so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from bridge.policy import caching
from bridge.relay.budget import Budget
from bridge.relay.plan import Ground, PlannedStep
from bridge.relay.services import Dial
from bridge.services.cache_flight import Flight, Share
from bridge.services.cache_pace import Pace
from bridge.storage.cache_answer import Store, Stored, packed, packed_headers, wall_clock
from bridge.storage.cache_memory import MemoryStore
from bridge.tasks import Tasks
from bridge.upstream.answer import Answer
from bridge.upstream.http import Call

OFF_LOOP_BYTES: Final = 1 << 20
"""From here on, a request's body is digested in a thread."""


class ResponseCache:
    """The cache of one process: what it holds in memory, in front of a store that others may share.

    Whoever asks what another is just asking reads that one's answer (`cache_flight`). The counters are for metrics.
    """

    def __init__(self, most_bytes: int, far: Store | None = None) -> None:
        """`most_bytes` is what stored answers may take in memory; those on their way may take as much."""
        self._near = MemoryStore(most_bytes)
        self._far = far
        self._room = Budget(most_bytes, "the cache")
        self._tasks = Tasks()
        self._flights: dict[bytes, Flight] = {}
        self._now = wall_clock()
        self.hits = 0
        """Answers that were stored."""
        self.joined = 0
        """Calls that were shared with one in flight."""
        self.misses = 0
        """Calls that had to be made."""

    @property
    def stored_bytes(self) -> int:
        """What stored answers take in memory."""
        return self._near.stored_bytes

    @property
    def evictions(self) -> int:
        """Answers that had to make room, in memory and in the far store."""
        return self._near.evictions + (self._far.evictions if self._far is not None else 0)

    @property
    def faults(self) -> int:
        """How often the far store was of no use."""
        return self._far.faults if self._far is not None else 0

    async def open(self, ground: Ground, planned: PlannedStep, dial: Dial) -> Answer:
        call = dial.request
        ttl_s = caching.ttl_s(planned.step.settings, call.method, call.body)
        if not ttl_s:
            return await dial()
        key = await _key(ground, planned, call)
        if key not in self._flights and (stored := await self._stored(key, ttl_s)) is not None:
            self.hits += 1
            return StoredAnswer(stored)
        share = self._flight(key).join(ttl_s)
        try:
            await share.open(dial)
        except BaseException:
            await share.aclose()
            raise
        return share

    async def close(self) -> None:
        await self._tasks.end_all()

    def _flight(self, key: bytes) -> Flight:
        flight = self._flights.get(key)
        if flight is not None:
            self.joined += 1
            return flight
        self.misses += 1
        flight = Flight(self._room, self._tasks, partial(self._shut, key), partial(self._keep, key))
        self._flights[key] = flight
        return flight

    def _shut(self, key: bytes, flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _stored(self, key: bytes, ttl_s: int) -> Stored | None:
        stored = self._near.get(key)
        if stored is not None and self._is_fresh(stored, ttl_s):
            return stored
        if self._far is None or (stored := await self._far.get(key)) is None or not self._is_fresh(stored, ttl_s):
            return None
        self._near.put(key, stored)
        return stored

    def _is_fresh(self, stored: Stored, ttl_s: int) -> bool:
        return caching.is_fresh(stored.stored_at, stored.kept_s, ttl_s, self._now())

    def _keep(self, key: bytes, share: Share, reads: list[bytes]) -> None:
        shown = share.public_headers
        headers = [(name, value) for name, value in share.headers if name in shown]
        stored = Stored(share.status, packed_headers(headers), *packed(reads), self._now(), share.ttl_s)
        self._near.put(key, stored)
        if self._far is not None:
            self._far.put(key, stored)


class StoredAnswer(Answer):
    """Gives the reads that were stored, and so the same frames."""

    cached = True

    def __init__(self, stored: Stored) -> None:
        self.status, self.headers = stored.status, stored.headers
        self._reads = stored.reads()
        self._left_bytes = len(stored.body)
        self._pace = Pace()

    @property
    def ended(self) -> bool:
        return not self._left_bytes

    def keep(self) -> None:
        """It is."""

    async def read(self) -> bytes:
        if not self._left_bytes:
            return b""
        await self._pace.turn()
        data = next(self._reads)
        self._left_bytes -= len(data)
        self._pace.gave(data)
        return data

    async def aclose(self) -> None:
        """Nothing is open."""


async def _key(ground: Ground, planned: PlannedStep, call: Call) -> bytes:
    asked = caching.Asked(
        ground.gateway,
        ground.token,
        planned.provider.slug,
        call.method,
        call.target,
        call.headers,
        call.body,
        planned.key.digest if planned.key is not None else b"",
    )
    cache_key, is_shared = planned.step.settings.cache_key, ground.live().cache_shared
    if len(call.body) < OFF_LOOP_BYTES:
        return caching.key_of(asked, cache_key, is_shared=is_shared)
    return await asyncio.to_thread(caching.key_of, asked, cache_key, is_shared=is_shared)


@asynccontextmanager
async def opened(most_bytes: int, far: Store | None = None) -> AsyncIterator[ResponseCache]:
    cache = ResponseCache(most_bytes, far)
    try:
        yield cache
    finally:
        await cache.close()
