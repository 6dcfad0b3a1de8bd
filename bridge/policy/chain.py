"""Decide the next attempt from the steps of one event and the outcome of each attempt. Pure.

The caller carries out each decision and reports the outcome, until the decision is Relay or GiveUp:

    decision = chain.start(now)
    while True:
        match decision:
            case Try(): ...             # wait, call; then decision = chain.next(outcome, now, chance)
            case Relay() | GiveUp(): ...
            case _: assert_never(decision)

Steps are tried in order, without going back. Breakers are checked when a step is entered, not before its retries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal, NamedTuple, assert_never

from bridge.policy.backoff import Backoff, delay_ms
from bridge.policy.breaker import BreakerKey, Breakers, Probing


@dataclass(frozen=True, slots=True)
class StepPolicy:
    """Settings and keys of one step that the chain uses."""

    max_attempts: int
    retry_delay_ms: int
    backoff: Backoff
    max_retry_after_ms: int
    on_policy: Literal["answer", "next"]
    on_break: Literal["error", "restart"]
    breaker_key: BreakerKey | None
    """None for a request that is not a model call: breakers neither count nor stop it."""
    origin: str
    """Scheme, host and port of the provider. A Retry-After applies to all steps with the same origin."""
    request_timeout_counts: bool
    """True if the timeouts are not shorter than the gateway's. Failures of shorter ones are not the provider's."""


class Cause(Enum):
    """Reasons why an attempt failed."""

    CONNECT = auto()  # refused, reset while connecting, unknown host
    TLS = auto()
    RESET = auto()  # reset or cut after the request was sent
    BREAK = auto()  # a broken or empty stream
    TIMEOUT = auto()
    STATUS = auto()  # an HTTP error, or an error in a stream with the status of its type
    REDIRECT = auto()
    UNUSABLE = auto()  # an item too large, a body that is not JSON where JSON is required


OUTAGES: Final = frozenset({Cause.CONNECT, Cause.RESET, Cause.BREAK})
"""Retried on the same step, and counted by the breakers: credentials or input do not cause them."""

SERVER_ERRORS: Final = frozenset(range(500, 600)) - {501, 505}
"""Counted by the breakers. 501 and 505 are caused by the request: its method or HTTP version."""
RETRIED_STATUSES: Final = SERVER_ERRORS | {408, 409, 425, 429}


# Outcomes of an attempt.


@dataclass(frozen=True, slots=True)
class StepAnswered:
    """A good answer. For a stream it is reported at the first answer item, and again at the complete end."""

    complete: bool = False


@dataclass(frozen=True, slots=True)
class PolicyRefusal:
    """HTTP 400 with a code that reports a content policy violation."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer. `status` is set exactly if the cause is STATUS; `retry_after_ms` is the provider's request."""

    cause: Cause
    status: int | None = None
    retry_after_ms: int | None = None
    exhausted_quota: bool = False
    is_known: bool = True
    """False for an unknown error type: it may be caused by credentials or input."""


@dataclass(frozen=True, slots=True)
class Broke:
    """The stream failed after it had answered: reported after `StepAnswered`."""

    cause: Cause = Cause.BREAK
    status: int | None = None
    is_known: bool = True
    """Same meaning as in `Failed`."""


Outcome = StepAnswered | PolicyRefusal | Failed | Broke


# Decisions.


class Reason(Enum):
    FAILED = auto()  # all steps failed; the last response of a provider is the answer
    BROKE = auto()  # an answering stream broke, and there is no step to restart on


class SkipReason(Enum):
    BREAKER = auto()
    RETRY_AFTER = auto()  # its origin requested a longer wait than the step allows


class Skip(NamedTuple):
    """A step that is not tried."""

    step: int
    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Try:
    step: int
    attempt: int  # counted from 1 within the step
    wait_s: float  # before the call
    last: bool
    """True for the last attempt of the last step: no attempt can follow."""
    skipped: tuple[Skip, ...] = ()
    """Steps skipped between the previous decision and this one."""


