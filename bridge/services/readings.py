"""What services count for themselves, as metrics."""

from collections.abc import Iterator
from typing import Protocol

from bridge.relay.interfaces import Sample
from bridge.services.metrics import definitions as table


class CacheCounters(Protocol):
    hits: int
    coalesced: int
    misses: int

    @property
    def stored_bytes(self) -> int: ...

    @property
    def evictions(self) -> int: ...

    @property
    def faults(self) -> int: ...


class RedisCounters(Protocol):
    losses: int
    failed_calls: int

    @property
    def is_up(self) -> bool: ...


class CountingDesk(Protocol):
    unwritten: int


def cache_samples(cache: CacheCounters) -> Iterator[Sample]:
    for result, count in (("hit", cache.hits), ("joined", cache.coalesced), ("miss", cache.misses)):
        yield table.CACHE_LOOKUPS.name, (result,), count
    yield table.CACHE_BYTES.name, (), cache.stored_bytes
    yield table.CACHE_EVICTIONS.name, (), cache.evictions
    yield table.CACHE_FAULTS.name, (), cache.faults


def redis_samples(store: RedisCounters) -> Iterator[Sample]:
    yield table.REDIS_LOST.name, (), not store.is_up
    yield table.REDIS_LOSSES.name, (), store.losses
    yield table.REDIS_FAILED.name, (), store.failed_calls


def of_tapes(recording_thread: CountingDesk) -> Iterator[Sample]:
    yield table.TAPES_WAITING.name, (), recording_thread.unwritten
