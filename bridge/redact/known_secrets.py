"""Secrets known by their value, and a search for all of them that is linear in the text.

A secret is found in every form in which it may come back: as it is, escaped for JSON or a URL, and in base64. It is
masked by a filler of equal length. The number of secrets is bounded, and the time per character of the text does not
grow with it: each place is looked up in a table. Pure.
"""

import json
import re
from base64 import b64encode
from bisect import bisect
from collections.abc import Iterable, Iterator
from functools import partial
from heapq import nlargest
from itertools import pairwise
from typing import Final
from urllib.parse import quote, quote_plus

MAX_SECRETS: Final = 64
"""Of one exchange, the longest first. With more than that no body of the exchange is kept or shown."""
MAX_SECRET_CHARS: Final = 65_536
"""Of these secrets together, likewise."""
MIN_CHARS: Final = 8
MIN_CHARS_WITH_DIGIT: Final = 6
MIN_PART: Final = 4
"""Of a secret whose rest the end of the text cut off."""
MIN_TOKEN_PART: Final = 16
"""Of a token of which a text holds only the beginning. Shorter beginnings are common to all keys of a provider."""
MIN_TEXT_PART: Final = 64
"""Of any other secret, which may begin as many texts do."""
WINDOW_BYTES: Final = 65_536
"""How much is searched at once, so that the list of places stays short."""
MAX_SEPARATE_SEARCHES: Final = 24
"""Up to this number one search for each is faster than a table."""

_GRAM: Final = MIN_CHARS_WITH_DIGIT
"""No form is shorter."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9_.~+/=|:-]++")
_ESCAPED_BY_SOME: Final = re.compile(r"[+&<>'=/]")
_PERCENT: Final = re.compile("%..")


class KnownSecrets:
    """Secrets known by their value. Those that may as well be a word, `ollama` or `test`, are left out."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        telling = {secret for secret in secrets if is_searchable(secret)}
        kept = list(_within_bounds(telling))
        self.has_too_many = len(kept) < len(telling)
        """There are more secrets than can be looked for."""
        self._fillers: dict[bytes, bytes] = {}
        self._min_lengths: dict[bytes, int] = {}
        for secret in kept:
            is_token = _TOKEN.fullmatch(secret) is not None and "://" not in secret
            for form, filler in _forms(secret):
                self._fillers.setdefault(form, filler)
                least = min(len(form), MIN_TOKEN_PART if is_token else MIN_TEXT_PART)
                self._min_lengths[form] = min(least, self._min_lengths.get(form, least))
        self._sorted = sorted(self._fillers)
        self._prefix_of = _prefixes(self._sorted)
        self._longest = max(map(len, self._sorted), default=0)
        self._long_heads = {form[:MIN_TEXT_PART] for form in self._sorted if len(form) > MIN_TEXT_PART}
        self._starts = sorted({form[:least] for form, least in self._min_lengths.items()})
        self._grams = {form[:_GRAM] for form in self._sorted}

    def __bool__(self) -> bool:
        return self.has_too_many or bool(self._sorted)

    def mask(self, body: bytes) -> bytes:
        """`body` with fillers of equal length in the place of these secrets; all of it when there are too many."""
        return b"*" * len(body) if self.has_too_many else self.mask_line(body)

    def mask_line(self, line: bytes) -> bytes:
        """The same for a URL or a header, whose secrets are masked by their names too: the longest secrets."""
        is_short = len(line) <= WINDOW_BYTES and len(self._starts) <= MAX_SEPARATE_SEARCHES
        if is_short and not any(start in line for start in self._starts):
            return line
        hidden: bytearray | None = None
        end = 0
        for at in self._places(line):
            if at < end:
                continue
            form, length = self._longest_at(line, at)
            if length:
                hidden = bytearray(line) if hidden is None else hidden
                hidden[at : at + length] = self._fillers[form][:length]
                end = at + length
        return line if hidden is None else bytes(hidden)

    def mask_text(self, text: str) -> str:
        """The same for text."""
        given = text.encode(errors="replace")
        hidden = self.mask(given)
        return text if hidden == given else hidden.decode(errors="replace")

    def mask_cut_end(self, body: bytes) -> bytes:
        """`body`, which was cut off, without the beginning of one of these secrets that the cut left at its end."""
        longest = max((_part_at_end(body, form) for form in self._sorted), default=0)
        return body[: len(body) - longest] + b"*" * longest

    def _places(self, body: bytes) -> Iterator[int]:
        """Where one of the secrets may begin, in ascending order."""
        for window in range(0, len(body), WINDOW_BYTES):
            if len(self._starts) <= MAX_SEPARATE_SEARCHES:
                yield from sorted({at for start in self._starts for at in _occurrences(start, body, window)})
            else:
                grams, last = self._grams, min(window + WINDOW_BYTES, len(body) - _GRAM + 1)
                yield from [at for at in range(window, last) if body[at : at + _GRAM] in grams]

    def _longest_at(self, body: bytes, at: int) -> tuple[bytes, int]:
        """The form that has most in common with what stands there, and how much; 0 for too little to tell.

        Among sorted forms it is next to where the text itself would stand, or a prefix of that one.
        """
        text = body[at : at + MIN_TEXT_PART]
        if text in self._long_heads:
            text = body[at : at + self._longest]
        place = bisect(self._sorted, text)
        found = (b"", 0)
        for form in self._sorted[max(place - 1, 0) : place + 1]:
            common = _common_length(form, text)
            nearest: bytes | None = form
            while nearest is not None:
                length = min(common, len(nearest))
                if length >= self._min_lengths[nearest]:
                    found = max(found, (nearest, _whole_characters(nearest, length)), key=_length)
                    break
                nearest = self._prefix_of[nearest]
        return found


