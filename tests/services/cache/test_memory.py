"""The memory store holds a bounded size of answers, those used last."""

from bridge.services.cache.memory import MemoryStore
from tests.support.stored_answers import KEYS, of_size

SIZE = of_size(1000).size_bytes


def test_get_returns_the_answer_put_last() -> None:
    store = MemoryStore(10 * SIZE)
    assert store.get(KEYS[0]) is None
    store.put(KEYS[0], of_size(1000))
    store.put(KEYS[0], newer := of_size(500))
    assert store.get(KEYS[0]) is newer
    assert (store.stored_bytes, len(store), store.evictions) == (newer.size_bytes, 1, 0)


def test_the_least_recently_used_answer_is_evicted() -> None:
    store = MemoryStore(3 * SIZE)
    for key in KEYS[:3]:
        store.put(key, of_size(1000))
    store.get(KEYS[0])
    store.put(KEYS[3], of_size(1000))
    assert [store.get(key) is not None for key in KEYS[:4]] == [True, False, True, True]
    assert (store.stored_bytes, store.evictions) == (3 * SIZE, 1)


def test_the_store_never_exceeds_its_size() -> None:
    store = MemoryStore(5 * SIZE)
    for number, key in enumerate(KEYS):
        store.put(key, of_size(7 * number))
        assert store.stored_bytes <= 5 * SIZE
    assert store.evictions > 0


def test_an_answer_larger_than_the_store_evicts_nothing() -> None:
    store = MemoryStore(3 * SIZE)
    store.put(KEYS[0], of_size(1000))
    store.put(KEYS[1], of_size(10_000))
    assert store.get(KEYS[0]) is not None
    assert store.get(KEYS[1]) is None
    store.put(KEYS[0], of_size(10_000))
    assert (store.get(KEYS[0]), store.stored_bytes) == (None, 0)
