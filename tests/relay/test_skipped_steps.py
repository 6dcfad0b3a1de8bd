"""A step whose provider keeps failing is skipped for a while and probed."""

import asyncio

import pytest

from bridge.settings.step import StepSettings
from tests.clock import advance
from tests.provider_script import RESET, SILENCE, Plays, answers, refuses, streams
from tests.stage import OVERLOADED, ROLE, WHOLE, House, Stage, said, step

COUNTED: dict[str, Plays] = {
    "a connection refused": refuses(),
    "a reset": Plays(waiting=[RESET]),
    "HTTP 500": answers(status=500),
    "HTTP 529": answers(status=529),
    "a stream that broke before it answered": streams(ROLE, RESET),
    "a stream that broke after it answered": streams(said("a"), RESET),
    "an error in a stream that stands for 503": streams(OVERLOADED),
}
NOT_COUNTED: dict[str, Plays] = {
    **{f"HTTP {status}": answers(status=status) for status in (302, 400, 401, 404, 408, 429)},
    "an error in a stream that stands for 400": streams(b'data: {"error":{"type":"invalid_request_error"}}\n\n'),
}
CHAIN = [step(), step("groq")]


async def after_five(play: Plays, *more: Plays) -> House:
    house = House(*[play] * 5, *more)
    for _ in range(5):
        stage = await house.event(step()).begin()
        stage.check_nothing_is_left()
    return house


def listed(stage: Stage) -> list[tuple[str, int | None]]:
    """The attempts that the last frame tells of."""
    return [(attempt["step"], attempt.get("code")) for attempt in stage.frames[-1]["metadata"]["attempts"]]


@pytest.mark.parametrize("play", COUNTED.values(), ids=COUNTED)
async def test_five_failures_in_a_row_open_it_and_a_skipped_step_is_listed(play: Plays) -> None:
    house = await after_five(play, answers())
    stage = await house.event(CHAIN).begin()
    assert listed(stage) == [("0", 9023), ("1", None)]
    assert stage.metadata["step"] == "1"
    assert len(house.provider.played) == 6


@pytest.mark.parametrize("play", [streams(*WHOLE), answers()], ids=["a stream", "in one piece"])
async def test_a_whole_answer_ends_the_row(play: Plays) -> None:
    house = House(*[refuses()] * 4, play, *[refuses()] * 4, answers())
    for _ in range(9):
        stage = await house.event(step()).begin()
        stage.check_nothing_is_left()
    assert (await house.event(CHAIN).begin()).metadata["step"] == "0"


@pytest.mark.parametrize("play", NOT_COUNTED.values(), ids=NOT_COUNTED)
async def test_faults_of_credentials_or_input_do_not_count(play: Plays) -> None:
    house = await after_five(play, answers())
    stage = await house.event(CHAIN).begin()
    assert stage.metadata["step"] == "0"


@pytest.mark.parametrize(("asked_ms", "skipped"), [(1000, False), (2000, True), (0, True)])
async def test_a_timeout_counts_unless_it_is_shorter_than_the_gateways_own(asked_ms: int, skipped: bool) -> None:
    own = StepSettings(request_timeout=2000, total_timeout=3000)
    house = House(*[Plays(waiting=[SILENCE])] * 5, answers())
    for _ in range(5):
        stage = await house.event(step(requestTimeout=asked_ms or 2000), settings=own).begin()
        await stage.pass_s(2.1)
        assert stage.code == 9013
    stage = await house.event(CHAIN, settings=own).begin()
    assert (stage.metadata["step"] == "1") is skipped


async def test_it_is_per_model_and_base_url() -> None:
    house = await after_five(refuses(), answers(), answers())
    other_model = step() | {"query": {"model": "large"}}
    for request in (other_model, step("groq")):
        stage = await house.event([request, step("mistral")]).begin()
        assert stage.metadata["step"] == "0"