def _length(found: tuple[bytes, int]) -> int:
    return found[1]


def _within_bounds(secrets: Iterable[str]) -> Iterator[str]:
    chars = 0
    for secret in nlargest(MAX_SECRETS, secrets, key=len):
        if chars + len(secret) <= MAX_SECRET_CHARS:
            chars += len(secret)
            yield secret


def _prefixes(forms: list[bytes]) -> dict[bytes, bytes | None]:
    """For each of the sorted forms, the longest other one that it begins with."""
    prefix_of: dict[bytes, bytes | None] = dict.fromkeys(forms[:1])
    for before, form in pairwise(forms):
        shorter: bytes | None = before
        while shorter is not None and not form.startswith(shorter):
            shorter = prefix_of[shorter]
        prefix_of[form] = shorter
    return prefix_of


def _occurrences(start: bytes, body: bytes, window: int) -> Iterator[int]:
    """The places in one window where `start` stands."""
    last = window + WINDOW_BYTES + len(start) - 1
    at = body.find(start, window, last)
    while at >= 0:
        yield at
        at = body.find(start, at + 1, last)


def _common_length(form: bytes, text: bytes) -> int:
    """The length of what both begin with."""
    low, high = 0, min(len(form), len(text))
    while low < high:
        middle = (low + high + 1) // 2
        if form[low:middle] == text[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _whole_characters(form: bytes, length: int) -> int:
    """The length without a part of an escape or of a character at its end: the rest of it would change its meaning."""
    if length < len(form):
        while length and form[length] & 0xC0 == 0x80:
            length -= 1
        length = len(form[:length].rstrip(b"\\"))
    return length


def _part_at_end(body: bytes, form: bytes) -> int:
    """How much of a form's beginning stands at the end; 0 for what is too little to tell, or was found before."""
    most = min(len(form), len(body), MIN_TEXT_PART)
    return next((length for length in range(most, MIN_PART - 1, -1) if body.endswith(form[:length])), 0)


def is_searchable(secret: str) -> bool:
    """Long enough to be told from a word."""
    return len(secret) >= (MIN_CHARS_WITH_DIGIT if any(map(str.isdigit, secret)) else MIN_CHARS)


def filler(secret: str) -> bytes:
    """A number remains one: `{"created": 1734…}` stays JSON, should a secret be a part of it."""
    return (b"1" if secret.isdecimal() else b"*") * len(secret)


# The forms in which a secret comes back.


def _forms(secret: str) -> Iterator[tuple[bytes, bytes]]:
    """Each form with its filler."""
    for spelt in {secret, *_escaped(secret), *_quoted(secret)}:
        form = spelt.encode(errors="replace")
        yield form, filler(form.decode("latin-1"))
    for shift in range(3):
        for altchars in (b"+/", b"-_"):
            yield _in_base64(secret.encode(errors="replace"), shift, altchars)


def _escaped(secret: str) -> Iterator[str]:
    """As JSON writes it, and JSON inside a string of JSON."""
    for spell in (partial(json.dumps, ensure_ascii=False), json.dumps):
        once = spell(secret)[1:-1]
        yield from (once, once.replace("/", r"\/"), spell(once)[1:-1])
        if _ESCAPED_BY_SOME.search(once):  # as the encoders of Go and .NET write it
            for digits in ("04x", "04X"):
                yield _ESCAPED_BY_SOME.sub(lambda found, digits=digits: rf"\u{ord(found[0]):{digits}}", once)  # type: ignore[misc]


def _quoted(secret: str) -> Iterator[str]:
    """As URLs write it; the digits of an escape may be of either case."""
    for quoted in (
        quote(secret, errors="replace"),
        quote(secret, "", errors="replace"),
        quote_plus(secret, errors="replace"),
    ):
        yield quoted
        yield _PERCENT.sub(lambda escape: escape[0].lower(), quoted)


def _in_base64(secret: bytes, shift: int, altchars: bytes) -> tuple[bytes, bytes]:
    """The characters that are the secret's own when `shift` bytes stand before it; and others, that decode to letters.

    The characters at both edges are shared with the neighbours: of the secret there remain four bits at the most, and
    with those, too, an `o` is no quotation mark, backslash or control character.
    """
    whole = slice(-(-8 * shift // 6), 8 * (shift + len(secret)) // 6)
    form, plain = (b64encode(bytes(shift) + each + bytes(2), altchars)[whole] for each in (secret, b"o" * len(secret)))
    return form, plain


NO_SECRETS: Final = KnownSecrets()
