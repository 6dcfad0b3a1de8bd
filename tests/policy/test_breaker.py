"""When a key opens, who may probe it, and that the store stays small."""

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
    """What happens to one key. The pass of its latest probe is kept; "probe fails" and "release" give it back."""

    def __init__(self) -> None:
        self.breakers = Breakers()
        self.probe: Probing | None = None

    def play(self, at: float, what: str) -> None:
        match what:
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
        """What a call at this time would be."""
        if self.breakers.due_at(KEY) > at:
            return SKIPPED
        return PASSES if self.breakers.acquire(KEY, at) is None else PROBES


TIMELINES = {
    "nothing known": ([], 0, PASSES),
    "four failures are not enough": ([*FOUR_FAILURES], 0, PASSES),
    "five open it for five seconds": ([*OPENED], 4.9, SKIPPED),
    "then it is probed": ([*OPENED], 5, PROBES),
    "a row of thirty seconds counts": ([*FOUR_FAILURES, (30, "fail")], 30, SKIPPED),
    "a longer one does not": ([*FOUR_FAILURES, (30.1, "fail")], 31, PASSES),
    "old failures leave the row": ([*FOUR_FAILURES, *[(31, "fail")] * 5], 31, SKIPPED),
    "a success ends the row": ([*FOUR_FAILURES, (1, "succeed"), (2, "fail")], 2, PASSES),
    "an answer that is not whole yet ends none": ([*FOUR_FAILURES, (1, "answer"), (2, "fail")], 2, SKIPPED),
    "a late answer closes it": ([*OPENED, (1, "answer")], 2, PASSES),
    "a late success closes it": ([*OPENED, (1, "succeed")], 2, PASSES),
    "a late failure does not prolong it": ([*OPENED, (4, "fail")], 5, PROBES),
    "a probe keeps others out": ([*OPENED, (5, "enter")], 9.9, SKIPPED),
    "but not for longer than its interval": ([*OPENED, (5, "enter")], 10, PROBES),
    "the failures of others are not the probe's": ([*OPENED, (5, "enter"), (6, "fail")], 10, PROBES),
    "its failure doubles the interval": ([*OPENED, (5, "enter"), (7, "probe fails")], 16.9, SKIPPED),
    "which begins at that failure": ([*OPENED, (5, "enter"), (7, "probe fails")], 17, PROBES),
    "its answer closes": ([*OPENED, (5, "enter"), (7, "answer")], 7, PASSES),
    "and if that breaks a new row begins": (
        [*OPENED, (5, "enter"), (7, "answer"), (8, "probe fails"), *[(8, "fail")] * 3],
        8,
        PASSES,
    ),
    "when it is released another may probe": ([*OPENED, (5, "enter"), (7, "release")], 7, PROBES),
    "released early, it is due as before": ([*OPENED, (3, "enter"), (4, "release")], 4.9, SKIPPED),
    "an early probe has its whole interval": ([*OPENED, (3, "enter")], 7.9, SKIPPED),
    "its failure opens anew": ([*OPENED, (3, "enter"), (4, "probe fails")], 8.9, SKIPPED),
    "but for no longer than before": ([*OPENED, (3, "enter"), (4, "probe fails")], 9, PROBES),
    "a due probe after an early one doubles": (
        [*OPENED, (3, "enter"), (4, "probe fails"), (9, "enter"), (10, "probe fails")],
        19.9,
        SKIPPED,
    ),
    "an early probe that took too long is overtaken by a due one": (
        [*OPENED, (3, "enter"), (8, "enter"), (9, "probe fails")],
        19,
        PROBES,
    ),
    "a used pass releases nothing": ([*OPENED, (5, "enter"), (6, "probe fails"), (7, "release")], 15.9, SKIPPED),
    "after a success it opens for five seconds again": (
        [*OPENED, (5, "enter"), (6, "probe fails"), (7, "succeed"), *[(8, "fail")] * 5],
        13,
        PROBES,
    ),
}


