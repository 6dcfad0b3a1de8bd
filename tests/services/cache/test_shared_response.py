"""Readers of one provider call pause, lag, leave and fail independently."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from bridge.errors import BrokenStream, ConnectFailed
from bridge.providers import Target
from bridge.relay.memory import MemoryBudget
from bridge.services.cache import read_chain, shared_call
from bridge.services.cache.shared_call import SharedCall, SharedResponse
from bridge.tasks import Tasks
from bridge.upstream.answer import UpstreamResponse
from bridge.upstream.body import TURN_BYTES
from bridge.upstream.http import Call
from tests.support.clock import run_until_idle
from tests.support.receivers import Collector, FedResponse


class Caller:
    """A provider call that is answered by `answer`, or fails."""

    request = Call("POST", Target("https", "api.example.com", None, b"/", "https://api.example.com"), [], b"", int)

    def __init__(self, answer: UpstreamResponse | Exception) -> None:
        self._answer = answer
        self.on_connected: Callable[[], None] = int

    async def __call__(self) -> UpstreamResponse:
        return await self.send(self.on_connected)

    async def acquire_slot(self) -> None: ...

    @contextmanager
    def waiting(self) -> Iterator[None]:
        yield

    async def send(self, on_connected: Callable[[], None]) -> UpstreamResponse:
        on_connected()
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class Shared:
    """A shared call, the provider's response that the test feeds, and the answers that were stored."""

    def __init__(self, answer: FedResponse | Exception | None = None, budget_bytes: int = 1 << 24) -> None:
        self.provider = answer if isinstance(answer, FedResponse) else FedResponse()
        self.budget = MemoryBudget(budget_bytes, "the cache")
        self.tasks = Tasks()
        self.closed = 0
        self.stored: list[tuple[int, list[bytes]]] = []
        self._caller = Caller(answer or self.provider)
        self._call = SharedCall(self.budget, self.tasks, self._on_closed, self._on_complete)

    def _on_closed(self, _: SharedCall) -> None:
        self.closed += 1

    def _on_complete(self, reader: SharedResponse, reads: list[bytes]) -> None:
        self.stored.append((reader.number, reads))

    async def open(self) -> SharedResponse:
        reader = self._call.join(60)
        await reader.open(self._caller)
        return reader

    async def reader(self, on_data: Callable[[Collector], None] | None = None) -> Collector:
        return Collector(await self.open(), on_data).start()


def leave(collector: Collector) -> None:
    """Close the reader within this call, as far as it needs no wait."""
    with suppress(StopIteration):
        collector.aclose().send(None)


async def test_each_read_reaches_every_reader_within_the_call_that_brings_it() -> None:
    shared = Shared()
    first, second = await shared.reader(), await shared.reader()
    shared.provider.arrive(b"a", b"b")
    assert first.reads == second.reads == [b"a", b"b"]
    shared.provider.finish()
    assert first.is_ended
    assert second.is_ended


async def test_a_body_that_is_complete_with_its_head_needs_no_turn() -> None:
    shared = Shared()
    shared.provider.arrive(b"all")
    shared.provider.finish()
    assert (await shared.reader()).outcome == (b"all", True, None)


async def test_the_provider_is_not_read_before_a_reader_receives() -> None:
    shared = Shared()
    answer = await shared.open()
    shared.provider.arrive(b"a")
    assert not shared.provider.is_flowing
    assert Collector(answer).start().reads == [b"a"]
    assert shared.provider.is_flowing


# Pausing


async def test_one_of_two_readers_pauses_and_resumes() -> None:
    shared = Shared()
    first, second = await shared.reader(), await shared.reader()
    shared.provider.arrive(b"a")
    first.pause()
    shared.provider.arrive(b"b")
    assert (first.reads, second.reads) == ([b"a"], [b"a", b"b"])
    assert shared.provider.is_flowing
    first.resume()
    assert first.reads == [b"a", b"b"]
    shared.provider.arrive(b"c")
    shared.provider.finish()
    assert first.outcome == second.outcome == (b"abc", True, None)


