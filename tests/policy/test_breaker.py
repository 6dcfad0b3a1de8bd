"""Breakers: opening, probing and closing of keys, and the bounds of the store."""

import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.policy.breaker import BreakerKey, Breakers, Probing


def key_of(model: str, token: str = "token") -> BreakerKey:
    return BreakerKey("my-gateway", token, "https://api.openai.com", model)


KEY = key_of("gpt")
A, B, C, D, E, X = map(key_of, "abcdex")

PASSES = "passes"
PROBES = "probes"
SKIPPED = "skipped"

FOUR_FAILURES = [(0.0, "fail")] * 4
OPENED = [(0.0, "fail")] * 5

EVENTS = ("fail", "answer", "succeed", "enter", "probe fails", "release")


class Timeline:
    """Apply events to one key. "probe fails" and "release" refer to its latest probe."""

    def __init__(self) -> None:
        self.breakers = Breakers()
        self.probe: Probing | None = None

    def apply(self, at: float, event: str) -> None:
        match event:
            case "fail":
                self.breakers.failed(KEY, at, None)
            case "answer":
                self.breakers.answered(KEY)
            case "succeed":
                self.breakers.succeeded(KEY)
            case "enter":
                self.probe = self.breakers.acquire(KEY, at)
            case "probe fails":
                self.breakers.failed(KEY, at, self.probe)
            case "release":
                self.breakers.release(KEY, self.probe)

    def call(self, at: float) -> str:
        """Return how a call at this time is treated."""
        if self.breakers.due_at(KEY) > at:
            return SKIPPED
        return PASSES if self.breakers.acquire(KEY, at) is None else PROBES


TIMELINES = {
    "nothing known": ([], 0, PASSES),
    "four failures are not enough": ([*FOUR_FAILURES], 0, PASSES),
    "five failures open it for five seconds": ([*OPENED], 4.9, SKIPPED),
    "after five seconds it is probed": ([*OPENED], 5, PROBES),
    "failures within thirty seconds count as a row": ([*FOUR_FAILURES, (30, "fail")], 30, SKIPPED),
    "failures over a longer time do not": ([*FOUR_FAILURES, (30.1, "fail")], 31, PASSES),
    "old failures leave the row": ([*FOUR_FAILURES, *[(31, "fail")] * 5], 31, SKIPPED),
    "a success ends the row": ([*FOUR_FAILURES, (1, "succeed"), (2, "fail")], 2, PASSES),
    "an incomplete answer does not end the row": ([*FOUR_FAILURES, (1, "answer"), (2, "fail")], 2, SKIPPED),
    "a late answer closes it": ([*OPENED, (1, "answer")], 2, PASSES),
    "a late success closes it": ([*OPENED, (1, "succeed")], 2, PASSES),
    "a late failure does not prolong it": ([*OPENED, (4, "fail")], 5, PROBES),
    "a probe blocks others": ([*OPENED, (5, "enter")], 9.9, SKIPPED),
    "a probe blocks others for its interval only": ([*OPENED, (5, "enter")], 10, PROBES),
    "the failures of others are not the probe's": ([*OPENED, (5, "enter"), (6, "fail")], 10, PROBES),
    "a failed probe doubles the interval": ([*OPENED, (5, "enter"), (7, "probe fails")], 16.9, SKIPPED),
    "the doubled interval starts at the failure": ([*OPENED, (5, "enter"), (7, "probe fails")], 17, PROBES),
    "an answered probe closes the key": ([*OPENED, (5, "enter"), (7, "answer")], 7, PASSES),
    "an answer that breaks starts a new row": (
        [*OPENED, (5, "enter"), (7, "answer"), (8, "probe fails"), *[(8, "fail")] * 3],
        8,
        PASSES,
    ),
    "another call may probe after a release": ([*OPENED, (5, "enter"), (7, "release")], 7, PROBES),
    "a released early probe leaves the due time": ([*OPENED, (3, "enter"), (4, "release")], 4.9, SKIPPED),
    "an early probe blocks for a full interval": ([*OPENED, (3, "enter")], 7.9, SKIPPED),
    "a failed early probe reopens the key": ([*OPENED, (3, "enter"), (4, "probe fails")], 8.9, SKIPPED),
    "a failed early probe does not lengthen the interval": ([*OPENED, (3, "enter"), (4, "probe fails")], 9, PROBES),
    "a due probe after an early one doubles": (
        [*OPENED, (3, "enter"), (4, "probe fails"), (9, "enter"), (10, "probe fails")],
        19.9,
        SKIPPED,
    ),
    "an early probe that takes too long is replaced by a due one": (
        [*OPENED, (3, "enter"), (8, "enter"), (9, "probe fails")],
        19,
        PROBES,
    ),
    "a failed probe cannot be released": ([*OPENED, (5, "enter"), (6, "probe fails"), (7, "release")], 15.9, SKIPPED),
    "after a success it opens for five seconds again": (
        [*OPENED, (5, "enter"), (6, "probe fails"), (7, "succeed"), *[(8, "fail")] * 5],
        13,
        PROBES,
    ),
}


