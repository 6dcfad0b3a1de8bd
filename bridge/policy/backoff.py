"""How long to wait before a step is tried again: by the step's own settings, or as its provider asks."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, Literal

Backoff = Literal["constant", "linear", "exponential"]

MAX_DELAY_MS: Final = 60_000
"""Bounds the delay before jitter, so that a herd that has reached the bound stays spread."""

JITTER: Final = 0.2

MAX_ASKED_MS: Final = 365 * 24 * 3_600_000
"""A year: what longer demands are taken for. They stay beyond every limit, and stay small integers on the wire."""

_MAX_VALUE_CHARS: Final = 40  # the longest HTTP-date has 33

_FACTORS: Final[Mapping[Backoff, Callable[[int], int]]] = {
    "constant": lambda retry_number: 1,
    "linear": lambda retry_number: retry_number,
    "exponential": lambda retry_number: 1 << min(retry_number - 1, 16),
}

_NUMBER: Final = re.compile(r"\d+(?:\.\d*)?", re.ASCII)

# RFC 9110, section 5.6.7: the form in use, and the two old ones that a recipient must take. All of them mean GMT.
_HTTP_DATES: Final = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")


def delay_ms(kind: Backoff, retry_delay_ms: int, retry_number: int, chance: float) -> int:
    """The pause before retry `retry_number`, counted from 1; `chance` in [0, 1) spreads it by ± a fifth."""
    plain_ms = min(retry_delay_ms * _FACTORS[kind](retry_number), MAX_DELAY_MS)
    return round(plain_ms * (1 - JITTER + 2 * JITTER * chance))


def requested_delay_ms(headers: Iterable[tuple[str, str]], now_unix: float) -> int | None:
    """The wait that a response's headers (names in lower case) ask for; None when they ask for none.

    `retry-after-ms`, sent by OpenAI and Azure, goes before `retry-after`, as in OpenAI's own client: it is the finer.
    """
    named = dict(headers)
    asked = _number(named.get("retry-after-ms", ""))
    if asked is not None:
        return _bounded(asked)
    return retry_after_ms(named.get("retry-after", ""), now_unix)


def retry_after_ms(value: str, now_unix: float) -> int | None:
    """A `Retry-After` (RFC 9110, section 10.2.3) in milliseconds: seconds, here also fractions of them, or a date.

    Never raises and is never negative: a date gone by is 0, what cannot be read is None.
    """
    seconds = _number(value)
    if seconds is None:
        at_unix = _http_date(value)
        seconds = None if at_unix is None else at_unix - now_unix
    return None if seconds is None else _bounded(seconds * 1000)


def _number(value: str) -> float | None:
    # Not float() alone: it takes nan, inf, signs, exponents and underscores.
    value = value.strip()
    return float(value) if len(value) <= _MAX_VALUE_CHARS and _NUMBER.fullmatch(value) else None


def _http_date(value: str) -> float | None:
    value = value.strip()
    if len(value) > _MAX_VALUE_CHARS:
        return None
    for form in _HTTP_DATES:
        try:
            return datetime.strptime(value, form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return None


def _bounded(milliseconds: float) -> int:
    return round(min(max(milliseconds, 0.0), MAX_ASKED_MS))
