"""No regular expression of the package takes more than linear time, whatever it is applied to."""

import json
import re
import time

import pytest

from tests.support.patterns import Use, hostile_texts, uses

LARGEST = 65_536
"""Characters. Patterns that are applied to whole bodies are applied window by window, or never go back."""
LARGEST_OF = {
    "bridge.providers.endpoints._ORDINARY": 8_192,
}
"""Of texts that are checked to be no longer before."""
READ_BEFORE = {
    "bridge.config.toml_lines._TOKEN": lambda text: f"key = {json.dumps(text)}",
}
"""Patterns of texts that a parser has accepted before: no string in them is left open."""
FLOOR_S = 0.02
"""CPU time that is too short for a ratio. Quadratic work on the largest text takes seconds."""
WORST = 4
"""Of the texts, those that take longest when they are short are made long."""
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
        for length in (longest // 8, longest):  # what is far from linear fails early
            text, half = read(makers[number](length)), read(makers[number](length // 2))
            taken_s = _cpu_s(use, text)
            assert taken_s <= FLOOR_S or _is_linear(use, text, half), f"{taken_s:.2f} s for {length} of {text[:60]!r}…"


def test_a_quadratic_pattern_would_be_noticed() -> None:
    use = Use("example", re.compile(r"[a-z]+\s+"), "search")
    assert any(make(9) == "aaaaaaaa\0" for make in hostile_texts(use.pattern))
    assert not _is_linear(use, "a" * 8_192, "a" * 4_096)


def _is_linear(use: Use, text: str, half: str) -> bool:
    """The best of several tries: other work on the machine only ever adds to the time."""
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
