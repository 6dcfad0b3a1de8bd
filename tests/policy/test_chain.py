"""Outcomes in, decisions out: one table, then what a table does not show."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.policy.breaker import BreakerKey, Breakers
from bridge.policy.chain import (
    Broke,
    Cause,
    Chain,
    Decision,
    Failed,
    GiveUp,
    Outcome,
    PolicyRefusal,
    Reason,
    Relay,
    Skip,
    SkipReason,
    StepAnswered,
    StepPolicy,
    Try,
)

NO_JITTER = 0.5


def key(model: str, token: str = "token") -> BreakerKey:
    return BreakerKey("gateway", token, "https://provider.test", model)


ONCE = StepPolicy(
    max_attempts=1,
    retry_delay_ms=500,
    backoff="exponential",
    max_retry_after_ms=10_000,
    on_policy="answer",
    on_break="error",
    breaker_key=key("one"),
    origin="https://one.example:",
    request_timeout_counts=True,
)
TWICE = replace(ONCE, max_attempts=2)
THRICE = replace(ONCE, max_attempts=3)
LINEAR = replace(THRICE, backoff="linear", retry_delay_ms=100)
PICKY = replace(ONCE, on_policy="next")
RESTARTS = replace(ONCE, on_break="restart")
OTHER = replace(ONCE, breaker_key=key("two"), origin="https://two.example:")
THIRD = replace(ONCE, breaker_key=key("three"), origin="https://three.example:")
SAME = replace(ONCE, breaker_key=key("four"))
"""Another model at the origin of the first step."""


def status(number: int, retry_after_ms: int | None = None) -> Failed:
    return Failed(Cause.STATUS, number, retry_after_ms)


CONNECT, TLS, RESET, BREAK = Failed(Cause.CONNECT), Failed(Cause.TLS), Failed(Cause.RESET), Failed(Cause.BREAK)
TIMEOUT, REDIRECT, UNUSABLE = Failed(Cause.TIMEOUT), Failed(Cause.REDIRECT), Failed(Cause.UNUSABLE)
NO_QUOTA = Failed(Cause.STATUS, 429, exhausted_quota=True)

FAILED = "give up: failed"
BROKE = "give up: broke"
RELAY = "relay"


def kept_out(*steps: int) -> tuple[Skip, ...]:
    """By their breakers."""
    return tuple(Skip(step, SkipReason.BREAKER) for step in steps)


def shown(decision: Decision) -> str:
    """`0.2 in 1.5s, last` is the second attempt of step 0 after a wait of 1.5 s, with nothing after it."""
    match decision:
        case Relay():
            return RELAY
        case GiveUp():
            return f"give up: {decision.reason.name.lower()}"
        case Try():
            wait = f" in {decision.wait_s:g}s" if decision.wait_s else ""
            return f"{decision.step}.{decision.attempt}{wait}{', last' if decision.last else ''}"


def decisions(steps: Sequence[StepPolicy], outcomes: Sequence[Outcome]) -> list[str]:
    chain = Chain(steps, Breakers())
    return [shown(chain.start(0)), *(shown(chain.next(outcome, 0, NO_JITTER)) for outcome in outcomes)]


CHAINS = {
    "the first step answers": ([ONCE, OTHER], [StepAnswered()], ["0.1", RELAY]),
    "the only step answers": ([ONCE], [StepAnswered()], ["0.1, last", RELAY]),
    "the only step fails": ([ONCE], [status(500)], ["0.1, last", FAILED]),
    "the next step answers": ([ONCE, OTHER], [status(500), StepAnswered()], ["0.1", "1.1, last", RELAY]),
    "every step fails": ([ONCE, OTHER, THIRD], [CONNECT, TLS, TIMEOUT], ["0.1", "1.1", "2.1, last", FAILED]),
    "retries, then the next step": (
        [THRICE, TWICE],
        [status(500), RESET, BREAK, CONNECT, status(529)],
        ["0.1", "0.2 in 0.5s", "0.3 in 1s", "1.1", "1.2 in 0.5s, last", FAILED],
    ),
    "a retry answers": ([TWICE, OTHER], [status(503), StepAnswered()], ["0.1", "0.2 in 0.5s", RELAY]),
    "the pause grows as the step says": (
        [LINEAR],
        [status(500), status(500), status(500)],
        ["0.1", "0.2 in 0.1s", "0.3 in 0.2s, last", FAILED],
    ),
    "Retry-After takes the place of the pause": (
        [THRICE],
        [status(429, 1500), status(503, 0), status(503, 0)],
        ["0.1", "0.2 in 1.5s", "0.3, last", FAILED],
    ),
    "Retry-After may ask for the limit": ([TWICE], [status(429, 10_000)], ["0.1", "0.2 in 10s, last"]),
    "and for no more": ([TWICE, OTHER], [status(429, 10_001)], ["0.1", "1.1, last"]),
    "not even on the last step": ([TWICE], [status(429, 10_001)], ["0.1", FAILED]),
    "it holds for a later step to the same origin": (
        [ONCE, SAME, OTHER],
        [status(429, 1500), StepAnswered()],
        ["0.1", "1.1 in 1.5s", RELAY],
    ),
    "also behind one to another": (
        [ONCE, OTHER, SAME],
        [status(503, 9000), status(500), StepAnswered()],
        ["0.1", "1.1", "2.1 in 9s, last", RELAY],
    ),
    "but that step is passed over if it would wait too long": (
        [ONCE, SAME, OTHER],
        [status(429, 10_001), StepAnswered()],
        ["0.1", "2.1, last", RELAY],
    ),
    "unless it allows more": (
        [ONCE, replace(SAME, max_retry_after_ms=20_000)],
        [status(429, 10_001)],
        ["0.1", "1.1 in 10.001s, last"],
    ),
    "and if none is left, the event fails": ([ONCE, SAME], [status(429, 10_001)], ["0.1", FAILED]),
    "the longest counts": (
        [TWICE, SAME],
        [status(429, 3000), status(429, 1000), StepAnswered()],
        ["0.1", "0.2 in 3s", "1.1 in 3s, last", RELAY],
    ),
    "a failure that sends to the next step at once holds nothing up": (
        [ONCE, SAME],
        [Failed(Cause.STATUS, 429, 5000, exhausted_quota=True)],
        ["0.1", "1.1, last"],
    ),
    "nor does a bad request": ([ONCE, SAME], [status(400, 5000)], ["0.1", "1.1, last"]),
    "exhausted quota is not retried": ([TWICE, OTHER], [NO_QUOTA], ["0.1", "1.1, last"]),
    "not even on the last step, either": ([TWICE], [NO_QUOTA], ["0.1", FAILED]),
    "a timeout goes to the next step at once": ([THRICE, OTHER], [TIMEOUT], ["0.1", "1.1, last"]),
    "and on the last step is retried": ([TWICE], [TIMEOUT, TIMEOUT], ["0.1", "0.2 in 0.5s, last", FAILED]),
    "a refusal is the answer": ([TWICE, OTHER], [PolicyRefusal()], ["0.1", RELAY]),
    "unless another opinion is wanted": (
        [PICKY, OTHER],
        [PolicyRefusal(), PolicyRefusal()],
        ["0.1", "1.1, last", RELAY],
    ),
    "and none is left": ([PICKY], [PolicyRefusal()], ["0.1, last", FAILED]),
    "a broken stream is an error": ([ONCE, OTHER], [StepAnswered(), Broke()], ["0.1", RELAY, BROKE]),
    "unless a restart is wanted": (
        [RESTARTS, OTHER],
        [StepAnswered(), Broke(), StepAnswered()],
        ["0.1", RELAY, "1.1, last", RELAY],
    ),
    "and no step is left": ([RESTARTS], [StepAnswered(), Broke()], ["0.1, last", RELAY, BROKE]),
    "each step says what its own break is": (
        [RESTARTS, RESTARTS, ONCE],
        [StepAnswered(), Broke(), StepAnswered(), Broke(), StepAnswered(), Broke()],
        ["0.1", RELAY, "1.1", RELAY, "2.1, last", RELAY, BROKE],
    ),
    "a restart is never on the same step": (
        [replace(RESTARTS, max_attempts=5), TWICE],
        [StepAnswered(), Broke(), status(500), status(500)],
        ["0.1", RELAY, "1.1", "1.2 in 0.5s, last", FAILED],
    ),
}


@pytest.mark.parametrize(("steps", "outcomes", "expected"), CHAINS.values(), ids=CHAINS)
def test_chain(steps: list[StepPolicy], outcomes: list[Outcome], expected: list[str]) -> None:
    assert decisions(steps, outcomes) == expected


@pytest.mark.parametrize("number", [408, 409, 425, 429, 500, 502, 503, 504, 520, 524, 529, 599])
def test_these_statuses_are_retried_on_the_same_step(number: int) -> None:
    assert decisions([TWICE, OTHER], [status(number)])[-1] == "0.2 in 0.5s"


@pytest.mark.parametrize("number", [400, 401, 402, 403, 404, 405, 410, 413, 422, 451, 499, 501, 505, 600])
def test_these_statuses_go_to_the_next_step(number: int) -> None:
    assert decisions([TWICE, OTHER], [status(number)])[-1] == "1.1, last"


@pytest.mark.parametrize(
    ("cause", "following", "on_last_step"),
    [
        (Cause.CONNECT, "0.2 in 0.5s", "0.2 in 0.5s, last"),
        (Cause.RESET, "0.2 in 0.5s", "0.2 in 0.5s, last"),
        (Cause.BREAK, "0.2 in 0.5s", "0.2 in 0.5s, last"),
        (Cause.TIMEOUT, "1.1, last", "0.2 in 0.5s, last"),
        (Cause.TLS, "1.1, last", FAILED),
        (Cause.REDIRECT, "1.1, last", FAILED),
        (Cause.UNUSABLE, "1.1, last", FAILED),
    ],
)
def test_every_other_cause_has_its_course(cause: Cause, following: str, on_last_step: str) -> None:
    assert decisions([TWICE, OTHER], [Failed(cause)])[-1] == following
    assert decisions([TWICE], [Failed(cause)])[-1] == on_last_step


@pytest.mark.parametrize(("chance", "wait_s"), [(0.0, 0.4), (0.5, 0.5), (0.75, 0.55)])
def test_chance_spreads_the_pause(chance: float, wait_s: float) -> None:
    chain = Chain([TWICE], Breakers())
    chain.start(0)
    assert chain.next(CONNECT, 0, chance) == Try(0, 2, wait_s, last=True)


def test_chance_does_not_spread_what_the_provider_asked_for() -> None:
    chain = Chain([TWICE], Breakers())
    chain.start(0)
    assert chain.next(status(429, 2000), 0, chance=0.9) == Try(0, 2, wait_s=2.0, last=True)


def test_a_chain_has_a_step() -> None:
    with pytest.raises(AssertionError):
        Chain([], Breakers())


# The chain and the breakers.


def opened(*models: str) -> Breakers:
    """The first model's key opened at 0 s, the second's at 1 s, and so on: each for 5 s."""
    breakers = Breakers()
    for at, model in enumerate(models):
        for _ in range(5):
            breakers.failed(key(model), at, None)
    return breakers


def test_a_step_whose_breaker_is_open_is_skipped() -> None:
    assert Chain([ONCE, OTHER], opened("one")).start(4) == Try(1, 1, 0.0, last=True, skipped=kept_out(0))


def test_every_skipped_step_on_the_way_is_named_once() -> None:
    chain = Chain([OTHER, ONCE, THIRD, THIRD], opened("one", "two"))
    assert chain.start(4) == Try(2, 1, 0.0, last=False, skipped=kept_out(0, 1))
    assert chain.next(status(400), 4, NO_JITTER) == Try(3, 1, 0.0, last=True)


def test_a_due_step_is_probed_and_a_success_closes_it() -> None:
    breakers = opened("one")
    chain = Chain([ONCE, OTHER], breakers)
    assert chain.start(5) == Try(0, 1, 0.0, last=False)
    assert Chain([ONCE, OTHER], breakers).start(5) == Try(1, 1, 0.0, last=True, skipped=kept_out(0)), (
        "one probe at a time"
    )
    assert chain.next(StepAnswered(), 6, NO_JITTER) == Relay()
    assert breakers.due_at(key("one")) == -math.inf


def test_a_failed_probe_may_be_retried_as_the_step_says_but_doubles_the_interval_once() -> None:
    breakers = opened("one")
    chain = Chain([THRICE, OTHER], breakers)
    chain.start(5)
    assert chain.next(status(500), 6, NO_JITTER) == Try(0, 2, 0.5, last=False)
    assert chain.next(status(500), 7, NO_JITTER) == Try(0, 3, 1.0, last=False)
    assert breakers.due_at(key("one")) == 16


def test_if_all_steps_are_open_the_one_due_first_is_tried_as_its_probe() -> None:
    breakers = opened("two", "one")
    assert Chain([ONCE, OTHER], breakers).start(4) == Try(1, 1, 0.0, last=True, skipped=kept_out(0))
    assert breakers.due_at(key("two")) == 9, "its probe is in flight"
    assert Chain([ONCE, OTHER], breakers).start(4) == Try(0, 1, 0.0, last=False), "so another event probes the other"


def test_if_every_probe_is_in_flight_the_step_due_first_is_tried_all_the_same() -> None:
    breakers = opened("one", "two")
    for now in (4.0, 4.5):
        Chain([ONCE, OTHER], breakers).start(now)
    assert Chain([ONCE, OTHER], breakers).start(4.6) == Try(0, 1, 0.0, last=False)


def test_a_running_probe_keeps_no_chain_out_that_has_no_other_step() -> None:
    breakers = opened("one")
    probe = Chain([ONCE], breakers)
    probe.start(5)
    beside_it = Chain([ONCE], breakers)
    assert beside_it.start(5) == Try(0, 1, 0.0, last=True)
    beside_it.next(CONNECT, 6, NO_JITTER)
    assert breakers.due_at(key("one")) == 10, "it is no probe: its failure changes nothing"
    probe.next(CONNECT, 7, NO_JITTER)
    assert breakers.due_at(key("one")) == 17


def test_an_answer_beside_a_running_probe_closes_the_breaker() -> None:
    breakers = opened("one")
    Chain([ONCE], breakers).start(5)
    beside_it = Chain([ONCE], breakers)
    beside_it.start(5)
    beside_it.next(StepAnswered(), 5, NO_JITTER)
    assert breakers.due_at(key("one")) == -math.inf


def test_a_request_without_a_breaker_is_neither_skipped_nor_counted() -> None:
    breakers = opened("one")
    no_model_call = replace(ONCE, breaker_key=None)
    for outcome in (CONNECT, RESET, StepAnswered(complete=True)):
        chain = Chain([no_model_call, OTHER], breakers)
        assert chain.start(1) == Try(0, 1, 0.0, last=False)
        chain.next(outcome, 1, NO_JITTER)
        chain.abandon(1)
    assert (len(breakers), breakers.due_at(key("one"))) == (1, 5)


def test_after_a_real_failure_open_steps_are_skipped_and_none_is_forced() -> None:
    chain = Chain([ONCE, OTHER, THIRD], opened("two", "three"))
    chain.start(4)
    assert chain.next(status(400), 4, NO_JITTER) == GiveUp(Reason.FAILED, skipped=kept_out(1, 2))


def test_a_restart_skips_open_steps_too() -> None:
    chain = Chain([RESTARTS, OTHER, THIRD], opened("two"))
    chain.start(4)
    chain.next(StepAnswered(), 4, NO_JITTER)
    assert chain.next(Broke(), 4, NO_JITTER) == Try(2, 1, 0.0, last=True, skipped=kept_out(1))


def test_later_steps_with_the_key_of_a_failed_probe_are_skipped() -> None:
    chain = Chain([ONCE, ONCE, OTHER], opened("one"))
    chain.start(5)
    assert chain.next(CONNECT, 6, NO_JITTER) == Try(2, 1, 0.0, last=True, skipped=kept_out(1))


@pytest.mark.parametrize("outcome", [PolicyRefusal(), status(401), status(429), NO_QUOTA, TLS, REDIRECT, UNUSABLE])
def test_an_outcome_that_tells_nothing_of_the_provider_releases_the_probe(outcome: Outcome) -> None:
    breakers = opened("one")
    chain = Chain([ONCE], breakers)
    chain.start(5)
    chain.next(outcome, 6, NO_JITTER)
    assert breakers.due_at(key("one")) == 5, "due at once, for another probe"


def test_an_abandoned_attempt_releases_its_probe() -> None:
    breakers = opened("one")
    chain = Chain([ONCE], breakers)
    chain.start(5)
    chain.abandon(6)
    chain.abandon(6)
    assert breakers.due_at(key("one")) == 5


def test_abandoning_is_harmless_at_any_time() -> None:
    breakers = opened("one")
    chain = Chain([ONCE], breakers)
    chain.abandon(4)
    chain.start(5)
    chain.next(CONNECT, 6, NO_JITTER)
    chain.abandon(7)
    assert breakers.due_at(key("one")) == 16


def is_counted(step: StepPolicy, *outcomes: Outcome) -> bool:
    breakers = Breakers()
    chain = Chain([step], breakers)
    chain.start(0)
    for outcome in outcomes:
        chain.next(outcome, 0, NO_JITTER)
    return len(breakers) == 1


HASTY = replace(ONCE, request_timeout_counts=False)


@pytest.mark.parametrize("outcome", [CONNECT, RESET, BREAK, TIMEOUT, status(500), status(503), status(529)])
def test_a_fault_of_the_provider_counts(outcome: Outcome) -> None:
    assert is_counted(ONCE, outcome)


@pytest.mark.parametrize(
    "outcome", [PolicyRefusal(), TLS, REDIRECT, UNUSABLE, NO_QUOTA, *map(status, (400, 401, 408, 429, 501, 505))]
)
def test_a_fault_of_credentials_or_input_does_not(outcome: Outcome) -> None:
    assert not is_counted(ONCE, outcome)


def test_an_error_in_an_unknown_word_is_retried_and_does_not_count() -> None:
    unknown = replace(status(500), is_known=False)
    assert not is_counted(ONCE, unknown)
    assert not is_counted(ONCE, StepAnswered(), Broke(Cause.STATUS, 500, is_known=False))
    assert decisions([TWICE, OTHER], [unknown])[-1] == "0.2 in 0.5s"


def test_a_timeout_counts_only_if_it_is_as_long_as_the_gateways_own() -> None:
    assert not is_counted(HASTY, TIMEOUT)
    assert is_counted(HASTY, BREAK)


def test_a_stream_that_broke_after_it_answered_counts_by_its_cause() -> None:
    assert is_counted(ONCE, StepAnswered(), Broke())
    assert is_counted(ONCE, StepAnswered(), Broke(Cause.TIMEOUT))
    assert not is_counted(HASTY, StepAnswered(), Broke(Cause.TIMEOUT))
    assert is_counted(ONCE, StepAnswered(), Broke(Cause.STATUS, 529))
    assert not is_counted(ONCE, StepAnswered(), Broke(Cause.STATUS, 400))


def test_a_chain_that_answers_leaves_no_trace_in_the_breakers() -> None:
    assert not is_counted(ONCE, StepAnswered())


def test_streams_that_break_one_after_the_other_are_failures_in_a_row() -> None:
    breakers = Breakers()
    for _ in range(5):
        chain = Chain([ONCE], breakers)
        chain.start(0)
        chain.next(StepAnswered(), 0, NO_JITTER)
        chain.next(Broke(), 0, NO_JITTER)
    assert breakers.due_at(key("one")) == 5


def test_a_whole_answer_ends_the_row() -> None:
    breakers = Breakers()
    for outcome in [CONNECT] * 4 + [StepAnswered()]:
        chain = Chain([ONCE], breakers)
        chain.start(0)
        chain.next(outcome, 0, NO_JITTER)
        assert len(breakers) == 1
    assert chain.next(StepAnswered(complete=True), 0, NO_JITTER) == Relay()
    assert len(breakers) == 0


# What holds for every chain.

step_policies = st.builds(
    StepPolicy,
    max_attempts=st.integers(1, 5),
    retry_delay_ms=st.integers(0, 5000),
    backoff=st.sampled_from(["constant", "linear", "exponential"]),
    max_retry_after_ms=st.integers(0, 20_000),
    on_policy=st.sampled_from(["answer", "next"]),
    on_break=st.sampled_from(["error", "restart"]),
    breaker_key=st.sampled_from([key("a"), key("b"), key("c"), None]),
    request_timeout_counts=st.booleans(),
)
statuses = st.builds(
    Failed,
    st.just(Cause.STATUS),
    st.sampled_from([400, 408, 429, 500, 501]),
    st.none() | st.integers(0, 20_000),
    st.booleans(),
)
failures = st.sampled_from([CONNECT, TLS, RESET, BREAK, TIMEOUT, REDIRECT, UNUSABLE]) | statuses
broken_answers = st.tuples(st.just(StepAnswered()), st.just(Broke()))
attempts = (failures | st.just(PolicyRefusal())).map(lambda outcome: (outcome,)) | broken_answers
"""What the calls of one attempt tell the chain, in order: never an answer that holds."""


def test_what_an_origin_asked_for_passes_with_time() -> None:
    chain = Chain([ONCE, OTHER, SAME], Breakers())
    chain.start(0)
    chain.next(status(429, 4000), 0, NO_JITTER)
    assert shown(chain.next(status(500), 3, NO_JITTER)) == "2.1 in 1s, last"


def test_a_step_that_is_passed_over_says_why() -> None:
    chain = Chain([ONCE, SAME, OTHER], Breakers())
    chain.start(0)
    decision = chain.next(status(429, 60_000), 0, NO_JITTER)
    assert isinstance(decision, Try)
    assert decision.skipped == ((1, SkipReason.RETRY_AFTER),)


@given(
    chains=st.lists(st.lists(step_policies, min_size=1, max_size=4), min_size=1, max_size=6),
    pauses_s=st.lists(st.floats(0, 40), min_size=1),
    chance=st.floats(0, 1, exclude_max=True),
    data=st.data(),
)
def test_every_chain_ends_within_its_attempts_and_only_moves_forwards(
    chains: list[list[StepPolicy]], pauses_s: list[float], chance: float, data: st.DataObject
) -> None:
    breakers, now = Breakers(max_keys=2), 0.0
    for steps in chains:
        chain, tried, skipped = Chain(steps, breakers), list[tuple[int, int]](), list[int]()
        decision: Decision = chain.start(now)
        while isinstance(decision, Try):
            tried.append((decision.step, decision.attempt))
            skipped += [step for step, _ in decision.skipped]
            assert decision.wait_s >= 0
            now += decision.wait_s + pauses_s[len(tried) % len(pauses_s)]
            was_last = decision.last
            for outcome in data.draw(attempts):
                decision = chain.next(outcome, now, chance)
            assert not (was_last and isinstance(decision, Try))
        if isinstance(decision, GiveUp):
            skipped += [step for step, _ in decision.skipped]
        assert len(tried) <= sum(step.max_attempts for step in steps)
        assert tried == sorted(set(tried)), "steps in order, attempts in order, nothing twice"
        assert all(attempt <= steps[step].max_attempts for step, attempt in tried)
        assert len(skipped) == len(set(skipped))
        assert not {step for step, _ in tried} & set(skipped)
        if decision == GiveUp(Reason.FAILED):
            assert {step for step, _ in tried} | set(skipped) == set(range(len(steps)))
