"""A body of any httpx transport is delivered to a receiver, and iterated, with backpressure."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from bridge.upstream.body import PumpedBody, PushedBody, Reads, pushed
from tests.support.clock import run_until_idle, turns
from tests.support.receivers import Collector

Part = bytes | Exception | asyncio.Event


class Stream(httpx.AsyncByteStream):
    """Yields bytes, raises exceptions and waits for events; counts what was taken from it."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts
        self.taken = 0
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            if isinstance(part, asyncio.Event):
                await part.wait()
                continue
            self.taken += 1
            if isinstance(part, Exception):
                raise part
            yield part

    async def aclose(self) -> None:
        self.is_closed = True


async def collected(*parts: Part) -> Collector:
    collector = Collector(PumpedBody(Stream(*parts))).start()
    await run_until_idle()
    return collector


async def test_each_read_is_one_call_and_empty_reads_are_left_out() -> None:
    collector = await collected(b"", b"a", b"", b"bc", b"")
    assert (collector.reads, collector.is_ended) == ([b"a", b"bc"], True)


async def test_a_failure_is_told_after_the_bytes_before_it() -> None:
    assert (await collected(b"a", httpx.ReadError("cut"))).outcome == (b"a", False, "cut")


async def test_a_defect_of_the_transport_fails_the_body() -> None:
    collector = await collected(b"a", ValueError("a defect"))
    assert collector.outcome == (b"a", False, "a defect")
    assert isinstance(collector.error, ValueError)


async def test_a_paused_body_is_not_read() -> None:
    stream = Stream(b"a", b"b", b"c")
    body = PumpedBody(stream)
    collector = Collector(body, on_data=lambda each: each.pause() if each.reads == [b"a"] else None).start()
    await run_until_idle()
    assert (collector.reads, stream.taken, body.ended) == ([b"a"], 1, False)
    collector.resume()
    collector.pause()
    await run_until_idle()
    assert (collector.reads, stream.taken) == ([b"a"], 1)
    collector.resume()
    await run_until_idle()
    assert (collector.text, collector.is_ended, body.ended) == (b"abc", True, True)


@pytest.mark.parametrize("ending", [(), (httpx.ReadError("cut"),)])
async def test_the_end_waits_while_the_body_is_paused(ending: tuple[Exception, ...]) -> None:
    gate = asyncio.Event()
    collector = Collector(PumpedBody(Stream(b"a", gate, *ending))).start()
    await run_until_idle()
    collector.pause()
    gate.set()
    await run_until_idle()
    assert collector.outcome == (b"a", False, None)
    collector.resume()
    assert collector.outcome == (b"a", not ending, "cut" if ending else None)


async def test_a_later_receiver_replaces_the_first() -> None:
    gate = asyncio.Event()
    body = PumpedBody(Stream(b"a", gate, b"b"))
    first = Collector(body).start()
    await run_until_idle()
    second = Collector(body).start()
    gate.set()
    await run_until_idle()
    assert (first.outcome, second.outcome) == ((b"a", False, None), (b"b", True, None))


@pytest.mark.parametrize("ending", [(), (httpx.ReadError("cut"),)])
async def test_a_receiver_that_comes_after_the_end_gets_the_end(ending: tuple[Exception, ...]) -> None:
    body = PumpedBody(Stream(b"a", *ending))
    Collector(body).start()
    await run_until_idle()
    assert Collector(body).start().outcome == (b"", not ending, "cut" if ending else None)


@pytest.mark.parametrize("is_paused", [False, True])
async def test_nothing_is_called_after_the_body_is_closed(is_paused: bool) -> None:
    gate = asyncio.Event()
    stream = Stream(b"a", gate, b"b")
    body = PumpedBody(stream)
    collector = Collector(body).start()
    await run_until_idle()
    if is_paused:
        collector.pause()
    await collector.aclose()
    gate.set()
    body.resume()
    body.deliver(collector)
    await run_until_idle()
    assert (collector.outcome, stream.is_closed) == ((b"a", False, None), True)
    await body.aclose()


async def test_a_long_body_yields_to_other_tasks() -> None:
    collector = Collector(PumpedBody(Stream(*[b"x" * 1000] * 1000))).start()
    await turns(5)
    assert 0 < len(collector.text) < 5 * 65_536
    await run_until_idle()
    assert collector.outcome == (b"x" * 1_000_000, True, None)


async def test_a_pushed_body_is_not_pumped() -> None:
    body = PumpedBody(Stream())
    assert pushed(body) is body
    assert isinstance(pushed(Stream()), PushedBody)


# By iteration


async def test_a_body_is_iterated_read_by_read_and_ends_ever_after() -> None:
    reads = Reads(PumpedBody(Stream(b"a", b"b")))
    assert [data async for data in reads] == [b"a", b"b"]
    with pytest.raises(StopAsyncIteration):
        await anext(reads)


async def test_an_iterated_body_is_read_on_demand() -> None:
    stream = Stream(b"a", b"b", b"c")
    reads = aiter(PumpedBody(stream))
    assert await anext(reads) == b"a"
    await run_until_idle()
    assert stream.taken == 1


async def test_an_iterated_body_that_fails_raises_ever_after() -> None:
    reads = Reads(PumpedBody(Stream(b"a", httpx.ReadError("cut"))))
    assert await anext(reads) == b"a"
    for _ in range(2):
        with pytest.raises(httpx.ReadError):
            await anext(reads)


async def test_a_cancelled_read_loses_no_data() -> None:
    gate = asyncio.Event()
    reads = Reads(PumpedBody(Stream(gate, b"a", b"b")))
    first = asyncio.ensure_future(anext(reads))
    await run_until_idle()
    first.cancel()
    gate.set()
    await run_until_idle()
    assert [data async for data in reads] == [b"a", b"b"]