@pytest.mark.parametrize(("happened", "at", "expected"), TIMELINES.values(), ids=TIMELINES)
def test_timeline(happened: Sequence[tuple[float, str]], at: float, expected: str) -> None:
    timeline = Timeline()
    for moment, what in happened:
        timeline.play(moment, what)
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


def test_a_probe_that_was_overtaken_decides_nothing() -> None:
    breakers = opened()
    slow = breakers.acquire(KEY, 5)
    quick = breakers.acquire(KEY, 10)
    breakers.failed(KEY, 11, slow)
    breakers.release(KEY, slow)
    assert breakers.due_at(KEY) == 15, "the quick one is still in flight"
    breakers.failed(KEY, 12, quick)
    assert breakers.due_at(KEY) == 22


def test_a_pass_of_an_equal_probe_that_is_over_decides_nothing() -> None:
    breakers = opened()
    first = breakers.acquire(KEY, 5)
    breakers.release(KEY, first)
    second = breakers.acquire(KEY, 5)
    assert first == second
    breakers.release(KEY, first)
    breakers.failed(KEY, 6, first)
    assert breakers.due_at(KEY) == 10


def test_a_call_that_is_forced_beside_a_probe_is_none() -> None:
    breakers = opened()
    probe = breakers.acquire(KEY, 5)
    assert breakers.acquire(KEY, 6) is None
    breakers.failed(KEY, 7, None)
    assert breakers.due_at(KEY) == 10
    breakers.failed(KEY, 8, probe)
    assert breakers.due_at(KEY) == 18


def test_a_late_probe_that_nobody_overtook_still_counts() -> None:
    breakers = opened()
    probe = breakers.acquire(KEY, 5)
    breakers.failed(KEY, 500, probe)
    assert breakers.due_at(KEY) == 510


def test_keys_do_not_know_each_other() -> None:
    assert opened().due_at(key_of("another")) == -math.inf


def test_two_providers_of_one_base_url_share_their_keys() -> None:
    breakers = opened()
    assert breakers.due_at(BreakerKey("my-gateway", "token", "https://api.openai.com", "gpt", "custom-openai")) == 5


def test_due_first_takes_a_key_that_is_being_probed_only_if_all_are() -> None:
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


def test_only_keys_that_fail_are_kept() -> None:
    breakers = Breakers()
    breakers.acquire(KEY, 0)
    breakers.succeeded(KEY)
    breakers.release(KEY, None)
    assert len(breakers) == 0
    breakers.failed(KEY, 0, None)
    assert len(breakers) == 1
    breakers.succeeded(KEY)
    assert len(breakers) == 0


def test_the_key_that_changed_longest_ago_is_forgotten_first() -> None:
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
    assert len(breakers) == 2, "a pass for a forgotten key brings nothing back"


