"""Answers given again, and provider calls shared, where a step's settings say so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from bridge.relay.interfaces import ProviderCaller
from bridge.relay.memory import MemoryBudget
from bridge.relay.plan import PlannedStep, RequestContext
from bridge.services.cache import key as cache_keys
from bridge.services.cache.memory import MemoryStore
from bridge.services.cache.shared_call import SharedCall, SharedResponse, Yielder
from bridge.services.cache.stored import Store, Stored, packed, packed_headers, wall_clock
from bridge.tasks import Tasks
from bridge.upstream.answer import UpstreamResponse
from bridge.upstream.http import Call

OFF_LOOP_BYTES: Final = 1 << 20
"""From here on, a request's body is digested in a thread."""


class ResponseCache:
    """The cache of one process: what it holds in memory, in front of a store that others may share.

    Whoever asks what another is just asking reads that one's answer (`cache_flight`). The counters are for metrics.
    """

    def __init__(self, max_bytes: int, far: Store | None = None) -> None:
        """`most_bytes` is what stored answers may take in memory; those on their way may take as much."""
        self._memory = MemoryStore(max_bytes)
        self._backend = far
        self._room = MemoryBudget(max_bytes, "the cache")
        self._tasks = Tasks()
        self._shared_calls: dict[bytes, SharedCall] = {}
        self._now = wall_clock()
        self.hits = 0
        """Answers that were stored."""
        self.coalesced = 0
        """Calls that were shared with one in flight."""
        self.misses = 0
        """Calls that had to be made."""

    @property
    def stored_bytes(self) -> int:
        """What stored answers take in memory."""
        return self._memory.stored_bytes

    @property
    def evictions(self) -> int:
        """Answers that had to make room, in memory and in the far store."""
        return self._memory.evictions + (self._backend.evictions if self._backend is not None else 0)

    @property
    def faults(self) -> int:
        """How often the far store was of no use."""
        return self._backend.faults if self._backend is not None else 0

    async def open(self, context: RequestContext, planned: PlannedStep, dial: ProviderCaller) -> UpstreamResponse:
        call = dial.request
        ttl_s = cache_keys.ttl_s(planned.step.settings, call.method, call.body)
        if not ttl_s:
            return await dial()
        key = await _key(context, planned, call)
        if key not in self._shared_calls and (stored := await self._stored(key, ttl_s)) is not None:
            self.hits += 1
            return StoredResponse(stored)
        share = self._shared_call(key).join(ttl_s)
        try:
            await share.open(dial)
        except BaseException:
            await share.aclose()
            raise
        return share

    async def close(self) -> None:
        await self._tasks.cancel_all()

    def _shared_call(self, key: bytes) -> SharedCall:
        shared_call = self._shared_calls.get(key)
        if shared_call is not None:
            self.coalesced += 1
            return shared_call
        self.misses += 1
        shared_call = SharedCall(self._room, self._tasks, partial(self._shut, key), partial(self._keep, key))
        self._shared_calls[key] = shared_call
        return shared_call

    def _shut(self, key: bytes, shared_call: SharedCall) -> None:
        if self._shared_calls.get(key) is shared_call:
            del self._shared_calls[key]

    async def _stored(self, key: bytes, ttl_s: int) -> Stored | None:
        stored = self._memory.get(key)
        if stored is not None and self._is_fresh(stored, ttl_s):
            return stored
        if (
            self._backend is None
            or (stored := await self._backend.get(key)) is None
            or not self._is_fresh(stored, ttl_s)
        ):
            return None
        self._memory.put(key, stored)
        return stored

    def _is_fresh(self, stored: Stored, ttl_s: int) -> bool:
        return cache_keys.is_fresh(stored.stored_at, stored.kept_s, ttl_s, self._now())

    def _keep(self, key: bytes, reader: SharedResponse, reads: list[bytes]) -> None:
        shown = reader.public_headers
        headers = [(name, value) for name, value in reader.headers if name in shown]
        stored = Stored(reader.status, packed_headers(headers), *packed(reads), self._now(), reader.ttl_s)
        self._memory.put(key, stored)
        if self._backend is not None:
            self._backend.put(key, stored)


class StoredResponse(UpstreamResponse):
    """Gives the reads that were stored, and so the same frames."""

    cached = True

    def __init__(self, stored: Stored) -> None:
        self.status, self.headers = stored.status, stored.headers
        self._reads = stored.reads()
        self._left_bytes = len(stored.body)
        self._yielder = Yielder()

    @property
    def ended(self) -> bool:
        return not self._left_bytes

    def mark_complete(self) -> None:
        """It is."""

    async def read(self) -> bytes:
        if not self._left_bytes:
            return b""
        await self._yielder.maybe_yield()
        data = next(self._reads)
        self._left_bytes -= len(data)
        self._yielder.count(data)
        return data

    async def aclose(self) -> None:
        """Nothing is open."""


async def _key(context: RequestContext, planned: PlannedStep, call: Call) -> bytes:
    asked = cache_keys.CacheableRequest(
        context.gateway,
        context.token,
        planned.provider.slug,
        call.method,
        call.target,
        call.headers,
        call.body,
        planned.key.digest if planned.key is not None else b"",
    )
    cache_key, is_shared = planned.step.settings.cache_key, context.current_gateway().cache_shared
    if len(call.body) < OFF_LOOP_BYTES:
        return cache_keys.key_of(asked, cache_key, is_shared=is_shared)
    return await asyncio.to_thread(cache_keys.key_of, asked, cache_key, is_shared=is_shared)


@asynccontextmanager
async def opened(max_bytes: int, far: Store | None = None) -> AsyncIterator[ResponseCache]:
    cache = ResponseCache(max_bytes, far)
    try:
        yield cache
    finally:
        await cache.close()
