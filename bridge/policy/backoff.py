"""Compute delays: before retries of a step, as a provider requests, and before reconnecting. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Literal

Backoff = Literal["constant", "linear", "exponential"]

MAX_DELAY_MS: Final = 60_000
"""Limit of the delay before jitter, so that delays at the limit still differ."""

JITTER: Final = 0.2

MAX_REQUESTED_MS: Final = 365 * 24 * 3_600_000
"""One year. Longer requests are capped: they still exceed every limit, and stay small integers on the wire."""

_MAX_VALUE_CHARS: Final = 40  # the longest HTTP-date has 33

_FACTORS: Final[Mapping[Backoff, Callable[[int], int]]] = {
    "constant": lambda retry_number: 1,
    "linear": lambda retry_number: retry_number,
    "exponential": lambda retry_number: 1 << min(retry_number - 1, 16),
}

_NUMBER: Final = re.compile(r"\d+(?:\.\d*)?", re.ASCII)


def delay_ms(kind: Backoff, retry_delay_ms: int, retry_number: int, chance: float) -> int:
    """Return the delay before retry `retry_number`, counted from 1; `chance` in [0, 1) varies it by ±20 %."""
    plain_ms = min(retry_delay_ms * _FACTORS[kind](retry_number), MAX_DELAY_MS)
    return round(plain_ms * (1 - JITTER + 2 * JITTER * chance))


def next_delay_s(last_s: float, first_s: float, max_s: float) -> float:
    """Return twice the last delay, at least `first_s` and at most `max_s`; the last delay is 0 before the first."""
    return min(max(2 * last_s, first_s), max_s)


def requested_delay_ms(headers: Iterable[tuple[str, str]], now_unix: float) -> int | None:
    """Return the delay that response headers (lower-case names) request; None if they request none.

    `retry-after-ms`, sent by OpenAI and Azure, has precedence over `retry-after`, as in OpenAI's own client.
    """
    named = dict(headers)
    requested = _number(named.get("retry-after-ms", ""))
    if requested is not None:
        return _bounded(requested)
    return retry_after_ms(named.get("retry-after", ""), now_unix)


def retry_after_ms(value: str, now_unix: float) -> int | None:
    """Return a `Retry-After` value (RFC 9110, section 10.2.3) in milliseconds: seconds, also fractions, or a date.

    A date in the past is 0, an invalid value None. Never raises.
    """
    seconds = _number(value)
    if seconds is None:
        at_unix = _http_date(value)
        seconds = None if at_unix is None else at_unix - now_unix
    return None if seconds is None else _bounded(seconds * 1000)


def _number(value: str) -> float | None:
    # float() alone also accepts nan, inf, signs, exponents and underscores.
    value = value.strip()
    return float(value) if len(value) <= _MAX_VALUE_CHARS and _NUMBER.fullmatch(value) else None


def _http_date(value: str) -> float | None:
    value = value.strip()
    if len(value) > _MAX_VALUE_CHARS:
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    # RFC 9110, section 5.6.7: three forms, two with GMT; that of asctime ends with the year. The parser allows more.
    is_http_date = value.endswith(("GMT", f" {date.year}")) and (str(date.year) in value or f"{date:-%y }" in value)
    return date.replace(tzinfo=UTC).timestamp() if is_http_date else None


def _bounded(milliseconds: float) -> int:
    return round(min(max(milliseconds, 0.0), MAX_REQUESTED_MS))
