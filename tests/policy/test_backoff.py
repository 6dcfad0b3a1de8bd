"""The pause before a retry, and what a provider's headers ask for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.policy.backoff import MAX_DELAY_MS, MAX_REQUESTED_MS, Backoff, delay_ms, requested_delay_ms, retry_after_ms

NO_JITTER = 0.5

NOW_UNIX = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110."""


@pytest.mark.parametrize(
    ("kind", "delays_ms"),
    [
        ("constant", [500, 500, 500, 500]),
        ("linear", [500, 1000, 1500, 2000]),
        ("exponential", [500, 1000, 2000, 4000]),
    ],
)
def test_the_delay_grows_by_its_kind(kind: Backoff, delays_ms: list[int]) -> None:
    assert [delay_ms(kind, 500, number, NO_JITTER) for number in (1, 2, 3, 4)] == delays_ms


@pytest.mark.parametrize(
    ("chance", "expected_ms"), [(0.0, 800), (0.5, 1000), (0.75, 1100), (math.nextafter(1, 0), 1200)]
)
def test_chance_spreads_the_delay_by_a_fifth_either_way(chance: float, expected_ms: int) -> None:
    assert delay_ms("constant", 1000, 1, chance) == expected_ms


def test_the_bound_lies_before_the_jitter() -> None:
    assert delay_ms("exponential", 5000, 10**9, 0.0) == MAX_DELAY_MS * 0.8
    assert delay_ms("linear", 5000, 10**9, NO_JITTER) == MAX_DELAY_MS


def test_no_delay_stays_none() -> None:
    assert delay_ms("exponential", 0, 4, 0.9) == 0


@given(
    kind=st.sampled_from(["constant", "linear", "exponential"]),
    retry_delay_ms=st.integers(0, 2**40),
    number=st.integers(1, 2**40),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_a_delay_is_never_negative_and_never_beyond_its_bound(
    kind: Backoff, retry_delay_ms: int, number: int, chance: float
) -> None:
    assert 0 <= delay_ms(kind, retry_delay_ms, number, chance) <= 1.2 * MAX_DELAY_MS


@pytest.mark.parametrize(
    ("value", "expected_ms"),
    [
        ("0", 0),
        ("7", 7_000),
        (" 120 ", 120_000),
        ("1.5", 1_500),
        ("0.25", 250),
        ("2.", 2_000),
        ("9" * 40, MAX_REQUESTED_MS),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10_000),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10_000),
        ("Sun Nov  6 08:49:47 1994", 10_000),
        ("Sun, 06 Nov 1994 08:49:07 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_REQUESTED_MS),
    ],
)
def test_seconds_and_every_form_of_http_date_are_read(value: str, expected_ms: int) -> None:
    assert retry_after_ms(value, NOW_UNIX) == expected_ms


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "soon", "nan", "inf", "-5", "+5", ".5", "1e9", "0x10", "1_000", "٣", "5s", "1,5", "1 2"),
        *("1994-11-06", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT"),
        "Sun, 06 Nov 1994 08:49:37 +0200",
    ],
)
def test_what_cannot_be_read_asks_for_nothing(value: str) -> None:
    assert retry_after_ms(value, NOW_UNIX) is None


def test_a_value_of_absurd_length_is_not_looked_at() -> None:
    assert retry_after_ms("9" * 41, NOW_UNIX) is None
    assert retry_after_ms("9" * 1_000_000, NOW_UNIX) is None


ALMOST_HTTP_DATES = st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")


@given(st.text(max_size=60) | ALMOST_HTTP_DATES, st.floats(0, 1e12))
def test_no_value_raises_or_is_negative(value: str, now_unix: float) -> None:
    asked = retry_after_ms(value, now_unix)
    assert asked is None or 0 <= asked <= MAX_REQUESTED_MS


@pytest.mark.parametrize(
    ("headers", "expected_ms"),
    [
        ([], None),
        ([("content-type", "text/plain")], None),
        ([("retry-after", "3")], 3_000),
        ([("retry-after-ms", "1250")], 1_250),
        ([("retry-after", "2"), ("retry-after-ms", "1250.5")], 1_250),
        ([("retry-after-ms", "soon"), ("retry-after", "2")], 2_000),
        ([("retry-after-ms", "-1")], None),
    ],
)
def test_the_finer_header_goes_first(headers: list[tuple[str, str]], expected_ms: int | None) -> None:
    assert requested_delay_ms(headers, NOW_UNIX) == expected_ms
