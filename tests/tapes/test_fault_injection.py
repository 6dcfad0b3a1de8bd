"""Faults on demand: how they are written, what they make of a tape, and who meets them."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.tapes.fault_injection import (
    AT_END,
    AT_HEAD,
    FaultPlan,
    InjectedFault,
    InvalidFault,
    Reset,
    Slow,
    Stall,
    Status,
    cut,
    paced,
    parse_fault,
    parse_faults,
)
from bridge.tapes.file import StreamEnd, Tape, TapeEnding
from tests.support.tapes import chunk_data, tape, times_ms

WHOLE = tape(b"one", b"two", b"three")

# The grammar.


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("reset@chunk:7", Reset(7)),
        ("reset@chunk:0", Reset(0)),
        ("reset@head", Reset(AT_HEAD)),
        ("reset@end:first:1", Reset(AT_END, first=1)),
        ("stall@chunk:3", Stall(3, None)),
        ("stall@chunk:3:20s", Stall(3, 20_000)),
        ("stall@head:500ms", Stall(AT_HEAD, 500)),
        ("stall@end:1.5s:first:3", Stall(AT_END, 1500, first=3)),
        ("status:503", Status(503)),
        ("status:429:first:2", Status(429, first=2)),
        ("slow:10x", Slow(10)),
        ("slow:0.5x:first:1", Slow(0.5, first=1)),
    ],
)
def test_a_fault_is_read(text: str, fault: InjectedFault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected reset, stall, status, slow"),
        ("rest@chunk:7", "expected reset, stall, status, slow"),
        ("Reset@chunk:7", "expected reset, stall, status, slow"),
        ("reset", "expected reset@head, reset@chunk:N or reset@end"),
        ("reset@chunk", "expected reset@head"),
        ("reset@chunk:-1", "expected reset@head"),
        ("reset@chunk:7:20s", "expected reset@head"),
        ("reset@chunk:\N{ARABIC-INDIC DIGIT ONE}", "expected reset@head"),
        ("reset@chunk:9999999999", "expected reset@head"),
        ("stall@chunk:3:20", "and :20s or :500ms"),
        ("stall@chunk:3:20m", "and :20s or :500ms"),
        ("status:200", "from 400 to 599"),
        ("status:5033", "from 400 to 599"),
        ("status:503:second:2", "from 400 to 599; :first:N may follow"),
        ("status:503:first:", ":first:N may follow"),
        ("slow:10", "as in slow:10x"),
        ("slow:-1x", "as in slow:10x"),
        ("slow:nanx", "as in slow:10x"),
    ],
)
def test_an_invalid_fault_is_refused_with_the_valid_forms(text: str, words: str) -> None:
    with pytest.raises(InvalidFault, match="invalid fault") as refused:
        parse_fault(text)
    assert words in str(refused.value)


@given(st.text() | st.from_regex(r"(reset|stall|status|slow)[@:](chunk|head|end|[0-9])*:?[0-9smx.]*", fullmatch=True))
def test_any_text_is_a_fault_or_is_refused(text: str) -> None:
    try:
        fault = parse_fault(text)
    except InvalidFault:
        return
    assert fault.cut(WHOLE).request is WHOLE.request


def test_a_header_holds_several_with_commas_between_them() -> None:
    assert parse_faults("reset@chunk:7, slow:2x,,") == (Reset(7), Slow(2))
    assert parse_faults("") == ()


# What becomes of a tape.


def played(*texts: str, of: Tape = WHOLE, pace: float = 1.0) -> Tape:
    faults = [parse_fault(text) for text in texts]
    return paced(cut(of, faults), pace, faults)


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        ("reset@chunk:0", []),
        ("reset@chunk:2", [b"one", b"two"]),
        ("reset@chunk:3", [b"one", b"two", b"three"]),
        ("reset@end", [b"one", b"two", b"three"]),
    ],
)
def test_a_reset_takes_what_comes_after_its_place(fault: str, left: list[bytes]) -> None:
    broken = played(fault)
    assert (broken.head, chunk_data(broken), broken.ending) == (
        WHOLE.head,
        left,
        TapeEnding(end=StreamEnd.RESET, ms=None),
    )


@pytest.mark.parametrize(("fault", "end"), [("reset@head", StreamEnd.RESET), ("stall@head", StreamEnd.STALL)])
def test_before_the_head_nothing_is_left(fault: str, end: StreamEnd) -> None:
    broken = played(fault)
    assert (broken.head, broken.chunks, broken.ending.end) == (None, (), end)


def test_a_stall_without_a_time_ends_the_tape_in_silence() -> None:
    silent = played("stall@chunk:1")
    assert (chunk_data(silent), silent.ending.end) == ([b"one"], StreamEnd.STALL)


@pytest.mark.parametrize(
    ("fault", "at"),
    [
        ("stall@head:1s", [1100, 1200, 1300, 1400, 1500]),
        ("stall@chunk:0:1s", [100, 1200, 1300, 1400, 1500]),
        ("stall@chunk:2:1s", [100, 200, 300, 1400, 1500]),
        ("stall@chunk:3:1s", [100, 200, 300, 400, 1500]),
        ("stall@end:250ms", [100, 200, 300, 400, 750]),
        ("slow:10x", [1000, 2000, 3000, 4000, 5000]),
        ("slow:0x", [0, 0, 0, 0, 0]),
    ],
)
def test_a_stall_with_a_time_and_slowness_only_delay(fault: str, at: list[int]) -> None:
    late = played(fault)
    assert times_ms(late) == at
    assert (chunk_data(late), late.ending.end) == (chunk_data(WHOLE), StreamEnd.EOF)


def test_a_stall_lasts_as_long_as_it_says_whatever_the_pace() -> None:
    assert times_ms(played("stall@chunk:2:20s", pace=0.0)) == [0, 0, 0, 20_000, 20_000]
    assert times_ms(played("stall@chunk:2:20s", pace=2.0)) == [200, 400, 600, 20_800, 21_000]


def test_slowness_counts_from_what_was_recorded_whatever_the_pace() -> None:
    assert (
        times_ms(played("slow:10x", pace=0.0)) == times_ms(played("slow:10x", pace=3.0)) == times_ms(played(pace=10.0))
    )


def test_an_ending_without_an_instant_of_its_own_comes_after_the_last_line() -> None:
    unmarked = WHOLE._replace(ending=TapeEnding(end=StreamEnd.EOF))
    assert times_ms(played("stall@end:1s", of=unmarked))[-1] == 1400
    nothing = tape(head=None, end=StreamEnd.RESET)._replace(ending=TapeEnding(end=StreamEnd.RESET))
    assert times_ms(played("stall@head:1s", of=nothing)) == [1000]


def test_a_status_comes_in_the_place_of_the_answer_and_at_once() -> None:
    refused = played("status:503")
    assert refused.head is not None
    assert (refused.head.status, refused.head.headers) == (503, {"content-type": "application/json"})
    assert times_ms(refused) == [0, 0, None]
    assert b"fault on demand" in b"".join(chunk_data(refused))


@pytest.mark.parametrize("fault", ["reset@chunk:4", "stall@chunk:4", "stall@chunk:4:20s"])
def test_a_tape_that_ends_before_the_place_of_a_fault_is_left_as_it_is(fault: str) -> None:
    assert played(fault) is WHOLE


@pytest.mark.parametrize("fault", ["reset@chunk:0", "stall@chunk:0"])
def test_a_tape_that_has_no_head_has_no_chunk_either(fault: str) -> None:
    nothing = tape(head=None, end=StreamEnd.RESET)
    assert played(fault, of=nothing) is nothing


def test_faults_come_together() -> None:
    broken = played("stall@chunk:1:2s", "reset@chunk:2", "slow:2x")
    assert (chunk_data(broken), broken.ending.end) == ([b"one", b"two"], StreamEnd.RESET)
    assert times_ms(broken) == [200, 400, 2600, 2600]


def test_of_two_statuses_the_first_counts_and_what_follows_it_applies_to_it() -> None:
    refused = played("reset@end", "stall@head:1s", "status:503", "status:429")
    assert refused.head is not None
    assert (refused.head.status, refused.head.ms, refused.ending.end) == (503, 1000, StreamEnd.RESET)


# Who meets them.


def met(faults: FaultPlan, times: int, own: Iterable[str] = (), key: str = "key") -> list[int]:
    """How many faults each of so many requests meets."""
    return [len(faults.due([parse_fault(text) for text in own], key)) for _ in range(times)]


def test_a_fault_meets_every_request_or_the_first_ones() -> None:
    assert met(FaultPlan([Reset(7)]), 3) == [1, 1, 1]
    assert met(FaultPlan([Status(503, first=2), Status(429, first=3)]), 5) == [2, 2, 1, 0, 0]
    assert met(FaultPlan([Status(503, first=0)]), 2) == [0, 0]


def test_the_first_ones_are_those_of_the_replay_or_for_a_requests_own_faults_those_like_it() -> None:
    for_all = FaultPlan([Status(503, first=2)])
    assert [met(for_all, 1, key="one"), met(for_all, 2, key="other")] == [[1], [1, 0]]
    own = FaultPlan([])
    assert met(own, 2, ["status:503:first:1"], "one") == [1, 0]
    assert met(own, 2, ["status:503:first:1"], "other") == [1, 0]
    assert met(own, 2, ["status:503:first:2"], "one") == [1, 1]
