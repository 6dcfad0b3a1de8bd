"""Every regular expression of the package takes linear time, on any text."""

import json
import re
import time

import pytest

from tests.support.patterns import Use, hostile_texts, uses

LARGEST = 65_536
"""Characters of the longest text. Patterns that are applied to whole bodies work in windows or never backtrack."""
LARGEST_OF = {
    "bridge.providers.endpoints._ORDINARY": 8_192,
}
"""Longest texts of patterns whose input is bounded by an earlier check."""
READ_BEFORE = {
    "bridge.config.toml_lines._TOKEN": lambda text: f"key = {json.dumps(text)}",
}
"""Patterns for text that a parser has accepted: every string in it is closed."""
FLOOR_S = 0.02
"""CPU time below which a ratio means nothing. Quadratic work on the largest text takes seconds."""
WORST = 4
"""Number of texts, those that are slowest when short, that are repeated at full length."""
MOST_TIMES_AS_LONG = 3.0
TRIES = 4

ALL = uses()


def test_every_pattern_is_found() -> None:
    names = {use.name for use in ALL}
    assert {"bridge.tapes.exchange._SCHEME", "bridge.redact.text._NAME", "bridge.tapes.fault_injection._FIRST"} <= names
    assert any(name.endswith(".pattern") for name in names)
    assert any("[]" in name for name in names)
    assert len(names) > 80


@pytest.mark.parametrize("use", ALL, ids=lambda use: f"{use.name} {use.method}")
def test_twice_the_text_takes_a_pattern_at_most_three_times_as_long(use: Use) -> None:
    longest = LARGEST_OF.get(use.name, LARGEST)
    read = READ_BEFORE.get(use.name, str)
    makers = hostile_texts(use.pattern)
    short = [(_cpu_s(use, read(make(longest // 16))), number) for number, make in enumerate(makers)]
    for _, number in sorted(short, reverse=True)[:WORST]:
        for length in (longest // 8, longest):  # clearly non-linear patterns fail early
            text, half = read(makers[number](length)), read(makers[number](length // 2))
            taken_s = _cpu_s(use, text)
            assert taken_s <= FLOOR_S or _is_linear(use, text, half), f"{taken_s:.2f} s for {length} of {text[:60]!r}…"


def test_a_quadratic_pattern_is_detected() -> None:
    use = Use("example", re.compile(r"[a-z]+\s+"), "search")
    assert any(make(9) == "aaaaaaaa\0" for make in hostile_texts(use.pattern))
    assert not _is_linear(use, "a" * 4_096, "a" * 2_048)


def _is_linear(use: Use, text: str, half: str) -> bool:
    """Return True if doubling the text at most triples the best of several times: other work only adds to a time."""
    whole_s = half_s = float("inf")
    for _ in range(TRIES):
        whole_s = min(whole_s, _cpu_s(use, text))
        half_s = min(half_s, _cpu_s(use, half))
        if whole_s <= max(FLOOR_S, MOST_TIMES_AS_LONG * half_s):
            return True
    return False


def _cpu_s(use: Use, text: str) -> float:
    began = time.thread_time()
    use.run(text)
    return time.thread_time() - began
