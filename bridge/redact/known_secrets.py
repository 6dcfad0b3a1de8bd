"""Mask secrets that are known by their value, in time linear in the text. Pure.

A secret is found in every form in which it may be echoed: verbatim, escaped for JSON or a URL, and in base64. A filler
of equal length replaces it. The number of secrets is bounded, and the time per character does not grow with it: each
position is looked up in a table.
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
"""Bound on the secrets of one exchange, of which the longest are kept. Beyond it no body of the exchange is stored."""
MAX_SECRET_CHARS: Final = 65_536
"""Bound on the total length of these secrets, with the same consequence."""
MIN_CHARS: Final = 8
MIN_CHARS_WITH_DIGIT: Final = 6
MIN_PART: Final = 4
"""Shortest part that is masked of a secret that the end of the text cuts off."""
MIN_TOKEN_PART: Final = 16
"""Shortest beginning of a token that is masked. Shorter beginnings are common to all keys of a provider."""
MIN_TEXT_PART: Final = 64
"""Shortest beginning of any other secret that is masked: such a secret may begin like ordinary text."""
WINDOW_BYTES: Final = 65_536
"""Size of the part that is searched at once, which bounds the list of matches."""
MAX_SEPARATE_SEARCHES: Final = 24
"""Up to this number of beginnings one search for each is faster than a table."""

_GRAM: Final = MIN_CHARS_WITH_DIGIT
"""Length of the table's keys; every form is at least as long."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9_.~+/=|:-]++")
_ESCAPED_BY_SOME: Final = re.compile(r"[+&<>'=/]")
_PERCENT: Final = re.compile("%..")


class KnownSecrets:
    """Secrets known by their value. Values that may be ordinary words, such as `ollama` or `test`, are left out."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        searchable = {secret for secret in secrets if is_searchable(secret)}
        kept = list(_within_bounds(searchable))
        self.has_too_many = len(kept) < len(searchable)
        """True if there are more secrets than can be searched for."""
        self._fillers: dict[bytes, bytes] = {}
        self._min_lengths: dict[bytes, int] = {}
        for secret in kept:
            is_token = _TOKEN.fullmatch(secret) is not None and "://" not in secret
            for form, filler in _forms(secret):
                self._fillers.setdefault(form, filler)
                min_length = min(len(form), MIN_TOKEN_PART if is_token else MIN_TEXT_PART)
                self._min_lengths[form] = min(min_length, self._min_lengths.get(form, min_length))
        self._sorted = sorted(self._fillers)
        self._prefix_of = _prefixes(self._sorted)
        self._longest = max(map(len, self._sorted), default=0)
        self._long_heads = {form[:MIN_TEXT_PART] for form in self._sorted if len(form) > MIN_TEXT_PART}
        self._starts = sorted({form[:length] for form, length in self._min_lengths.items()})
        self._grams = {form[:_GRAM] for form in self._sorted}

    def __bool__(self) -> bool:
        return self.has_too_many or bool(self._sorted)

    def mask(self, body: bytes) -> bytes:
        """Return `body` with fillers in place of these secrets; all of it is masked if there are too many."""
        return b"*" * len(body) if self.has_too_many else self.mask_line(body)

    def mask_line(self, line: bytes) -> bytes:
        """Mask a URL or a header. Beyond the bounds only the longest secrets are masked: names reveal the others."""
        is_short = len(line) <= WINDOW_BYTES and len(self._starts) <= MAX_SEPARATE_SEARCHES
        if is_short and not any(start in line for start in self._starts):
            return line
        return self._masked(line, len(line))[0]

    def mask_beginning(self, body: bytes) -> bytes:
        """Mask a text that is to be continued; return it without the last bytes, which may belong to a secret.

        The caller keeps the rest of `body`, and masks it with what follows.
        """
        if self.has_too_many:
            return b"*" * len(body)
        masked, end = self._masked(body, max(len(body) - self._longest, 0))
        return masked[:end]

    def _masked(self, line: bytes, last: int) -> tuple[bytes, int]:
        """Mask the secrets that begin before `last`; return the line, and the end of the last one or `last`."""
        masked: bytearray | None = None
        end = 0
        for at in self._candidate_positions(line):
            if at >= last:
                break
            if at < end:
                continue
            form, length = self._longest_at(line, at)
            if length:
                masked = bytearray(line) if masked is None else masked
                masked[at : at + length] = self._fillers[form][:length]
                end = at + length
        return line if masked is None else bytes(masked), max(end, last)

    def mask_text(self, text: str) -> str:
        """Mask these secrets in a text."""
        encoded = text.encode(errors="replace")
        masked = self.mask(encoded)
        return text if masked == encoded else masked.decode(errors="replace")

    def mask_cut_end(self, body: bytes) -> bytes:
        """Mask the beginning of a secret at the end of `body`, which was cut off there."""
        longest = max((_part_at_end(body, form) for form in self._sorted), default=0)
        return body[: len(body) - longest] + b"*" * longest

    def _candidate_positions(self, body: bytes) -> Iterator[int]:
        """Yield the positions at which a secret may begin, in ascending order."""
        for window in range(0, len(body), WINDOW_BYTES):
            if len(self._starts) <= MAX_SEPARATE_SEARCHES:
                yield from sorted({at for start in self._starts for at in _occurrences(start, body, window)})
            else:
                grams, last = self._grams, min(window + WINDOW_BYTES, len(body) - _GRAM + 1)
                yield from [at for at in range(window, last) if body[at : at + _GRAM] in grams]

    def _longest_at(self, body: bytes, at: int) -> tuple[bytes, int]:
        """Return the form that shares the longest beginning with the text at `at`, and its length; 0 if too short.

        In the sorted list this form is next to the insertion point of the text, or a prefix of its neighbour.
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
    """Return, for each of the sorted forms, the longest other form that is a prefix of it."""
    prefix_of: dict[bytes, bytes | None] = dict.fromkeys(forms[:1])
    for before, form in pairwise(forms):
        shorter: bytes | None = before
        while shorter is not None and not form.startswith(shorter):
            shorter = prefix_of[shorter]
        prefix_of[form] = shorter
    return prefix_of


