"""Memory holds as many answers as were allowed, and of those the ones that were asked for last."""

from bridge.services.cache.memory import MemoryStore
from tests.support.stored_answers import KEYS, of_size

SIZE = of_size(1000).size_bytes


def test_what_was_put_is_got_and_a_newer_one_takes_its_place() -> None:
    store = MemoryStore(10 * SIZE)
    assert store.get(KEYS[0]) is None
    store.put(KEYS[0], of_size(1000))
    store.put(KEYS[0], newer := of_size(500))
    assert store.get(KEYS[0]) is newer
    assert (store.stored_bytes, len(store), store.evictions) == (newer.size_bytes, 1, 0)


def test_who_was_asked_for_longest_ago_makes_room() -> None:
    store = MemoryStore(3 * SIZE)
    for key in KEYS[:3]:
        store.put(key, of_size(1000))
    store.get(KEYS[0])
    store.put(KEYS[3], of_size(1000))
    assert [store.get(key) is not None for key in KEYS[:4]] == [True, False, True, True]
    assert (store.stored_bytes, store.evictions) == (3 * SIZE, 1)


def test_it_never_holds_more_than_it_may() -> None:
    store = MemoryStore(5 * SIZE)
    for number, key in enumerate(KEYS):
        store.put(key, of_size(7 * number))
        assert store.stored_bytes <= 5 * SIZE
    assert store.evictions > 0


def test_what_is_larger_than_all_of_it_is_not_kept_and_drives_nothing_out() -> None:
    store = MemoryStore(3 * SIZE)
    store.put(KEYS[0], of_size(1000))
    store.put(KEYS[1], of_size(10_000))
    assert store.get(KEYS[0]) is not None
    assert store.get(KEYS[1]) is None
    store.put(KEYS[0], of_size(10_000))
    assert (store.get(KEYS[0]), store.stored_bytes) == (None, 0)