def test_one_token_s_keys_evict_no_other_token_s() -> None:
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
    breakers, passes = Breakers(max_keys, max_keys_per_token), dict[BreakerKey, Probing | None]()
    for now, (number, what) in enumerate(calls):
        key = key_of("ab"[number % 2], str(number // 2))
        match what:
            case "enter":
                passes[key] = breakers.acquire(key, now)
            case "answer":
                breakers.answered(key)
            case "succeed":
                breakers.succeeded(key)
            case "release":
                breakers.release(key, passes.get(key))
            case "fail":
                breakers.failed(key, now, None)
            case "probe fails":
                breakers.failed(key, now, passes.get(key))
        assert len(breakers) <= max_keys
        assert max(Counter(key.token for key, _ in breakers.items()).values(), default=0) <= max_keys_per_token
        assert breakers.due_at(key_of("a", "bystander")) in {-math.inf, *(s.due_at for _, s in breakers.items())}


# The gateway's other tokens.


def opened_for(*tokens: str, breakers: Breakers | None = None) -> Breakers:
    """Open the key of the first token at 0 s, that of the second at 1 s, and so on."""
    breakers = breakers or Breakers()
    for at, token in enumerate(tokens):
        for _ in range(5):
            breakers.failed(key_of("gpt", token), at, None)
    return breakers


THIRD = key_of("gpt", "third")


def test_what_is_open_for_one_token_is_open_for_no_other() -> None:
    assert opened_for("one").due_at(THIRD) == -math.inf


def test_what_is_open_for_two_tokens_is_open_for_the_gateway_until_only_one_is_not_due() -> None:
    assert opened_for("one", "two").due_at(THIRD) == 5
    assert opened_for("one", "two", "more").due_at(THIRD) == 6
    assert opened_for("one", "two").due_at(BreakerKey("another", "third", "https://api.openai.com", "gpt")) == -math.inf


def test_a_token_whose_own_key_is_open_goes_by_that_alone() -> None:
    assert opened_for("one", "two", "more").due_at(key_of("gpt", "one")) == 5


def test_a_probe_of_one_of_two_tokens_keeps_the_others_out_and_its_answer_lets_them_in() -> None:
    breakers, one = opened_for("one", "two"), key_of("gpt", "one")
    breakers.acquire(one, 5)
    assert breakers.due_at(THIRD) == 6, "the other of the two is due"
    breakers.acquire(key_of("gpt", "two"), 6)
    assert breakers.due_at(THIRD) == 10
    breakers.answered(one)
    assert breakers.due_at(THIRD) == -math.inf


def test_a_row_of_failures_of_its_own_exempts_no_token() -> None:
    breakers = opened_for("one", "two")
    breakers.failed(THIRD, 1, None)
    assert breakers.due_at(THIRD) == 5


# What other processes see.


def test_what_was_learned_holds_as_what_was_seen_here_and_is_told_to_nobody() -> None:
    told: list[tuple[object, float | None]] = []
    breakers = Breakers(report=lambda key, open_s: told.append((key, open_s)))
    breakers.merge(KEY, 40, 100)
    assert breakers.due_at(KEY) == 140
    breakers.merge(KEY, None, 110)
    assert breakers.due_at(KEY) == -math.inf
    assert told == []


def test_of_two_outages_the_one_that_is_due_later_counts() -> None:
    breakers = Breakers()
    for open_s in (40, 10, 60):
        breakers.merge(KEY, open_s, 100)
    assert breakers.due_at(KEY) == 160


def test_an_outage_learned_after_it_was_due_is_probed_and_doubles_from_the_first_interval() -> None:
    breakers = Breakers()
    breakers.merge(KEY, -30, 100)
    probe = breakers.acquire(KEY, 100)
    assert probe is not None
    breakers.failed(KEY, 101, probe)
    assert breakers.due_at(KEY) == 111


def test_a_probe_that_is_in_flight_tells_more_than_what_is_learned() -> None:
    breakers = Breakers()
    breakers.merge(KEY, 5, 100)
    probe = breakers.acquire(KEY, 105)
    breakers.merge(KEY, 100, 106)
    breakers.failed(KEY, 107, probe)
    assert breakers.due_at(KEY) == 117


def test_others_hear_of_each_opening_and_closing_and_of_nothing_else() -> None:
    told: list[tuple[object, float | None]] = []
    breakers = Breakers(report=lambda key, open_s: told.append((key, open_s)))
    for _ in range(4):
        breakers.failed(KEY, 0, None)
    breakers.succeeded(KEY)
    assert told == []
    for _ in range(6):
        breakers.failed(KEY, 0, None)
    probe = breakers.acquire(KEY, 5)
    breakers.release(KEY, probe)
    probe = breakers.acquire(KEY, 6)
    breakers.failed(KEY, 7, probe)
    breakers.answered(KEY)
    breakers.answered(KEY)
    assert told == [(KEY, 5), (KEY, 10), (KEY, None)]


def test_others_hear_of_an_open_key_that_is_forgotten_for_lack_of_room() -> None:
    told: list[tuple[object, float | None]] = []
    breakers = Breakers(max_keys_per_token=1, report=lambda key, open_s: told.append((key, open_s)))
    for key in (A, B):
        for _ in range(5):
            breakers.failed(key, 0, None)
    breakers.failed(C, 0, None)
    breakers.failed(D, 0, None)
    assert told == [(A, 5), (A, None), (B, 5), (B, None)]
