"""Delays before a retry, computed and requested by a provider's headers."""

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
def test_the_delay_grows_according_to_the_backoff(kind: Backoff, delays_ms: list[int]) -> None:
    assert [delay_ms(kind, 500, number, NO_JITTER) for number in (1, 2, 3, 4)] == delays_ms


@pytest.mark.parametrize(
    ("chance", "expected_ms"), [(0.0, 800), (0.5, 1000), (0.75, 1100), (math.nextafter(1, 0), 1200)]
)
def test_jitter_varies_the_delay_by_a_fifth(chance: float, expected_ms: int) -> None:
    assert delay_ms("constant", 1000, 1, chance) == expected_ms


def test_the_delay_is_capped_before_jitter() -> None:
    assert delay_ms("exponential", 5000, 10**9, 0.0) == MAX_DELAY_MS * 0.8
    assert delay_ms("linear", 5000, 10**9, NO_JITTER) == MAX_DELAY_MS


def test_a_delay_of_zero_stays_zero() -> None:
    assert delay_ms("exponential", 0, 4, 0.9) == 0


@given(
    kind=st.sampled_from(["constant", "linear", "exponential"]),
    retry_delay_ms=st.integers(0, 2**40),
    number=st.integers(1, 2**40),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_a_delay_is_between_zero_and_the_maximum_with_jitter(
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
def test_retry_after_is_parsed_as_seconds_or_any_form_of_http_date(value: str, expected_ms: int) -> None:
    assert retry_after_ms(value, NOW_UNIX) == expected_ms


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "soon", "nan", "inf", "-5", "+5", ".5", "1e9", "0x10", "1_000", "٣", "5s", "1,5", "1 2"),
        *("1994-11-06", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT"),
        "Sun, 06 Nov 1994 08:49:37 +0200",
    ],
)
def test_an_invalid_retry_after_requests_no_delay(value: str) -> None:
    assert retry_after_ms(value, NOW_UNIX) is None


def test_a_too_long_retry_after_is_ignored() -> None:
    assert retry_after_ms("9" * 41, NOW_UNIX) is None
    assert retry_after_ms("9" * 1_000_000, NOW_UNIX) is None


ALMOST_HTTP_DATES = st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")


@given(st.text(max_size=60) | ALMOST_HTTP_DATES, st.floats(0, 1e12))
def test_any_value_gives_none_or_a_bounded_delay(value: str, now_unix: float) -> None:
    requested = retry_after_ms(value, now_unix)
    assert requested is None or 0 <= requested <= MAX_REQUESTED_MS


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
def test_retry_after_ms_takes_precedence_over_retry_after(
    headers: list[tuple[str, str]], expected_ms: int | None
) -> None:
    assert requested_delay_ms(headers, NOW_UNIX) == expected_ms
