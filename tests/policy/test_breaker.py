"""When a key opens, who may probe it, and that the store stays small."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.policy.breaker import Breakers, Probing

KEY = ("my-gateway", "https://api.openai.com", "gpt")

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
                self.probe = self.breakers.enter(KEY, at)
            case "probe fails":
                self.breakers.failed(KEY, at, self.probe)
            case "release":
                self.breakers.release(KEY, self.probe)

    def call(self, at: float) -> str:
        """What a call at this time would be."""
        if self.breakers.due_at(KEY) > at:
            return SKIPPED
        return PASSES if self.breakers.enter(KEY, at) is None else PROBES


TIMELINES = {
    "nothing known": ([], 0, PASSES),
    "four failures are not enough": ([*FOUR_FAILURES], 0, PASSES),
    "five open it for ten seconds": ([*OPENED], 9.9, SKIPPED),
    "then it is probed": ([*OPENED], 10, PROBES),
    "a row of thirty seconds counts": ([*FOUR_FAILURES, (30, "fail")], 30, SKIPPED),
    "a longer one does not": ([*FOUR_FAILURES, (30.1, "fail")], 31, PASSES),
    "old failures leave the row": ([*FOUR_FAILURES, *[(31, "fail")] * 5], 31, SKIPPED),
    "a success ends the row": ([*FOUR_FAILURES, (1, "succeed"), (2, "fail")], 2, PASSES),
    "an answer that is not whole yet ends none": ([*FOUR_FAILURES, (1, "answer"), (2, "fail")], 2, SKIPPED),
    "a late answer closes it": ([*OPENED, (1, "answer")], 2, PASSES),
    "a late success closes it": ([*OPENED, (1, "succeed")], 2, PASSES),
    "a late failure does not prolong it": ([*OPENED, (9, "fail")], 10, PROBES),
    "a probe keeps others out": ([*OPENED, (10, "enter")], 19.9, SKIPPED),
    "but not for longer than its interval": ([*OPENED, (10, "enter")], 20, PROBES),
    "the failures of others are not the probe's": ([*OPENED, (10, "enter"), (11, "fail")], 20, PROBES),
    "its failure doubles the interval": ([*OPENED, (10, "enter"), (12, "probe fails")], 31.9, SKIPPED),
    "which begins at that failure": ([*OPENED, (10, "enter"), (12, "probe fails")], 32, PROBES),
    "its answer closes": ([*OPENED, (10, "enter"), (12, "answer")], 12, PASSES),
    "and if that breaks a new row begins": (
        [*OPENED, (10, "enter"), (12, "answer"), (13, "probe fails"), *[(13, "fail")] * 3],
        13,
        PASSES,
    ),
    "when it is released another may probe": ([*OPENED, (10, "enter"), (12, "release")], 12, PROBES),
    "released early, it is due as before": ([*OPENED, (3, "enter"), (4, "release")], 9.9, SKIPPED),
    "an early probe has its whole interval": ([*OPENED, (3, "enter")], 12.9, SKIPPED),
    "its failure opens anew": ([*OPENED, (3, "enter"), (4, "probe fails")], 13.9, SKIPPED),
    "but for no longer than before": ([*OPENED, (3, "enter"), (4, "probe fails")], 14, PROBES),
    "a due probe after an early one doubles": (
        [*OPENED, (3, "enter"), (4, "probe fails"), (14, "enter"), (15, "probe fails")],
        34.9,
        SKIPPED,
    ),
    "an early probe that took too long is overtaken by a due one": (
        [*OPENED, (3, "enter"), (13, "enter"), (14, "probe fails")],
        34,
        PROBES,
    ),
    "a used pass releases nothing": ([*OPENED, (10, "enter"), (11, "probe fails"), (12, "release")], 30, SKIPPED),
    "after a success it opens for ten seconds again": (
        [*OPENED, (10, "enter"), (11, "probe fails"), (12, "succeed"), *[(13, "fail")] * 5],
        23,
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


def test_the_interval_doubles_up_to_two_minutes() -> None:
    breakers, now, intervals_s = opened(), 0.0, []
    for _ in range(6):
        intervals_s.append(breakers.due_at(KEY) - now)
        now = breakers.due_at(KEY)
        breakers.failed(KEY, now, breakers.enter(KEY, now))
    assert intervals_s == [10, 20, 40, 80, 120, 120]


def test_a_probe_that_was_overtaken_decides_nothing() -> None:
    breakers = opened()
    slow = breakers.enter(KEY, 10)
    quick = breakers.enter(KEY, 20)
    breakers.failed(KEY, 21, slow)
    breakers.release(KEY, slow)
    assert breakers.due_at(KEY) == 30, "the quick one is still in flight"
    breakers.failed(KEY, 22, quick)
    assert breakers.due_at(KEY) == 42


def test_a_probe_that_was_overtaken_at_the_same_instant_decides_nothing() -> None:
    breakers = opened()
    overtaken, probe = breakers.enter(KEY, 10), breakers.enter(KEY, 10)
    assert overtaken == probe
    breakers.release(KEY, overtaken)
    breakers.failed(KEY, 11, overtaken)
    assert breakers.due_at(KEY) == 20


def test_a_late_probe_that_nobody_overtook_still_counts() -> None:
    breakers = opened()
    probe = breakers.enter(KEY, 10)
    breakers.failed(KEY, 500, probe)
    assert breakers.due_at(KEY) == 520


def test_keys_do_not_know_each_other() -> None:
    assert opened().due_at("another key") == -math.inf


def test_due_first_leaves_out_closed_keys_and_those_being_probed() -> None:
    breakers = Breakers()
    for at, key in enumerate("abc"):
        for _ in range(5):
            breakers.failed(key, at, None)
    assert breakers.due_first("cab") == 1
    breakers.enter("a", 3)
    assert breakers.due_first("cab") == 2
    assert breakers.due_first("aax") is None


def test_only_keys_that_fail_are_kept() -> None:
    breakers = Breakers()
    breakers.enter(KEY, 0)
    breakers.succeeded(KEY)
    breakers.release(KEY, None)
    assert len(breakers) == 0
    breakers.failed(KEY, 0, None)
    assert len(breakers) == 1
    breakers.succeeded(KEY)
    assert len(breakers) == 0


def test_the_key_that_changed_longest_ago_is_forgotten_first() -> None:
    breakers = Breakers(max_keys=2)
    for key in "abab":
        for _ in range(5):
            breakers.failed(key, 0, None)
    probe = breakers.enter("a", 10)
    breakers.failed("c", 10, None)
    assert [breakers.due_at(key) for key in "abc"] == [20, -math.inf, -math.inf]
    breakers.failed("d", 10, None)
    breakers.failed("e", 10, None)
    breakers.release("a", probe)
    assert len(breakers) == 2, "a pass for a forgotten key brings nothing back"


@given(
    max_keys=st.integers(1, 4),
    calls=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(EVENTS))),
)
def test_the_store_never_exceeds_its_bound(max_keys: int, calls: list[tuple[int, str]]) -> None:
    breakers, passes = Breakers(max_keys), dict[int, Probing | None]()
    for now, (key, what) in enumerate(calls):
        match what:
            case "enter":
                passes[key] = breakers.enter(key, now)
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


# What other processes see.


def test_what_was_learned_holds_as_what_was_seen_here_and_is_told_to_nobody() -> None:
    told: list[tuple[object, float | None]] = []
    breakers = Breakers(told=lambda key, open_s: told.append((key, open_s)))
    breakers.learned(KEY, 40, 100)
    assert breakers.due_at(KEY) == 140
    breakers.learned(KEY, None, 110)
    assert breakers.due_at(KEY) == -math.inf
    assert told == []


def test_of_two_outages_the_one_that_is_due_later_counts() -> None:
    breakers = Breakers()
    for open_s in (40, 10, 60):
        breakers.learned(KEY, open_s, 100)
    assert breakers.due_at(KEY) == 160


def test_an_outage_learned_after_it_was_due_is_probed_and_doubles_from_the_first_interval() -> None:
    breakers = Breakers()
    breakers.learned(KEY, -30, 100)
    probe = breakers.enter(KEY, 100)
    assert probe is not None
    breakers.failed(KEY, 101, probe)
    assert breakers.due_at(KEY) == 121


def test_a_probe_that_is_in_flight_tells_more_than_what_is_learned() -> None:
    breakers = Breakers()
    breakers.learned(KEY, 10, 100)
    probe = breakers.enter(KEY, 110)
    breakers.learned(KEY, 100, 111)
    breakers.failed(KEY, 112, probe)
    assert breakers.due_at(KEY) == 132


def test_others_hear_of_each_opening_and_closing_and_of_nothing_else() -> None:
    told: list[tuple[object, float | None]] = []
    breakers = Breakers(told=lambda key, open_s: told.append((key, open_s)))
    for _ in range(4):
        breakers.failed(KEY, 0, None)
    breakers.succeeded(KEY)
    assert told == []
    for _ in range(6):
        breakers.failed(KEY, 0, None)
    probe = breakers.enter(KEY, 10)
    breakers.release(KEY, probe)
    probe = breakers.enter(KEY, 11)
    breakers.failed(KEY, 12, probe)
    breakers.answered(KEY)
    breakers.answered(KEY)
    assert told == [(KEY, 10), (KEY, 20), (KEY, None)]
