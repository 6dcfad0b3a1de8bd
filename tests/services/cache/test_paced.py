"""Reads in memory are delivered one by one, a turn of the loop at a time."""

import asyncio
from collections.abc import Callable

import pytest

from bridge.services.cache.cache import StoredResponse
from bridge.services.cache.stored import StoredAnswer, pack_headers, pack_reads
from bridge.upstream.answer import reads_of
from bridge.upstream.body import READ_COST_BYTES, TURN_BYTES
from tests.support.clock import run_until_idle, turns
from tests.support.receivers import Collector

LONG = [b"%07d " % number * 512 for number in range(256)]
"""One MiB in reads of 4 KiB."""


def stored(*reads: bytes) -> StoredResponse:
    headers = pack_headers([("content-type", "text/plain")])
    return StoredResponse(StoredAnswer(200, headers, *pack_reads(reads), stored_at=0.0, ttl_s=60.0))


async def bytes_per_turn(collector: Collector) -> list[int]:
    """Return what each turn of the loop delivered, until the body is over."""
    counts, before = [len(collector.text)], len(collector.text)
    while not collector.is_ended:
        await asyncio.sleep(0)
        counts.append(len(collector.text) - before)
        before = len(collector.text)
    return counts


async def test_a_short_body_is_delivered_at_once_read_by_read() -> None:
    answer = stored(b"a", b"bc", b"d")
    collector = Collector(answer).start()
    assert (collector.reads, collector.is_ended, answer.ended) == ([b"a", b"bc", b"d"], True, True)
    assert (answer.status, answer.headers, answer.cached) == (200, [("content-type", "text/plain")], True)


async def test_an_empty_body_ends_at_once() -> None:
    assert Collector(stored()).start().outcome == (b"", True, None)


async def test_a_turn_delivers_at_most_64_kib() -> None:
    collector = Collector(stored(*LONG)).start()
    counts = await bytes_per_turn(collector)
    assert max(counts) <= TURN_BYTES
    assert len(counts) >= 16
    assert collector.reads == LONG


async def test_small_reads_have_a_cost_of_their_own() -> None:
    collector = Collector(stored(*[b"x"] * 1000)).start()
    assert max(await bytes_per_turn(collector)) <= TURN_BYTES / READ_COST_BYTES


async def test_a_read_of_more_than_a_turn_is_delivered_whole() -> None:
    reads = [b"a", b"x" * (2 * TURN_BYTES), b"b"]
    collector = Collector(stored(*reads)).start()
    assert await bytes_per_turn(collector) == [1, 2 * TURN_BYTES, 1]
    assert collector.reads == reads


async def test_pausing_and_resuming_does_not_make_a_turn_longer() -> None:
    collector = Collector(stored(*LONG), on_data=Collector.pause_and_resume).start()
    assert max(await bytes_per_turn(collector)) <= TURN_BYTES


async def test_iteration_yields_to_other_tasks() -> None:
    taken = 0

    async def iterate() -> None:
        nonlocal taken
        async for data in reads_of(stored(*LONG)):
            taken += len(data)

    task = asyncio.create_task(iterate())
    await turns(4)
    assert 0 < taken <= 4 * TURN_BYTES
    await task
    assert taken == 1 << 20


async def test_nothing_is_delivered_while_it_is_paused() -> None:
    answer = stored(b"a", b"b")
    collector = Collector(answer, on_data=Collector.pause).start()
    await run_until_idle()
    assert (collector.reads, answer.ended) == ([b"a"], False)
    collector.resume()
    await run_until_idle()
    assert (collector.reads, collector.is_ended, answer.ended) == ([b"a", b"b"], False, True)
    collector.resume()
    assert collector.is_ended


async def test_a_pause_between_turns_holds() -> None:
    collector = Collector(stored(*LONG)).start()
    collector.pause()
    before = len(collector.reads)
    await run_until_idle()
    assert len(collector.reads) == before
    collector.resume()
    await run_until_idle()
    assert (collector.reads, collector.is_ended) == (LONG, True)


async def test_a_receiver_is_replaced_from_inside_the_call_of_the_first() -> None:
    answer = stored(b"a", b"b", b"c")
    second = Collector(answer)
    first = Collector(answer, on_data=lambda _: second.start() and None).start()
    assert (first.reads, second.reads, first.is_ended, second.is_ended) == ([b"a"], [b"b", b"c"], False, True)


async def test_a_receiver_that_comes_after_the_end_gets_the_end() -> None:
    answer = stored(b"a")
    Collector(answer).start()
    assert Collector(answer).start().outcome == (b"", True, None)


WHEN: dict[str, Callable[[Collector], None]] = {
    "between turns": lambda _: None,
    "while paused": Collector.pause,
}


@pytest.mark.parametrize("prepare", WHEN.values(), ids=WHEN.keys())
async def test_nothing_is_called_after_it_is_closed(prepare: Callable[[Collector], None]) -> None:
    answer = stored(*LONG)
    collector = Collector(answer).start()
    prepare(collector)
    before = len(collector.reads)
    await collector.aclose()
    answer.resume()
    answer.deliver(collector)
    await run_until_idle()
    assert len(collector.reads) == before
    await answer.aclose()