async def test_the_provider_is_paused_while_no_reader_wants_data() -> None:
    shared = Shared()
    first, second = await shared.reader(), await shared.reader()
    first.pause()
    assert shared.provider.is_flowing
    second.pause()
    assert not shared.provider.is_flowing
    shared.provider.arrive(b"a")
    second.resume()
    assert (first.reads, second.reads, shared.provider.is_flowing) == ([], [b"a"], True)


async def test_readers_may_pause_and_resume_from_inside_a_call() -> None:
    shared = Shared()
    one_by_one = await shared.reader(Collector.pause)
    wavering = await shared.reader(Collector.pause_and_resume)
    shared.provider.arrive(b"a", b"b")
    assert (one_by_one.reads, wavering.reads) == ([b"a"], [b"a", b"b"])
    for expected in (b"ab", b"ab"):
        one_by_one.resume()
        assert one_by_one.text == expected
    shared.provider.arrive(b"c")
    shared.provider.finish()
    assert (one_by_one.outcome, wavering.outcome) == ((b"abc", False, None), (b"abc", True, None))
    one_by_one.resume()
    assert one_by_one.is_ended


async def test_a_reader_that_another_one_resumes_gets_each_read_once() -> None:
    shared = Shared()
    other: Collector
    first = await shared.reader(lambda _: other.resume())
    other = await shared.reader()
    other.pause()
    shared.provider.arrive(b"a", b"b")
    shared.provider.finish()
    assert first.reads == other.reads == [b"a", b"b"]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of more than 100 bytes are not held, and the maximal lead is 100 bytes."""
    monkeypatch.setattr(read_chain, "MAX_ANSWER_BYTES", 100)
    monkeypatch.setattr(shared_call, "MAX_LEAD_BYTES", 100)


@pytest.mark.usefixtures("tiny")
async def test_the_provider_is_paused_while_one_reader_lags_too_far_behind() -> None:
    shared = Shared()
    slow, fast = await shared.reader(), await shared.reader()
    slow.pause()
    shared.provider.arrive(*[b"x" * 50] * 20)
    assert (len(slow.text), len(fast.text)) == (0, 150)
    assert not shared.provider.is_flowing
    slow.resume()
    assert (len(slow.text), len(fast.text)) == (1000, 1000)
    assert shared.provider.is_flowing


@pytest.mark.usefixtures("tiny")
async def test_the_provider_is_read_on_when_the_slow_reader_leaves() -> None:
    shared = Shared()
    slow, fast = await shared.reader(), await shared.reader()
    slow.pause()
    shared.provider.arrive(*[b"x" * 50] * 20)
    shared.provider.finish()
    await slow.aclose()
    assert (len(fast.text), fast.is_ended, len(slow.text)) == (1000, True, 0)


# Joining late


async def test_a_late_reader_gets_the_beginning_a_turn_at_a_time_and_then_follows() -> None:
    reads = [b"%07d " % number * 512 for number in range(256)]  # one MiB
    shared = Shared()
    early = await shared.reader()
    shared.provider.arrive(*reads)
    late = await shared.reader()
    counts = [len(late.text)]
    while len(late.text) < 1 << 20:
        await asyncio.sleep(0)
        counts.append(len(late.text) - sum(counts))
    assert max(counts) <= TURN_BYTES
    assert len(counts) >= 16
    shared.provider.arrive(b"live")
    assert late.reads == early.reads == [*reads, b"live"]


async def test_what_arrives_while_a_late_reader_catches_up_comes_in_order() -> None:
    shared = Shared()
    early = await shared.reader()
    shared.provider.arrive(*[b"a" * 10_000] * 20)
    late = await shared.reader()
    shared.provider.arrive(b"b")
    shared.provider.finish()
    assert early.is_ended
    assert 0 < len(late.text) <= TURN_BYTES
    await run_until_idle()
    assert late.outcome == early.outcome


async def test_a_reader_may_join_while_reads_are_distributed() -> None:
    shared = Shared()
    joined: list[asyncio.Task[Collector]] = []
    first = await shared.reader(lambda _: joined.append(asyncio.ensure_future(shared.reader())))
    shared.provider.arrive(b"a")
    late = await joined[0]
    shared.provider.arrive(b"b")
    assert first.reads == late.reads == [b"a", b"b"]


# Leaving


async def test_a_paused_reader_leaves_without_a_call() -> None:
    shared = Shared()
    leaving, staying = await shared.reader(), await shared.reader()
    leaving.pause()
    shared.provider.arrive(b"a")
    await leaving.aclose()
    shared.provider.arrive(b"b")
    shared.provider.finish()
    await run_until_idle()
    assert (leaving.outcome, staying.outcome) == ((b"", False, None), (b"ab", True, None))


async def test_a_reader_that_catches_up_leaves_between_turns_without_a_call() -> None:
    shared = Shared()
    await shared.reader()
    shared.provider.arrive(*[b"x" * 10_000] * 20)
    late = await shared.reader()
    before = len(late.text)
    await late.aclose()
    await run_until_idle()
    assert len(late.text) == before < 200_000


@pytest.mark.parametrize("leaves_at_once", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_reader_leaves_from_inside_a_call(place: int, leaves_at_once: bool) -> None:
    shared = Shared()
    leaving: list[Collector] = []
    tasks: list[asyncio.Task[None]] = []

    def go(_: Collector) -> None:
        if leaves_at_once:
            leave(leaving[0])
        else:
            tasks.append(asyncio.ensure_future(leaving[0].aclose()))

    readers = [await shared.reader(go if at == place else None) for at in range(3)]
    leaving.append(readers.pop(place))
    shared.provider.arrive(b"a")
    await run_until_idle()
    shared.provider.arrive(b"b")
    shared.provider.finish()
    assert leaving[0].outcome == (b"a", False, None)
    assert [reader.outcome for reader in readers] == [(b"ab", True, None)] * 2


async def test_a_reader_ends_another_one_from_inside_a_call() -> None:
    shared = Shared()
    others: list[Collector] = []
    first = await shared.reader(lambda _: leave(others[0]) if others else None)
    others.append(await shared.reader())
    shared.provider.arrive(b"a", b"b")
    assert (first.reads, others[0].reads) == ([b"a", b"b"], [])


async def test_the_last_reader_closes_the_provider_from_inside_a_call() -> None:
    shared = Shared()
    only = await shared.reader(leave)
    shared.provider.arrive(b"a", b"b")
    await run_until_idle()
    assert (only.reads, shared.provider.is_closed, shared.budget.used) == ([b"a"], True, 0)
    assert shared.closed


async def test_the_provider_is_closed_by_the_last_reader_only() -> None:
    shared = Shared()
    first, second = await shared.reader(), await shared.reader()
    shared.provider.arrive(b"a")
    await first.aclose()
    assert not shared.provider.is_closed
    assert shared.budget.used > 0
    await second.aclose()
    assert shared.provider.is_closed
    assert shared.budget.used == 0


@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_slow_reader_does_not_hold_the_providers_connection(is_cut: bool) -> None:
    shared = Shared()
    slow = await shared.reader()
    await shared.reader()
    slow.pause()
    shared.provider.arrive(b"a")
    (shared.provider.cut if is_cut else shared.provider.finish)()
    await run_until_idle()
    assert shared.provider.is_closed
    slow.resume()
    assert slow.outcome == (b"a", not is_cut, "cut" if is_cut else None)


# Failures


async def test_a_failure_reaches_every_reader_after_the_bytes_before_it() -> None:
    shared = Shared()
    prompt, paused = await shared.reader(), await shared.reader()
    paused.pause()
    shared.provider.arrive(*[b"x" * 10_000] * 20)
    late = await shared.reader()
    shared.provider.cut()
    assert prompt.outcome == (b"x" * 200_000, False, "cut")
    assert (len(late.text) < 200_000, late.error) == (True, None)
    paused.resume()
    await run_until_idle()
    assert late.outcome == paused.outcome == prompt.outcome
    errors = [prompt.error, paused.error, late.error]
    assert [type(error) for error in errors] == [BrokenStream] * 3
    assert len({id(error) for error in errors}) == 3, "each may be raised in a task of its own"
    assert (shared.stored, shared.closed > 0) == ([], True)


async def test_a_failure_before_the_head_is_raised_for_every_reader() -> None:
    shared = Shared(ConnectFailed("refused"))
    failures = await asyncio.gather(shared.open(), shared.open(), return_exceptions=True)
    assert [type(failure) for failure in failures] == [ConnectFailed] * 2
    assert failures[0] is not failures[1]


# Completing


async def test_a_complete_answer_is_stored_with_its_reads() -> None:
    shared = Shared()
    answer = await shared.open()
    Collector(answer, on_data=lambda each: answer.mark_complete() if len(each.reads) == 2 else None).start()
    shared.provider.arrive(b"a", b"b")
    assert shared.stored == [(1, [b"a", b"b"])]
    assert answer.is_done


@pytest.mark.parametrize("status", [304, 404, 500])
async def test_only_a_success_is_stored(status: int) -> None:
    shared = Shared(FedResponse(status))
    answer = await shared.open()
    assert shared.closed
    Collector(answer).start()
    shared.provider.arrive(b"a")
    shared.provider.finish()
    answer.mark_complete()
    assert shared.stored == []


# Everything at once


class Walk:
    """Random actions of a provider and of up to eight readers. The receivers check that no call is out of place."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.shared = Shared()
        self.sent = b""
        self.readers: list[Collector] = []
        self.paused: set[Collector] = set()

    async def step(self) -> None:
        await self._random.choice([self._arrive, self._arrive, self._join, self._pause, self._resume, self._leave])()
        if self._random.random() < 0.5:
            await asyncio.sleep(0)

    def check(self) -> None:
        caught_up = [each for each in self.readers if each not in self.paused and each.text == self.sent]
        behind = [len(self.sent) - len(each.text) for each in self.readers]
        assert all(self.sent.startswith(each.text) for each in self.readers)
        if self.readers and max(behind) <= shared_call.MAX_LEAD_BYTES:
            assert self.shared.provider.is_flowing or not caught_up
        if not caught_up:
            assert not self.shared.provider.is_flowing

    async def _arrive(self) -> None:
        if self.shared.provider.is_flowing:
            data = bytes([self._random.randrange(256)]) * self._random.choice([1, 100, 30_000, 100_000])
            self.sent += data
            self.shared.provider.arrive(data)

    async def _join(self) -> None:
        if len(self.readers) < 8 and not self.shared.closed:
            react = [None, self._react]
            self.readers.append(await self.shared.reader(self._random.choice(react)))

    def _react(self, reader: Collector) -> None:
        if self._random.random() < 0.3:
            reader.pause()
            self.paused.add(reader)

    async def _pause(self) -> None:
        if self.readers:
            self._react(self._random.choice(self.readers))

    async def _resume(self) -> None:
        if self.paused:
            reader = self._random.choice([each for each in self.readers if each in self.paused])
            self.paused.discard(reader)
            reader.resume()

    async def _leave(self) -> None:
        if len(self.readers) > 2:
            reader = self.readers.pop(self._random.randrange(len(self.readers)))
            self.paused.discard(reader)
            await reader.aclose()

    async def finish(self) -> None:
        self.shared.provider.finish()
        while not all(reader.is_ended for reader in self.readers):
            await self._resume()
            await run_until_idle()
        assert [reader.text == self.sent for reader in self.readers] == [True] * len(self.readers)
        for reader in self.readers:
            await reader.aclose()


@pytest.mark.parametrize("seed", range(40))
async def test_readers_that_act_at_random_get_what_was_sent(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_chain, "MAX_ANSWER_BYTES", 1_000_000 if seed % 2 else 1 << 30)
    monkeypatch.setattr(shared_call, "MAX_LEAD_BYTES", 200_000)
    walk = Walk(seed)
    walk.readers += [await walk.shared.reader(), await walk.shared.reader()]
    for _ in range(200):
        await walk.step()
        walk.check()
    await walk.finish()
    await run_until_idle()
    assert (walk.shared.provider.is_closed, walk.shared.budget.used) == (True, 0)
