"""Return stored answers and share provider calls, where a step's settings turn the cache on.

The module ties together keys (`key`), the memory store (`memory`), a shared store (`stored.Store`) and coalesced calls
(`shared_call`). It does no I/O of its own.
"""

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
from bridge.services.cache.paced import PacedResponse
from bridge.services.cache.shared_call import SharedCall, SharedResponse
from bridge.services.cache.stored import Store, StoredAnswer, pack_headers, pack_reads, wall_clock
from bridge.tasks import Tasks
from bridge.upstream.answer import UpstreamResponse
from bridge.upstream.http import Call

OFF_LOOP_BYTES: Final = 1 << 20
"""Requests with a body of this size or more are digested in a thread."""


class ResponseCache:
    """The cache of one process: a memory store in front of an optional backend that other processes may share.

    Identical requests that run at the same time share one provider call. The counters are for metrics.
    """

    def __init__(self, max_bytes: int, backend: Store | None = None) -> None:
        """`max_bytes` limits the stored answers in memory; answers that are still being read may take as much again."""
        self._memory = MemoryStore(max_bytes)
        self._backend = backend
        self._budget = MemoryBudget(max_bytes, "the cache")
        self._tasks = Tasks()
        self._shared_calls: dict[bytes, SharedCall] = {}
        self._now = wall_clock()
        self.hits = 0
        """Requests answered from a store."""
        self.coalesced = 0
        """Requests that joined a running call."""
        self.misses = 0
        """Requests that started a call."""

    @property
    def stored_bytes(self) -> int:
        """Return the memory that stored answers take."""
        return self._memory.stored_bytes

    @property
    def evictions(self) -> int:
        """Return the number of answers evicted from memory and from the backend."""
        return self._memory.evictions + (self._backend.evictions if self._backend is not None else 0)

    @property
    def faults(self) -> int:
        """Return the number of reads and writes that the backend failed."""
        return self._backend.faults if self._backend is not None else 0

    async def open(self, context: RequestContext, planned: PlannedStep, caller: ProviderCaller) -> UpstreamResponse:
        """Return a stored answer, a share of a running call, or the answer of a new call."""
        call = caller.request
        ttl_s = cache_keys.ttl_s(planned.step.settings, call.method, call.body)
        if not ttl_s:
            return await caller()
        key = await _key(context, planned, call)
        if key not in self._shared_calls and (stored := await self._lookup(key, ttl_s)) is not None:
            self.hits += 1
            return StoredResponse(stored)
        response = self._shared_call(key).join(ttl_s)
        try:
            await response.open(caller)
        except BaseException:
            await response.aclose()
            raise
        return response

    async def close(self) -> None:
        await self._tasks.cancel_all()

    def _shared_call(self, key: bytes) -> SharedCall:
        shared_call = self._shared_calls.get(key)
        if shared_call is not None:
            self.coalesced += 1
            return shared_call
        self.misses += 1
        shared_call = SharedCall(self._budget, self._tasks, partial(self._unregister, key), partial(self._store, key))
        self._shared_calls[key] = shared_call
        return shared_call

    def _unregister(self, key: bytes, shared_call: SharedCall) -> None:
        if self._shared_calls.get(key) is shared_call:
            del self._shared_calls[key]

    async def _lookup(self, key: bytes, ttl_s: int) -> StoredAnswer | None:
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

    def _is_fresh(self, stored: StoredAnswer, ttl_s: int) -> bool:
        return cache_keys.is_fresh(stored.stored_at, stored.ttl_s, ttl_s, self._now())

    def _store(self, key: bytes, reader: SharedResponse, reads: list[bytes]) -> None:
        public = reader.public_headers
        headers = [(name, value) for name, value in reader.headers if name in public]
        stored = StoredAnswer(reader.status, pack_headers(headers), *pack_reads(reads), self._now(), reader.ttl_s)
        self._memory.put(key, stored)
        if self._backend is not None:
            self._backend.put(key, stored)


class StoredResponse(PacedResponse):
    """Delivers the stored reads one by one, so that the client gets the same frames as the first time."""

    cached = True

    def __init__(self, stored: StoredAnswer) -> None:
        super().__init__()
        self.status, self.headers = stored.status, stored.headers
        self._reads = stored.reads()
        self._upcoming = next(self._reads, None)

    @property
    def ended(self) -> bool:
        return self._upcoming is None

    def mark_complete(self) -> None:
        """Do nothing: a stored answer is always complete."""

    def _peek(self) -> bytes | None:
        return self._upcoming

    def _step(self, data: bytes) -> None:
        self._upcoming = next(self._reads, None)


async def _key(context: RequestContext, planned: PlannedStep, call: Call) -> bytes:
    request = cache_keys.CacheableRequest(
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
        return cache_keys.key_of(request, cache_key, is_shared=is_shared)
    return await asyncio.to_thread(cache_keys.key_of, request, cache_key, is_shared=is_shared)


@asynccontextmanager
async def open_cache(max_bytes: int, backend: Store | None = None) -> AsyncIterator[ResponseCache]:
    cache = ResponseCache(max_bytes, backend)
    try:
        yield cache
    finally:
        await cache.close()