@dataclass(frozen=True, slots=True)
class Relay:
    """The reported outcome is the event's answer. Report `Broke` if its stream breaks later."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: Reason
    skipped: tuple[Skip, ...] = ()
    """Same meaning as in `Try`."""


Decision = Try | Relay | GiveUp


class Chain:
    """The steps of one event, in order; at least one. Owned by the event; the breakers are shared by all events."""

    __slots__ = ("_attempt", "_breakers", "_not_before", "_probe", "_step", "_steps")

    def __init__(self, steps: Sequence[StepPolicy], breakers: Breakers) -> None:
        assert steps, "a chain has at least one step"
        self._steps = steps
        self._breakers = breakers
        self._step = -1
        self._attempt = 0
        self._probe: Probing | None = None
        self._not_before: dict[str, float] = {}
        """Instant until which an origin requested to wait."""

    def start(self, now: float) -> Try:
        """Return the first step that its breaker permits; if none, the step that is due first.

        `now` is, here and below, in seconds on the clock shared by all chains of the breakers.
        """
        step, skipped = self._first_due(0, now)
        if step is None:
            step = self._breakers.due_first([step.breaker_key for step in self._steps if step.breaker_key is not None])
        return self._enter(step, now, skipped[:step])

    def next(self, outcome: Outcome, now: float, chance: float) -> Decision:
        """Return the decision after the outcome of the last attempt; `chance` in [0, 1) varies the delay."""
        self._report_to_breaker(outcome, now)
        self._note_pause(outcome, now)
        match outcome:
            case StepAnswered():
                return Relay()
            case PolicyRefusal():
                return self._next_step(Reason.FAILED, now) if self._policy.on_policy == "next" else Relay()
            case Failed():
                return self._retry(outcome, chance) or self._next_step(Reason.FAILED, now)
            case Broke():
                return (
                    self._next_step(Reason.BROKE, now) if self._policy.on_break == "restart" else GiveUp(Reason.BROKE)
                )
            case _:
                assert_never(outcome)

    def abandon(self, now: float) -> None:
        """End an attempt without outcome (cancelled, out of time). May be called at any time and more than once."""
        if self._policy.breaker_key is not None:
            self._breakers.release(self._policy.breaker_key, self._probe)

    @property
    def _policy(self) -> StepPolicy:
        return self._steps[self._step]

    @property
    def _is_last_step(self) -> bool:
        return self._step == len(self._steps) - 1

    def _retry(self, failed: Failed, chance: float) -> Try | None:
        if self._attempt >= self._policy.max_attempts or not self._is_retried(failed):
            return None
        wait_ms = failed.retry_after_ms
        if wait_ms is None:
            wait_ms = delay_ms(self._policy.backoff, self._policy.retry_delay_ms, self._attempt, chance)
        self._attempt += 1
        return self._try(wait_ms / 1000)

    def _is_retried(self, failed: Failed) -> bool:
        if failed.retry_after_ms is not None and failed.retry_after_ms > self._policy.max_retry_after_ms:
            return False
        match failed.cause:
            case Cause.STATUS:
                return _is_temporary(failed)
            case Cause.TIMEOUT:
                return self._is_last_step  # a retry would time out as well: prefer the next step
            case _:
                return failed.cause in OUTAGES

    def _next_step(self, reason: Reason, now: float) -> Try | GiveUp:
        """Return the next step that its breaker permits.

        Unlike at the start no step is forced: an attempt was made, whose response can end the event.
        """
        step, skipped = self._first_due(self._step + 1, now)
        if step is None:
            return GiveUp(reason, skipped)
        return self._enter(step, now, skipped)

    def _enter(self, step: int, now: float, skipped: tuple[Skip, ...]) -> Try:
        self._step = step
        self._attempt = 1
        key = self._policy.breaker_key
        self._probe = None if key is None else self._breakers.acquire(key, now)
        return self._try(self._pause_ms(step, now) / 1000, skipped)

    def _try(self, wait_s: float, skipped: tuple[Skip, ...] = ()) -> Try:
        last = self._is_last_step and self._attempt >= self._policy.max_attempts
        return Try(self._step, self._attempt, wait_s, last, skipped)

    def _first_due(self, following: int, now: float) -> tuple[int | None, tuple[Skip, ...]]:
        """Return the first step that may be tried, None if there is none, and the skipped steps before it."""
        skipped: list[Skip] = []
        for step in range(following, len(self._steps)):
            reason = self._skip_reason(step, now)
            if reason is None:
                return step, tuple(skipped)
            skipped.append(Skip(step, reason))
        return None, tuple(skipped)

    def _skip_reason(self, step: int, now: float) -> SkipReason | None:
        policy = self._steps[step]
        if policy.breaker_key is not None and self._breakers.due_at(policy.breaker_key) > now:
            return SkipReason.BREAKER
        return SkipReason.RETRY_AFTER if self._pause_ms(step, now) > policy.max_retry_after_ms else None

    def _note_pause(self, outcome: Outcome, now: float) -> None:
        """Store the wait that a temporary failure requests. Other failures do not say when to retry."""
        if isinstance(outcome, Failed) and outcome.retry_after_ms is not None and _is_temporary(outcome):
            origin = self._policy.origin
            until = now + outcome.retry_after_ms / 1000
            self._not_before[origin] = max(until, self._not_before.get(origin, until))

    def _pause_ms(self, step: int, now: float) -> int:
        if not self._not_before:
            return 0
        return max(0, round((self._not_before.get(self._steps[step].origin, now) - now) * 1000))

    def _report_to_breaker(self, outcome: Outcome, now: float) -> None:
        key = self._policy.breaker_key
        if key is None:
            return
        if isinstance(outcome, StepAnswered):
            (self._breakers.succeeded if outcome.complete else self._breakers.answered)(key)
        elif is_provider_fault(outcome, self._policy):
            self._breakers.failed(key, now, self._probe)
        else:
            self._breakers.release(key, self._probe)


def _is_temporary(failed: Failed) -> bool:
    """Return True for a status that a retry may resolve."""
    return failed.status in RETRIED_STATUSES and not failed.exhausted_quota


def is_provider_fault(outcome: PolicyRefusal | Failed | Broke, policy: StepPolicy) -> bool:
    """Return True if a breaker counts the outcome. Others (401, 429, a bad certificate …) do not interrupt a row."""
    match outcome:
        case PolicyRefusal():
            return False
        case Failed(cause=Cause.TIMEOUT) | Broke(cause=Cause.TIMEOUT):
            return policy.request_timeout_counts
        case Failed(cause=Cause.STATUS) | Broke(cause=Cause.STATUS):
            return outcome.status in SERVER_ERRORS and outcome.is_known
        case _:
            return outcome.cause in OUTAGES
