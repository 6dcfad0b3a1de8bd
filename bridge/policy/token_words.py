"""Find the words of a text that could be a token: plain, percent-decoded, and base64-decoded. Pure.

Only the digests of tokens are known, so a text cannot be searched for tokens: each word is digested. Work and
memory are proportional to the length of the text.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

_CUTS: Final = (
    re.compile(r"[\s,]"),
    re.compile(r"[\s,;&]"),
    re.compile(r"[\s,;&=?#:|\"'<>()\[\]{}\\@]"),
    re.compile(r"[\s,;&=?#:|\"'<>()\[\]{}\\@/+]"),
    re.compile(r"[^A-Za-z0-9_~-]"),
)
"""From few delimiters to many: a token may itself hold what delimits another, such as `/` or `=`."""

_INNER: Final = ("=", ":", ".")
"""A word may follow the first of these: `name=TOKEN`, `user:TOKEN`, `cf-aig-authorization.TOKEN`."""

_QUOTES: Final = "\"'()[]{}<>"
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_TO_STANDARD: Final = str.maketrans("-_", "+/")
_MAX_DECODINGS: Final = 2
"""A proxy in front of a provider may decode a path once before the provider does."""


def token_words(text: str) -> set[str]:
    """Return every word of `text` that could be a token, for every way in which delimiters may split the text."""
    found: set[str] = set()
    for form in _forms(text):
        found.update(_words(form))
    for decoded in filter(None, map(_from_base64, tuple(found))):
        found.update(_words(decoded))
    found.discard("")
    return found


def _forms(text: str) -> Iterator[str]:
    yield text
    for _ in range(_MAX_DECODINGS):
        decoded = unquote(text)
        if decoded == text:
            return
        yield decoded
        text = decoded


def _words(text: str) -> set[str]:
    pieces = {text.strip()}
    found = set(pieces)
    for cut in _CUTS:
        if any(map(cut.search, pieces)):
            pieces = {part for piece in pieces for part in cut.split(piece)}
            found |= pieces
    for word in [word for word in found if not word.isalnum()]:
        found.add(word.strip(_QUOTES))
        found.update(word.partition(mark)[2] for mark in _INNER if mark in word)
    return found


def _from_base64(word: str) -> str | None:
    """Return the text that the word encodes; None if it encodes none."""
    if not _BASE64.fullmatch(word):
        return None
    bare = word.rstrip("=").translate(_TO_STANDARD)
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
