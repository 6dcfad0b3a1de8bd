"""Finds fast where in a long text a pattern may match that needs one of some words.

A search with the pattern itself tries each of its alternatives at each place: ten times as long. Pure.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

WINDOW_CHARS: Final = 65_536
"""How much is looked through at once: a search holds the interpreter's lock, and the loop stands still meanwhile."""
MAX_MATCH_CHARS: Final = 16_384
"""How far what is found may reach over the end of a window."""
REACH_CHARS: Final = 24
"""How far behind a match's beginning its word's hint may be."""

_FREQUENT_FIRST: Final = 'etaoin srhldcu":,0123456789mfpgwybvkxjqz.-_/'


def build(words: Iterable[tuple[str, str]]) -> re.Pattern[str]:
    """A pattern that finds, in a text in lower case, each of these words where what follows it fits the second pattern.

    A search goes from letter to letter with which one of its alternatives begins, and stops at each: at a word's
    rarest one it stops least often. So that letter is where it matches.
    """
    found: defaultdict[str, defaultdict[tuple[int, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    for word, following in words:
        at = max(range(len(word)), key=lambda place: _rarity(word[place]))
        before, after = re.escape(word[: at + 1]), re.escape(word[at + 1 :])
        found[re.escape(word[at])][at, after + following].append(before)
    return re.compile("|".join(f"{letter}(?:{'|'.join(_alternatives(ends))})" for letter, ends in found.items()))


def _alternatives(ends: Mapping[tuple[int, str], list[str]]) -> Iterator[str]:
    """One look behind for all words whose letter stands at the same place and that go on alike."""
    for (_, after), befores in ends.items():
        yield f"(?<={'|'.join(befores)}){after}" if len(befores) > 1 else f"(?<={befores[0]}){after}"


def _rarity(letter: str) -> int:
    return (_FREQUENT_FIRST + letter).index(letter)


def finditer(pattern: re.Pattern[str], at_hints: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """What `pattern.finditer(text)` finds, if all that matches has one of the hints in its first `REACH_CHARS`."""
    end = 0
    for hint in windowed(at_hints, text.lower()):
        for at in range(max(end, hint.start() - REACH_CHARS), hint.start() + 1):
            if found := pattern.match(text, at, hint.start() + MAX_MATCH_CHARS):
                yield found
                end = found.end()
                break


def windowed(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Its matches in their order."""
    at = 0
    for window in range(0, len(text), WINDOW_CHARS):
        end = window + WINDOW_CHARS
        for found in pattern.finditer(text, max(at, window), end + MAX_MATCH_CHARS):
            if found.start() >= end:
                break
            at = found.end()
            yield found
