"""What services count for themselves, as metrics."""

from collections.abc import Iterator
from typing import Protocol

from bridge.relay.services import Reading
from bridge.services import metric_table as table


class CountingCache(Protocol):
    hits: int
    joined: int
    misses: int

    @property
    def stored_bytes(self) -> int: ...

    @property
    def evictions(self) -> int: ...

    @property
    def faults(self) -> int: ...


class CountingStore(Protocol):
    losses: int
    failed_calls: int

    @property
    def is_up(self) -> bool: ...


class CountingDesk(Protocol):
    unwritten: int


def of_cache(cache: CountingCache) -> Iterator[Reading]:
    for result, count in (("hit", cache.hits), ("joined", cache.joined), ("miss", cache.misses)):
        yield table.CACHE_LOOKUPS.name, (result,), count
    yield table.CACHE_BYTES.name, (), cache.stored_bytes
    yield table.CACHE_EVICTIONS.name, (), cache.evictions
    yield table.CACHE_FAULTS.name, (), cache.faults


def of_redis(store: CountingStore) -> Iterator[Reading]:
    yield table.REDIS_LOST.name, (), not store.is_up
    yield table.REDIS_LOSSES.name, (), store.losses
    yield table.REDIS_FAILED.name, (), store.failed_calls


def of_tapes(desk: CountingDesk) -> Iterator[Reading]:
    yield table.TAPES_WAITING.name, (), desk.unwritten
