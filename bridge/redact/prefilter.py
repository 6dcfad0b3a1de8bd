"""Find quickly the places in a long text at which a pattern that needs one of several words may match. Pure.

Searching with the pattern itself tries each alternative at each position, which takes ten times as long.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

WINDOW_CHARS: Final = 65_536
"""Size of the part that is searched at once: a search holds the interpreter lock and so blocks the event loop."""
MAX_MATCH_CHARS: Final = 16_384
"""Bound on the part of a match that lies beyond its window."""
REACH_CHARS: Final = 24
"""Greatest distance between the beginning of a match and the hint in its word."""

_FREQUENT_FIRST: Final = 'etaoin srhldcu":,0123456789mfpgwybvkxjqz.-_/'


def build(words: Iterable[tuple[str, str]]) -> re.Pattern[str]:
    """Return a pattern that finds each word in lower-case text where the text after it matches the second pattern.

    A search stops at every letter with which an alternative begins. A word's rarest letter causes the fewest stops, so
    the match starts at that letter.
    """
    found: defaultdict[str, defaultdict[tuple[int, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    for word, following in words:
        at = max(range(len(word)), key=lambda place: _rarity(word[place]))
        before, after = re.escape(word[: at + 1]), re.escape(word[at + 1 :])
        found[re.escape(word[at])][at, after + following].append(before)
    return re.compile("|".join(f"{letter}(?:{'|'.join(_alternatives(ends))})" for letter, ends in found.items()))


def _alternatives(ends: Mapping[tuple[int, str], list[str]]) -> Iterator[str]:
    """Yield one look-behind for all words with the letter at the same place and the same continuation."""
    for (_, after), befores in ends.items():
        yield f"(?<={'|'.join(befores)}){after}" if len(befores) > 1 else f"(?<={befores[0]}){after}"


def _rarity(letter: str) -> int:
    return (_FREQUENT_FIRST + letter).index(letter)


def finditer(pattern: re.Pattern[str], at_hints: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield the matches of `pattern`, each of which must have a hint in its first `REACH_CHARS` characters."""
    end = 0
    for hint in windowed(at_hints, text.lower()):
        for at in range(max(end, hint.start() - REACH_CHARS), hint.start() + 1):
            if found := pattern.match(text, at, hint.start() + MAX_MATCH_CHARS):
                yield found
                end = found.end()
                break


def windowed(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield the matches of `pattern` in order, searching one window at a time."""
    at = 0
    for window in range(0, len(text), WINDOW_CHARS):
        end = window + WINDOW_CHARS
        for found in pattern.finditer(text, max(at, window), end + MAX_MATCH_CHARS):
            if found.start() >= end:
                break
            at = found.end()
            yield found
