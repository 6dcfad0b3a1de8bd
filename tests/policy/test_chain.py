"""Decisions of the chain by the outcomes of attempts, and its reports to the breakers."""

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
NEXT_ON_POLICY = replace(ONCE, on_policy="next")
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


def skipped_by_breaker(*steps: int) -> tuple[Skip, ...]:
    return tuple(Skip(step, SkipReason.BREAKER) for step in steps)


def describe(decision: Decision) -> str:
    """Return a decision as text: `0.2 in 1.5s, last` is the last attempt, the second of step 0, after 1.5 s."""
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
    return [describe(chain.start(0)), *(describe(chain.next(outcome, 0, NO_JITTER)) for outcome in outcomes)]


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
    "the delay follows the backoff setting": (
        [LINEAR],
        [status(500), status(500), status(500)],
        ["0.1", "0.2 in 0.1s", "0.3 in 0.2s, last", FAILED],
    ),
    "Retry-After replaces the delay": (
        [THRICE],
        [status(429, 1500), status(503, 0), status(503, 0)],
        ["0.1", "0.2 in 1.5s", "0.3, last", FAILED],
    ),
    "Retry-After up to the limit is waited for": ([TWICE], [status(429, 10_000)], ["0.1", "0.2 in 10s, last"]),
    "Retry-After above the limit goes to the next step": ([TWICE, OTHER], [status(429, 10_001)], ["0.1", "1.1, last"]),
    "Retry-After above the limit on the last step fails": ([TWICE], [status(429, 10_001)], ["0.1", FAILED]),
    "Retry-After applies to a later step of the same origin": (
        [ONCE, SAME, OTHER],
        [status(429, 1500), StepAnswered()],
        ["0.1", "1.1 in 1.5s", RELAY],
    ),
    "Retry-After applies behind a step of another origin": (
        [ONCE, OTHER, SAME],
        [status(503, 9000), status(500), StepAnswered()],
        ["0.1", "1.1", "2.1 in 9s, last", RELAY],
    ),
    "a step that would wait too long is skipped": (
        [ONCE, SAME, OTHER],
        [status(429, 10_001), StepAnswered()],
        ["0.1", "2.1, last", RELAY],
    ),
    "a step that allows a longer wait is tried": (
        [ONCE, replace(SAME, max_retry_after_ms=20_000)],
        [status(429, 10_001)],
        ["0.1", "1.1 in 10.001s, last"],
    ),
    "the event fails if all later steps would wait too long": ([ONCE, SAME], [status(429, 10_001)], ["0.1", FAILED]),
    "the longest Retry-After counts": (
        [TWICE, SAME],
        [status(429, 3000), status(429, 1000), StepAnswered()],
        ["0.1", "0.2 in 3s", "1.1 in 3s, last", RELAY],
    ),
    "Retry-After of an exhausted quota is ignored": (
        [ONCE, SAME],
        [Failed(Cause.STATUS, 429, 5000, exhausted_quota=True)],
        ["0.1", "1.1, last"],
    ),
    "Retry-After of a bad request is ignored": ([ONCE, SAME], [status(400, 5000)], ["0.1", "1.1, last"]),
    "exhausted quota is not retried": ([TWICE, OTHER], [NO_QUOTA], ["0.1", "1.1, last"]),
    "exhausted quota is not retried on the last step": ([TWICE], [NO_QUOTA], ["0.1", FAILED]),
    "a timeout goes to the next step": ([THRICE, OTHER], [TIMEOUT], ["0.1", "1.1, last"]),
    "a timeout on the last step is retried": ([TWICE], [TIMEOUT, TIMEOUT], ["0.1", "0.2 in 0.5s, last", FAILED]),
    "a policy refusal is the answer": ([TWICE, OTHER], [PolicyRefusal()], ["0.1", RELAY]),
    "a policy refusal goes to the next step if on_policy is next": (
        [NEXT_ON_POLICY, OTHER],
        [PolicyRefusal(), PolicyRefusal()],
        ["0.1", "1.1, last", RELAY],
    ),
    "a policy refusal on the last step with on_policy next fails": (
        [NEXT_ON_POLICY],
        [PolicyRefusal()],
        ["0.1, last", FAILED],
    ),
    "a broken stream is an error": ([ONCE, OTHER], [StepAnswered(), Broke()], ["0.1", RELAY, BROKE]),
    "a broken stream restarts if on_break is restart": (
        [RESTARTS, OTHER],
        [StepAnswered(), Broke(), StepAnswered()],
        ["0.1", RELAY, "1.1, last", RELAY],
    ),
    "a broken stream on the last step is an error": (
        [RESTARTS],
        [StepAnswered(), Broke()],
        ["0.1, last", RELAY, BROKE],
    ),
    "the on_break setting of the broken step applies": (
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
def test_a_chain_decides_by_outcomes(steps: list[StepPolicy], outcomes: list[Outcome], expected: list[str]) -> None:
    assert decisions(steps, outcomes) == expected


@pytest.mark.parametrize("number", [408, 409, 425, 429, 500, 502, 503, 504, 520, 524, 529, 599])
def test_temporary_statuses_are_retried_on_the_same_step(number: int) -> None:
    assert decisions([TWICE, OTHER], [status(number)])[-1] == "0.2 in 0.5s"


@pytest.mark.parametrize("number", [400, 401, 402, 403, 404, 405, 410, 413, 422, 451, 499, 501, 505, 600])
def test_permanent_statuses_go_to_the_next_step(number: int) -> None:
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
def test_each_cause_is_retried_or_goes_to_the_next_step(cause: Cause, following: str, on_last_step: str) -> None:
    assert decisions([TWICE, OTHER], [Failed(cause)])[-1] == following
    assert decisions([TWICE], [Failed(cause)])[-1] == on_last_step


@pytest.mark.parametrize(("chance", "wait_s"), [(0.0, 0.4), (0.5, 0.5), (0.75, 0.55)])
def test_jitter_varies_the_delay(chance: float, wait_s: float) -> None:
    chain = Chain([TWICE], Breakers())
    chain.start(0)
    assert chain.next(CONNECT, 0, chance) == Try(0, 2, wait_s, last=True)


def test_jitter_does_not_vary_a_requested_delay() -> None:
    chain = Chain([TWICE], Breakers())
    chain.start(0)
    assert chain.next(status(429, 2000), 0, chance=0.9) == Try(0, 2, wait_s=2.0, last=True)


def test_a_chain_needs_at_least_one_step() -> None:
    with pytest.raises(AssertionError):
        Chain([], Breakers())


# The chain and the breakers.


def opened(*models: str) -> Breakers:
    """Open the first model's key at 0 s, the second's at 1 s, and so on, each for 5 s."""
    breakers = Breakers()
    for at, model in enumerate(models):
        for _ in range(5):
            breakers.failed(key(model), at, None)
    return breakers


def test_a_step_whose_breaker_is_open_is_skipped() -> None:
    assert Chain([ONCE, OTHER], opened("one")).start(4) == Try(1, 1, 0.0, last=True, skipped=skipped_by_breaker(0))


def test_every_skipped_step_is_reported_once() -> None:
    chain = Chain([OTHER, ONCE, THIRD, THIRD], opened("one", "two"))
    assert chain.start(4) == Try(2, 1, 0.0, last=False, skipped=skipped_by_breaker(0, 1))
    assert chain.next(status(400), 4, NO_JITTER) == Try(3, 1, 0.0, last=True)


def test_a_due_step_is_probed_and_an_answer_closes_its_breaker() -> None:
    breakers = opened("one")
    chain = Chain([ONCE, OTHER], breakers)
    assert chain.start(5) == Try(0, 1, 0.0, last=False)
    assert Chain([ONCE, OTHER], breakers).start(5) == Try(1, 1, 0.0, last=True, skipped=skipped_by_breaker(0)), (
        "one probe at a time"
    )
    assert chain.next(StepAnswered(), 6, NO_JITTER) == Relay()
    assert breakers.due_at(key("one")) == -math.inf


def test_a_retried_probe_doubles_the_interval_once() -> None:
    breakers = opened("one")
    chain = Chain([THRICE, OTHER], breakers)
    chain.start(5)
    assert chain.next(status(500), 6, NO_JITTER) == Try(0, 2, 0.5, last=False)
    assert chain.next(status(500), 7, NO_JITTER) == Try(0, 3, 1.0, last=False)
    assert breakers.due_at(key("one")) == 16


def test_the_step_due_first_is_probed_if_all_are_open() -> None:
    breakers = opened("two", "one")
    assert Chain([ONCE, OTHER], breakers).start(4) == Try(1, 1, 0.0, last=True, skipped=skipped_by_breaker(0))
    assert breakers.due_at(key("two")) == 9, "its probe is in flight"
    assert Chain([ONCE, OTHER], breakers).start(4) == Try(0, 1, 0.0, last=False), "another event probes the other step"


def test_the_step_due_first_is_tried_if_all_are_being_probed() -> None:
    breakers = opened("one", "two")
    for now in (4.0, 4.5):
        Chain([ONCE, OTHER], breakers).start(now)
    assert Chain([ONCE, OTHER], breakers).start(4.6) == Try(0, 1, 0.0, last=False)


def test_a_running_probe_does_not_block_a_chain_without_another_step() -> None:
    breakers = opened("one")
    probe = Chain([ONCE], breakers)
    probe.start(5)
    other = Chain([ONCE], breakers)
    assert other.start(5) == Try(0, 1, 0.0, last=True)
    other.next(CONNECT, 6, NO_JITTER)
    assert breakers.due_at(key("one")) == 10, "the failure of a call that is not a probe changes nothing"
    probe.next(CONNECT, 7, NO_JITTER)
    assert breakers.due_at(key("one")) == 17


def test_an_answer_beside_a_running_probe_closes_the_breaker() -> None:
    breakers = opened("one")
    Chain([ONCE], breakers).start(5)
    other = Chain([ONCE], breakers)
    other.start(5)
    other.next(StepAnswered(), 5, NO_JITTER)
    assert breakers.due_at(key("one")) == -math.inf


def test_a_request_without_a_breaker_is_neither_skipped_nor_counted() -> None:
    breakers = opened("one")
    without_breaker = replace(ONCE, breaker_key=None)
    for outcome in (CONNECT, RESET, StepAnswered(complete=True)):
        chain = Chain([without_breaker, OTHER], breakers)
        assert chain.start(1) == Try(0, 1, 0.0, last=False)
        chain.next(outcome, 1, NO_JITTER)
        chain.abandon(1)
    assert (len(breakers), breakers.due_at(key("one"))) == (1, 5)


def test_no_open_step_is_forced_after_a_failed_attempt() -> None:
    chain = Chain([ONCE, OTHER, THIRD], opened("two", "three"))
    chain.start(4)
    assert chain.next(status(400), 4, NO_JITTER) == GiveUp(Reason.FAILED, skipped=skipped_by_breaker(1, 2))


def test_a_restart_skips_open_steps() -> None:
    chain = Chain([RESTARTS, OTHER, THIRD], opened("two"))
    chain.start(4)
    chain.next(StepAnswered(), 4, NO_JITTER)
    assert chain.next(Broke(), 4, NO_JITTER) == Try(2, 1, 0.0, last=True, skipped=skipped_by_breaker(1))


def test_later_steps_with_the_key_of_a_failed_probe_are_skipped() -> None:
    chain = Chain([ONCE, ONCE, OTHER], opened("one"))
    chain.start(5)
    assert chain.next(CONNECT, 6, NO_JITTER) == Try(2, 1, 0.0, last=True, skipped=skipped_by_breaker(1))


@pytest.mark.parametrize("outcome", [PolicyRefusal(), status(401), status(429), NO_QUOTA, TLS, REDIRECT, UNUSABLE])
def test_an_inconclusive_outcome_releases_the_probe(outcome: Outcome) -> None:
    breakers = opened("one")
    chain = Chain([ONCE], breakers)
    chain.start(5)
    chain.next(outcome, 6, NO_JITTER)
    assert breakers.due_at(key("one")) == 5, "due for another probe"


def test_an_abandoned_attempt_releases_its_probe() -> None:
    breakers = opened("one")
    chain = Chain([ONCE], breakers)
    chain.start(5)
    chain.abandon(6)
    chain.abandon(6)
    assert breakers.due_at(key("one")) == 5


def test_abandon_after_an_outcome_changes_nothing() -> None:
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


SHORT_TIMEOUTS = replace(ONCE, request_timeout_counts=False)


@pytest.mark.parametrize("outcome", [CONNECT, RESET, BREAK, TIMEOUT, status(500), status(503), status(529)])
def test_a_provider_fault_is_counted(outcome: Outcome) -> None:
    assert is_counted(ONCE, outcome)


@pytest.mark.parametrize(
    "outcome", [PolicyRefusal(), TLS, REDIRECT, UNUSABLE, NO_QUOTA, *map(status, (400, 401, 408, 429, 501, 505))]
)
def test_a_fault_of_credentials_or_input_is_not_counted(outcome: Outcome) -> None:
    assert not is_counted(ONCE, outcome)


def test_an_unknown_error_type_is_retried_and_not_counted() -> None:
    unknown = replace(status(500), is_known=False)
    assert not is_counted(ONCE, unknown)
    assert not is_counted(ONCE, StepAnswered(), Broke(Cause.STATUS, 500, is_known=False))
    assert decisions([TWICE, OTHER], [unknown])[-1] == "0.2 in 0.5s"


def test_a_timeout_is_counted_if_it_is_not_shorter_than_the_gateways() -> None:
    assert not is_counted(SHORT_TIMEOUTS, TIMEOUT)
    assert is_counted(SHORT_TIMEOUTS, BREAK)


def test_a_broken_stream_is_counted_by_its_cause() -> None:
    assert is_counted(ONCE, StepAnswered(), Broke())
    assert is_counted(ONCE, StepAnswered(), Broke(Cause.TIMEOUT))
    assert not is_counted(SHORT_TIMEOUTS, StepAnswered(), Broke(Cause.TIMEOUT))
    assert is_counted(ONCE, StepAnswered(), Broke(Cause.STATUS, 529))
    assert not is_counted(ONCE, StepAnswered(), Broke(Cause.STATUS, 400))


def test_an_answering_chain_stores_no_breaker_state() -> None:
    assert not is_counted(ONCE, StepAnswered())


def test_consecutive_broken_streams_open_the_breaker() -> None:
    breakers = Breakers()
    for _ in range(5):
        chain = Chain([ONCE], breakers)
        chain.start(0)
        chain.next(StepAnswered(), 0, NO_JITTER)
        chain.next(Broke(), 0, NO_JITTER)
    assert breakers.due_at(key("one")) == 5


def test_a_complete_answer_ends_the_row_of_failures() -> None:
    breakers = Breakers()
    for outcome in [CONNECT] * 4 + [StepAnswered()]:
        chain = Chain([ONCE], breakers)
        chain.start(0)
        chain.next(outcome, 0, NO_JITTER)
        assert len(breakers) == 1
    assert chain.next(StepAnswered(complete=True), 0, NO_JITTER) == Relay()
    assert len(breakers) == 0


# Properties of every chain.

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
"""Outcomes that one attempt reports, in order: never a final answer."""


def test_a_requested_delay_expires() -> None:
    chain = Chain([ONCE, OTHER, SAME], Breakers())
    chain.start(0)
    chain.next(status(429, 4000), 0, NO_JITTER)
    assert describe(chain.next(status(500), 3, NO_JITTER)) == "2.1 in 1s, last"


def test_a_skipped_step_has_its_reason() -> None:
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
def test_every_chain_ends_within_its_attempts_and_only_moves_forward(
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
        assert tried == sorted(set(tried)), "steps and attempts in order, without repetition"
        assert all(attempt <= steps[step].max_attempts for step, attempt in tried)
        assert len(skipped) == len(set(skipped))
        assert not {step for step, _ in tried} & set(skipped)
        if decision == GiveUp(Reason.FAILED):
            assert {step for step, _ in tried} | set(skipped) == set(range(len(steps)))