def _occurrences(start: bytes, body: bytes, window: int) -> Iterator[int]:
    """Yield the positions of `start` in one window."""
    last = window + WINDOW_BYTES + len(start) - 1
    at = body.find(start, window, last)
    while at >= 0:
        yield at
        at = body.find(start, at + 1, last)


def _common_length(form: bytes, text: bytes) -> int:
    """Return the length of the common beginning."""
    low, high = 0, min(len(form), len(text))
    while low < high:
        middle = (low + high + 1) // 2
        if form[low:middle] == text[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _whole_characters(form: bytes, length: int) -> int:
    """Return the length without an incomplete escape or character at its end, whose rest would change its meaning."""
    if length < len(form):
        while length and form[length] & 0xC0 == 0x80:
            length -= 1
        length = len(form[:length].rstrip(b"\\"))
    return length


def _part_at_end(body: bytes, form: bytes) -> int:
    """Return the length of the form's beginning at the end of the body; 0 if it is too short.

    Longer parts were found before.
    """
    longest = min(len(form), len(body), MIN_TEXT_PART)
    return next((length for length in range(longest, MIN_PART - 1, -1) if body.endswith(form[:length])), 0)


def is_searchable(secret: str) -> bool:
    """Return True if the secret is long enough to be distinguished from a word."""
    return len(secret) >= (MIN_CHARS_WITH_DIGIT if any(map(str.isdigit, secret)) else MIN_CHARS)


def filler(secret: str) -> bytes:
    """Return a filler of equal length: digits for a number, so that `{"created": 1734…}` stays JSON."""
    return (b"1" if secret.isdecimal() else b"*") * len(secret)


# The forms in which a secret may be echoed.


def _forms(secret: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield each form of a secret with its filler."""
    for spelling in {secret, *_escaped(secret), *_quoted(secret)}:
        form = spelling.encode(errors="replace")
        yield form, filler(form.decode("latin-1"))
    for shift in range(3):
        for altchars in (b"+/", b"-_"):
            yield _in_base64(secret.encode(errors="replace"), shift, altchars)


def _escaped(secret: str) -> Iterator[str]:
    """Yield the secret as JSON encoders write it, and as JSON inside a JSON string."""
    for spell in (partial(json.dumps, ensure_ascii=False), json.dumps):
        once = spell(secret)[1:-1]
        yield from (once, once.replace("/", r"\/"), spell(once)[1:-1])
        if _ESCAPED_BY_SOME.search(once):  # the encoders of Go and .NET escape these
            for digits in ("04x", "04X"):
                yield _ESCAPED_BY_SOME.sub(lambda found, digits=digits: rf"\u{ord(found[0]):{digits}}", once)  # type: ignore[misc]


def _quoted(secret: str) -> Iterator[str]:
    """Yield the secret as it stands in URLs; the digits of an escape may be of either case."""
    for quoted in (
        quote(secret, errors="replace"),
        quote(secret, "", errors="replace"),
        quote_plus(secret, errors="replace"),
    ):
        yield quoted
        yield _PERCENT.sub(lambda escape: escape[0].lower(), quoted)


def _in_base64(secret: bytes, shift: int, altchars: bytes) -> tuple[bytes, bytes]:
    """Return the base64 characters that only the secret determines after `shift` bytes, and a filler for them.

    The filler decodes to letters. The characters at both edges also depend on the neighbours: at most four bits of the
    secret remain there. Together with these bits an `o` is not a quotation mark, backslash or control character.
    """
    determined = slice(-(-8 * shift // 6), 8 * (shift + len(secret)) // 6)
    form, plain = (
        b64encode(bytes(shift) + text + bytes(2), altchars)[determined] for text in (secret, b"o" * len(secret))
    )
    return form, plain


NO_SECRETS: Final = KnownSecrets()