@pytest.mark.parametrize(("events", "at", "expected"), TIMELINES.values(), ids=TIMELINES)
def test_a_key_follows_its_timeline(events: Sequence[tuple[float, str]], at: float, expected: str) -> None:
    timeline = Timeline()
    for moment, event in events:
        timeline.apply(moment, event)
    assert timeline.call(at) == expected


def opened() -> Breakers:
    breakers = Breakers()
    for _ in range(5):
        breakers.failed(KEY, 0, None)
    return breakers


def test_the_interval_doubles_up_to_twenty_seconds() -> None:
    breakers, now, intervals_s = opened(), 0.0, []
    for _ in range(6):
        intervals_s.append(breakers.due_at(KEY) - now)
        now = breakers.due_at(KEY)
        breakers.failed(KEY, now, breakers.acquire(KEY, now))
    assert intervals_s == [5, 10, 20, 20, 20, 20]


def test_a_superseded_probe_has_no_effect() -> None:
    breakers = opened()
    first = breakers.acquire(KEY, 5)
    second = breakers.acquire(KEY, 10)
    breakers.failed(KEY, 11, first)
    breakers.release(KEY, first)
    assert breakers.due_at(KEY) == 15, "the second probe is still in flight"
    breakers.failed(KEY, 12, second)
    assert breakers.due_at(KEY) == 22


def test_a_released_probe_that_equals_the_current_one_has_no_effect() -> None:
    breakers = opened()
    first = breakers.acquire(KEY, 5)
    breakers.release(KEY, first)
    second = breakers.acquire(KEY, 5)
    assert first == second
    breakers.release(KEY, first)
    breakers.failed(KEY, 6, first)
    assert breakers.due_at(KEY) == 10


def test_a_call_forced_beside_a_probe_is_not_a_probe() -> None:
    breakers = opened()
    probe = breakers.acquire(KEY, 5)
    assert breakers.acquire(KEY, 6) is None
    breakers.failed(KEY, 7, None)
    assert breakers.due_at(KEY) == 10
    breakers.failed(KEY, 8, probe)
    assert breakers.due_at(KEY) == 18


def test_a_late_probe_without_a_successor_still_counts() -> None:
    breakers = opened()
    probe = breakers.acquire(KEY, 5)
    breakers.failed(KEY, 500, probe)
    assert breakers.due_at(KEY) == 510


def test_keys_are_independent() -> None:
    assert opened().due_at(key_of("another")) == -math.inf


def test_two_providers_of_one_base_url_share_their_keys() -> None:
    breakers = opened()
    assert breakers.due_at(BreakerKey("my-gateway", "token", "https://api.openai.com", "gpt", "custom-openai")) == 5


def test_due_first_prefers_keys_without_a_running_probe() -> None:
    breakers = Breakers()
    for at, key in enumerate([A, B, C]):
        for _ in range(5):
            breakers.failed(key, at, None)
    assert breakers.due_first([C, A, B]) == 1
    breakers.acquire(A, 3)
    assert breakers.due_first([C, A, B]) == 2
    breakers.acquire(B, 4)
    breakers.acquire(C, 4.5)
    assert breakers.due_first([C, A, B]) == 1


def test_only_failing_keys_are_stored() -> None:
    breakers = Breakers()
    breakers.acquire(KEY, 0)
    breakers.succeeded(KEY)
    breakers.release(KEY, None)
    assert len(breakers) == 0
    breakers.failed(KEY, 0, None)
    assert len(breakers) == 1
    breakers.succeeded(KEY)
    assert len(breakers) == 0


def test_the_least_recently_changed_key_is_evicted_first() -> None:
    breakers = Breakers(max_keys=2)
    for key in (A, B, A, B):
        for _ in range(5):
            breakers.failed(key, 0, None)
    probe = breakers.acquire(A, 5)
    breakers.failed(C, 5, None)
    assert [breakers.due_at(key) for key in (A, B, C)] == [10, -math.inf, -math.inf]
    breakers.failed(D, 5, None)
    breakers.failed(E, 5, None)
    breakers.release(A, probe)
    assert len(breakers) == 2, "a probe of an evicted key does not restore it"


def test_keys_of_one_token_do_not_evict_those_of_another() -> None:
    breakers = opened()
    for number in range(5000):
        breakers.failed(key_of(str(number), "hostile"), 0, None)
    assert breakers.due_at(KEY) == 5
    assert len(breakers) == 1 + 128
    for number in range(5000):
        breakers.failed(key_of("gpt", str(number)), 0, None)
    assert len(breakers) == 4096