async def test_after_ten_seconds_one_event_probes_it_while_others_go_by() -> None:
    gate = asyncio.Event()
    house = await after_five(refuses(), Plays(WHOLE, waiting=[gate]), answers(), answers())
    advance(10.1)
    probe = await house.event(CHAIN).begin()
    other = await house.event(CHAIN).begin()
    assert listed(other) == [("0", 9023), ("1", None)]
    await probe.open(gate)
    assert (probe.code, probe.metadata["step"]) == (None, "0")
    again = await house.event(CHAIN).begin()
    assert again.metadata["step"] == "0", "its answer has closed the breaker"


async def test_a_probe_that_fails_keeps_it_open_for_twice_as_long() -> None:
    house = await after_five(refuses(), refuses(), *[answers()] * 3)
    advance(10.1)
    probe = await house.event(CHAIN).begin()
    assert listed(probe) == [("0", 9010), ("1", None)]
    advance(19.8)
    assert (await house.event(CHAIN).begin()).metadata["step"] == "1"
    advance(0.3)
    assert (await house.event(CHAIN).begin()).metadata["step"] == "0"


@pytest.mark.parametrize("how", ["cancelled", "out of time", "refused for its input"])
async def test_a_probe_that_told_nothing_of_the_provider_leaves_the_next_event_to_probe(how: str) -> None:
    play = answers(status=400) if how == "refused for its input" else Plays(waiting=[SILENCE])
    house = await after_five(refuses(), play, answers())
    advance(10.1)
    probe = await house.event(step(totalTimeout=1000)).begin()
    if how == "cancelled":
        await probe.cancel()
    elif how == "out of time":
        await probe.pass_s(1.1)
    probe.check_nothing_is_left()
    assert (await house.event(CHAIN).begin()).metadata["step"] == "0"


async def test_if_all_steps_are_open_the_one_due_first_is_tried() -> None:
    house = House(*[refuses()] * 10, answers())
    for request in [step("groq")] * 5 + [step()] * 5:
        await house.event(request).begin()
        advance(0.1)
    stage = await house.event(CHAIN).begin()
    assert listed(stage) == [("0", 9023), ("1", None)], "the second step opened first"


async def test_a_probe_forced_before_its_time_does_not_make_the_wait_longer() -> None:
    house = await after_five(refuses(), refuses(), *[answers()] * 2)
    advance(5)
    assert (await house.event(step()).begin()).code == 9010
    advance(9.9)
    assert (await house.event(CHAIN).begin()).metadata["step"] == "1"
    advance(0.2)
    assert (await house.event(CHAIN).begin()).metadata["step"] == "0"


async def test_while_every_steps_probe_is_in_flight_the_answer_says_for_how_long() -> None:
    house = await after_five(refuses(), Plays(waiting=[SILENCE]))
    advance(4)
    probe = await house.event(step()).begin()
    advance(1)
    stage = await house.event(step()).begin()
    await probe.cancel()
    assert (stage.types, stage.code) == (["created"], 9023)
    error = stage.last()["error"]
    assert (stage.metadata["status"], error["source"], error["retryable"]) == (503, "bridge", True)
    assert 8900 <= error["retryAfterMs"] <= 9000
    assert stage.last()["response"]["internalCode"] == 9023


async def test_skipped_steps_behind_a_failed_one_are_listed_and_its_answer_is_the_answer() -> None:
    house = await after_five(refuses(), answers(b'{"error":"no"}', 401))
    stage = await house.event([step("groq"), step()]).begin()
    assert listed(stage) == [("0", 401), ("1", 9023)]
    assert (stage.metadata["step"], stage.metadata["status"]) == ("0", 401)


async def test_a_restart_skips_open_steps_too() -> None:
    house = await after_five(refuses(), streams(said("a"), RESET), answers())
    stage = await house.event([step("groq", onBreak="restart"), step(), step("mistral")]).begin()
    assert listed(stage) == [("0", 9016), ("1", 9023), ("2", None)]
