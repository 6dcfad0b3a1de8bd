"""The clocks of an event: what starts, stops and resets each, and what the client is told when one strikes."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.relay.deadlines import Clock, Interrupt
from tests.support.clock import advance, turns
from tests.support.event_harness import ROLE, WHOLE, EventHarness, House, said, step
from tests.support.event_harness import run as run_event
from tests.support.provider_script import JSON, SILENCE, Part, Plays, answers, streams

NO_LIMIT = {"connectTimeout": 0, "requestTimeout": 0, "idleTimeout": 0, "totalTimeout": 0}


async def begin(play: Plays, **config: object) -> EventHarness:
    """An event with no clock but those of `config`, in milliseconds."""
    return await House(play).event(step(**NO_LIMIT | config)).begin()


async def strikes_between(stage: EventHarness, after_s: float, before_s: float, code: int) -> None:
    await stage.pass_s(after_s)
    assert not stage.is_over
    await stage.pass_s(before_s - after_s)
    assert stage.code == code
    assert stage.metadata["status"] in {200, 502 if code == 9010 else 504}


async def test_connect_timeout_ends_with_the_connection() -> None:
    stage = await begin(Plays(connecting=[SILENCE]), connectTimeout=1000)
    assert stage.relay.phase == "connecting"
    await strikes_between(stage, 0.9, 1.1, 9010)
    assert "connectTimeout" in stage.last()["error"]["message"]
    gate = asyncio.Event()
    stage = await begin(Plays(WHOLE, waiting=[gate]), connectTimeout=1000)
    assert stage.relay.phase == "waiting"
    await stage.pass_s(100)
    await stage.open(gate)
    assert stage.code is None


async def test_it_ends_at_the_head_if_the_transport_tells_of_no_connection() -> None:
    gate = asyncio.Event()
    runtime = House(Plays([gate, *WHOLE]))
    runtime.provider.tells_of_connections = False
    stage = await runtime.event(step(**NO_LIMIT | {"connectTimeout": 1000})).begin()
    await stage.pass_s(100)
    await stage.open(gate)
    assert stage.code is None


async def test_request_timeout_runs_until_the_head() -> None:
    await strikes_between(await begin(Plays(waiting=[SILENCE]), requestTimeout=1000), 0.9, 1.1, 9013)


NO_ANSWER: dict[str, Part] = {
    "headers": b"",
    "comments": b": busy\n\n",
    "bookkeeping": ROLE,
    "half an item": said("a")[:-1],
}


@pytest.mark.parametrize("part", NO_ANSWER.values(), ids=NO_ANSWER)
@pytest.mark.parametrize("steps", [1, 2])
async def test_nor_do_headers_comments_bookkeeping_stop_request_timeout(part: Part, steps: int) -> None:
    """Neither where they are passed on at once, nor where they are held back."""
    runtime = House(streams(part, SILENCE), answers())
    chain = [step(**NO_LIMIT | {"requestTimeout": 5000}), step("groq")][:steps]
    stage = await runtime.event(chain).begin()
    await stage.pass_s(4.9)
    assert len(runtime.provider.played) == 1
    assert not stage.is_over
    await stage.pass_s(0.2)
    assert stage.metadata["attempts"][0]["code"] == 9013 if steps == 2 else stage.code == 9013


async def test_comments_for_longer_than_bookkeeping_is_held_are_no_answer_either() -> None:
    runtime = House(streams(b": busy\n\n", SILENCE), answers())
    stage = await runtime.event([step(**NO_LIMIT | {"requestTimeout": 30_000}), step("groq")]).begin()
    await stage.pass_s(29)
    assert stage.frames == []
    await stage.pass_s(2)
    assert (stage.code, stage.metadata["step"]) == (None, "1")


async def test_request_timeout_covers_an_answer_in_one_piece_to_its_end() -> None:
    stage = await begin(Plays([b'{"half":', SILENCE], content_type=JSON), requestTimeout=1000)
    await strikes_between(stage, 0.9, 1.1, 9013)


async def test_the_first_answer_item_stops_request_timeout() -> None:
    gate = asyncio.Event()
    stage = await begin(streams(said("a"), gate, *WHOLE), requestTimeout=1000)
    await stage.pass_s(100)
    await stage.open(gate)
    assert stage.types[-1] == "done"


@pytest.mark.parametrize("part", [said("b"), b": beat\n\n", b"data"], ids=["an item", "a comment", "a part"])
async def test_any_byte_resets_idle_timeout(part: bytes) -> None:
    gate = asyncio.Event()
    stage = await begin(streams(said("a"), gate, part, SILENCE), idleTimeout=1000)
    await stage.pass_s(0.9)
    await stage.open(gate)
    await strikes_between(stage, 0.9, 1.1, 9014)
    assert "idleTimeout" in stage.last()["error"]["message"]


async def test_also_of_an_answer_in_one_piece() -> None:
    gate = asyncio.Event()
    stage = await begin(Plays([b"{", gate, b" ", SILENCE], content_type=JSON), idleTimeout=1000)
    await stage.pass_s(0.9)
    await stage.open(gate)
    await strikes_between(stage, 0.9, 1.1, 9014)


async def test_idle_timeout_begins_with_the_head() -> None:
    gate = asyncio.Event()
    stage = await begin(Plays([SILENCE], waiting=[gate]), idleTimeout=1000)
    await stage.pass_s(100)
    await stage.open(gate)
    await strikes_between(stage, 0.9, 1.1, 9014)


async def test_no_clock_but_the_total_outlasts_its_attempt() -> None:
    gate = asyncio.Event()
    runtime = House(answers(status=400), Plays(WHOLE, waiting=[gate]))
    config = {"connectTimeout": 1000, "requestTimeout": 1000, "idleTimeout": 1000}
    stage = await runtime.event([step(**NO_LIMIT | config), step("groq", **NO_LIMIT)]).begin()
    await stage.pass_s(100)
    await stage.open(gate)
    assert stage.types[-1] == "done"


PHASES: dict[str, list[Plays]] = {
    "connecting": [Plays(connecting=[SILENCE])],
    "waiting for the head": [Plays(waiting=[SILENCE])],
    "collecting": [Plays([b'{"half":', SILENCE], content_type=JSON)],
    "holding": [streams(ROLE, SILENCE)],
    "streaming": [streams(said("a"), SILENCE)],
    "backing off": [answers(status=429, retry_after="5")],
}


@pytest.mark.parametrize("plays", PHASES.values(), ids=PHASES)
async def test_total_timeout_ends_every_phase(plays: list[Plays]) -> None:
    config = NO_LIMIT | {"totalTimeout": 1000, "maxAttempts": 2, "onBreak": "restart"}
    stage = await House(*plays).event([step(**config), step("groq")]).begin()
    await strikes_between(stage, 0.9, 1.1, 9015)
    assert stage.last()["error"]["retryable"] is False


async def test_total_timeout_counts_all_steps_and_retries_together() -> None:
    config = NO_LIMIT | {"requestTimeout": 600, "totalTimeout": 1000}
    runtime = House(*[Plays(waiting=[SILENCE])] * 2)
    stage = await runtime.event([step(**config), step("groq", **config)]).begin()
    await stage.pass_s(0.7)
    await strikes_between(stage, 0.2, 0.4, 9015)
    assert [a["code"] for a in stage.metadata["attempts"]] == [9013, 9015]


async def test_in_an_array_total_timeout_is_the_first_steps() -> None:
    steps = [step(**NO_LIMIT | {"totalTimeout": 2000}), step("groq", **NO_LIMIT | {"totalTimeout": 500})]
    stage = await House(answers(status=400), Plays(waiting=[SILENCE])).event(steps).begin()
    await strikes_between(stage, 1.9, 2.1, 9015)


async def test_zero_is_no_limit() -> None:
    gate = asyncio.Event()
    stage = await begin(Plays(WHOLE, connecting=[gate]))
    await stage.pass_s(10 * 3_600)
    await stage.open(gate)
    assert stage.types[-1] == "done"


DEFAULTS = {
    "connect 10 s": (Plays(connecting=[SILENCE]), 10, 9010),
    "request 600 s": (Plays(waiting=[SILENCE]), 600, 9013),
    "idle 300 s": (streams(said("a"), SILENCE), 300, 9014),
}


@pytest.mark.parametrize(("play", "seconds", "code"), DEFAULTS.values(), ids=DEFAULTS)
async def test_defaults(play: Plays, seconds: float, code: int) -> None:
    stage = await House(play).event(step()).begin()
    await strikes_between(stage, seconds - 0.1, seconds + 0.1, code)


async def test_a_timeout_goes_to_the_next_step_and_is_retried_on_the_last_alone() -> None:
    silent = Plays(waiting=[SILENCE])
    config = {"requestTimeout": 1000, "maxAttempts": 2, "retryDelay": 0}
    stage = await House(silent, silent, answers()).event([step(**config), step("groq", **config)]).begin()
    await stage.pass_s(1.1)
    await stage.pass_s(1.1)
    assert [(a["step"], a.get("code")) for a in stage.metadata["attempts"]] == [("0", 9013), ("1", 9013), ("1", None)]


# A client that does not read.


async def test_the_clocks_stand_still_while_the_client_does_not_read() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    config = {"idleTimeout": 1000, "totalTimeout": 2000}
    stage = await begin(streams(said("a"), gates[0], said("b"), gates[1], *WHOLE), **config)
    stage.sink.stop_reading()
    await stage.open(gates[0])
    reads = stage.runtime.provider.played[0].reads
    await stage.pass_s(100)
    assert not stage.is_over
    assert stage.runtime.provider.played[0].reads == reads, "the provider waits too"
    stage.sink.read_on()
    await turns()
    await stage.pass_s(0.9)
    await stage.open(gates[1])
    assert stage.types[-1] == "done"


async def test_and_go_on_from_where_they_stood() -> None:
    gate = asyncio.Event()
    stage = await begin(streams(said("a"), gate, said("b"), SILENCE), totalTimeout=2000)
    await stage.pass_s(1)
    stage.sink.stop_reading()
    await stage.open(gate)
    await stage.pass_s(100)
    stage.sink.read_on()
    await turns()
    await strikes_between(stage, 0.9, 1.1, 9015)


# Races.


async def test_when_two_clocks_strike_at_once_the_total_is_not_lost() -> None:
    config = NO_LIMIT | {"requestTimeout": 1000, "totalTimeout": 1000}
    stage = await House(Plays(waiting=[SILENCE])).event([step(**config), step("groq", **config)]).begin()
    await stage.pass_s(1.1)
    assert stage.code == 9015


async def test_a_total_that_strikes_while_another_clocks_blow_is_on_its_way_is_not_lost() -> None:
    """Whoever is interrupted may take some turns to come to its end."""
    alarm, struck = Interrupt(), list[Clock]()

    async def slow_to_end() -> None:
        alarm.attach()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            advance(1)
            await turns()
            struck.append(alarm.consume())
        await asyncio.sleep(0)  # and is not interrupted any more

    alarm.deadlines.set(Clock.IDLE, 1)
    alarm.deadlines.set(Clock.TOTAL, 2)
    task = asyncio.create_task(slow_to_end())
    await turns()
    advance(1)
    await task
    assert struck == [Clock.TOTAL]
    assert task.cancelling() == 0
    alarm.deadlines.stop()


async def test_a_deadline_that_an_earlier_one_clears_does_not_strike() -> None:
    """Both are due in one turn of the loop: what was held back goes out, and with that the step has answered."""
    config = NO_LIMIT | {"requestTimeout": 10_500}
    stage = await House(streams(ROLE, SILENCE)).event([step(**config), step("groq")]).begin()
    await stage.pass_s(11)
    assert stage.types == ["created", "stream"]
    assert not stage.is_over
    await stage.cancel()


async def test_a_cancellation_by_the_tasks_owner_is_not_taken_for_a_clock() -> None:
    alarm = Interrupt()

    async def interrupted_twice() -> None:
        alarm.attach()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            alarm.consume()

    alarm.deadlines.set(Clock.IDLE, 1)
    task = asyncio.create_task(interrupted_twice())
    await turns()
    asyncio.get_running_loop().call_soon(task.cancel)
    advance(1)
    await asyncio.wait([task])
    assert task.cancelled()
    alarm.deadlines.stop()


async def test_an_answer_that_has_come_cannot_be_overtaken_by_a_clock() -> None:
    """A long one is made a frame of in a thread, and the event's time runs out meanwhile."""
    body, thread_is_free = b"x" * (1 << 20), threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    occupied = loop.run_in_executor(None, thread_is_free.wait)
    stage = await run_event(step(totalTimeout=1000), Plays([body], content_type="text/plain"))
    await stage.pass_s(2)
    went_on = not stage.is_over
    thread_is_free.set()
    await occupied
    await stage.end()
    assert went_on
    assert stage.code is None
    assert len(stage.last()["response"]) == 1 << 20