@given(
    max_keys=st.integers(1, 4),
    max_keys_per_token=st.integers(1, 4),
    calls=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(EVENTS))),
)
def test_the_store_never_exceeds_its_bounds(
    max_keys: int, max_keys_per_token: int, calls: list[tuple[int, str]]
) -> None:
    breakers, probes = Breakers(max_keys, max_keys_per_token), dict[BreakerKey, Probing | None]()
    for now, (number, what) in enumerate(calls):
        key = key_of("ab"[number % 2], str(number // 2))
        match what:
            case "enter":
                probes[key] = breakers.acquire(key, now)
            case "answer":
                breakers.answered(key)
            case "succeed":
                breakers.succeeded(key)
            case "release":
                breakers.release(key, probes.get(key))
            case "fail":
                breakers.failed(key, now, None)
            case "probe fails":
                breakers.failed(key, now, probes.get(key))
        assert len(breakers) <= max_keys
        assert max(Counter(key.token for key, _ in breakers.items()).values(), default=0) <= max_keys_per_token
        assert breakers.due_at(key_of("a", "other")) in {-math.inf, *(s.due_at for _, s in breakers.items())}


# The gateway's other tokens.


def opened_for(*tokens: str, breakers: Breakers | None = None) -> Breakers:
    """Open the key of the first token at 0 s, the key of the second at 1 s, and so on."""
    breakers = breakers or Breakers()
    for at, token in enumerate(tokens):
        for _ in range(5):
            breakers.failed(key_of("gpt", token), at, None)
    return breakers


THIRD = key_of("gpt", "third")


def test_a_key_open_for_one_token_is_closed_for_others() -> None:
    assert opened_for("one").due_at(THIRD) == -math.inf


def test_a_key_open_for_two_tokens_is_open_for_the_gateway_until_one_is_due() -> None:
    assert opened_for("one", "two").due_at(THIRD) == 5
    assert opened_for("one", "two", "more").due_at(THIRD) == 6
    assert opened_for("one", "two").due_at(BreakerKey("another", "third", "https://api.openai.com", "gpt")) == -math.inf


def test_a_token_with_an_open_key_depends_on_that_key_only() -> None:
    assert opened_for("one", "two", "more").due_at(key_of("gpt", "one")) == 5


def test_an_answered_probe_of_one_token_closes_the_gateways_key() -> None:
    breakers, one = opened_for("one", "two"), key_of("gpt", "one")
    breakers.acquire(one, 5)
    assert breakers.due_at(THIRD) == 6, "the due time of the other token"
    breakers.acquire(key_of("gpt", "two"), 6)
    assert breakers.due_at(THIRD) == 10
    breakers.answered(one)
    assert breakers.due_at(THIRD) == -math.inf


def test_a_token_with_failures_below_the_threshold_follows_the_gateways_key() -> None:
    breakers = opened_for("one", "two")
    breakers.failed(THIRD, 1, None)
    assert breakers.due_at(THIRD) == 5


# Other processes.


def test_merged_states_apply_and_are_not_reported() -> None:
    reported: list[tuple[object, float | None]] = []
    breakers = Breakers(report=lambda key, open_s: reported.append((key, open_s)))
    breakers.merge(KEY, 40, 100)
    assert breakers.due_at(KEY) == 140
    breakers.merge(KEY, None, 110)
    assert breakers.due_at(KEY) == -math.inf
    assert reported == []


def test_merge_keeps_the_later_due_time() -> None:
    breakers = Breakers()
    for open_s in (40, 10, 60):
        breakers.merge(KEY, open_s, 100)
    assert breakers.due_at(KEY) == 160


def test_a_merged_outage_that_is_due_is_probed_with_the_first_interval() -> None:
    breakers = Breakers()
    breakers.merge(KEY, -30, 100)
    probe = breakers.acquire(KEY, 100)
    assert probe is not None
    breakers.failed(KEY, 101, probe)
    assert breakers.due_at(KEY) == 111


def test_merge_does_not_replace_a_running_probe() -> None:
    breakers = Breakers()
    breakers.merge(KEY, 5, 100)
    probe = breakers.acquire(KEY, 105)
    breakers.merge(KEY, 100, 106)
    breakers.failed(KEY, 107, probe)
    assert breakers.due_at(KEY) == 117


def test_every_opening_and_closing_is_reported_and_nothing_else() -> None:
    reported: list[tuple[object, float | None]] = []
    breakers = Breakers(report=lambda key, open_s: reported.append((key, open_s)))
    for _ in range(4):
        breakers.failed(KEY, 0, None)
    breakers.succeeded(KEY)
    assert reported == []
    for _ in range(6):
        breakers.failed(KEY, 0, None)
    probe = breakers.acquire(KEY, 5)
    breakers.release(KEY, probe)
    probe = breakers.acquire(KEY, 6)
    breakers.failed(KEY, 7, probe)
    breakers.answered(KEY)
    breakers.answered(KEY)
    assert reported == [(KEY, 5), (KEY, 10), (KEY, None)]


def test_the_eviction_of_an_open_key_is_reported() -> None:
    reported: list[tuple[object, float | None]] = []
    breakers = Breakers(max_keys_per_token=1, report=lambda key, open_s: reported.append((key, open_s)))
    for key in (A, B):
        for _ in range(5):
            breakers.failed(key, 0, None)
    breakers.failed(C, 0, None)
    breakers.failed(D, 0, None)
    assert reported == [(A, 5), (A, None), (B, 5), (B, None)]
