"""Find secrets in a body by a name beside them, other than JSON fields. Pure.

Found are `NAME=value` and `name: value` in text, fields of a multipart form, pairs of a name and a value as in HAR,
values inside an object with a secret name, and private keys in PEM. Each name is examined once, within a bounded
distance.
"""

import re
from collections.abc import Iterator
from typing import Final

from bridge.redact.prefilter import windowed
from bridge.redact.text import (
    NAME_HINTS,
    has_key_shape,
    is_secret_field,
    is_secret_name,
    looks_secret,
    may_be_secret_field,
)

Span = tuple[int, int]

MAX_NAME_CHARS: Final = 64
MAX_OBJECT_CHARS: Final = 4096
MAX_HEAD_CHARS: Final = 1024
"""Bound on the head of a form's part, and on the distance between the value of a pair and its name."""
MAX_VALUE_CHARS: Final = 16_384

_IN_NAMES: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
_REST_OF_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{0,64}+")
_ASSIGNED: Final = re.compile(
    r"""(=|:\s{0,2}+)(?:\\?["'])?((?:Bearer|Basic|Token|Key)\s{1,2}+)?([^\s"'&<>\\;,(){}\[\]]{4,4096}+)""",
    re.IGNORECASE,
)
_PEM: Final = re.compile(r"KEY(?: BLOCK)?-----((?:[A-Za-z0-9+/=\s\\:,]|(?!--)-){16,16384})")
_FILLED: Final = "***"
"""Marks a value that is masked already."""
_BEFORE_KEY: Final = "PRIVATE "
_VALUE_OF_PAIR: Final = re.compile(r'(\\{0,64}+)"\s{0,8}+,\s{0,8}+\1"(?:value|Value|val)\1"\s{0,8}+:\s{0,8}+\1"')
_PAIR_BEFORE: Final = re.compile(
    r'"(?:value|Value|val)"\s{0,8}+:\s{0,8}+"([^"\\]{1,1000}+)"\s{0,8}+,\s{0,8}+"[A-Za-z_-]{1,16}+"\s{0,8}+:\s{0,8}+"\Z'
)
_INNER: Final = re.compile(r'(\\{0,64}+)"([A-Za-z0-9_-]{1,64}+)\1"\s{0,8}+:\s{0,8}+\1"([^"\\\s]{6,4096}+)\1"')
_OBJECT: Final = re.compile(r'\\{0,64}+"\s{0,64}+:\s{0,64}+\{')
_VALUE_NAMES: Final = frozenset({"value", "secret", "secret_value", "key", "token", "data", "plaintext", "current"})


def named_secrets(text: str) -> Iterator[Span]:
    """Yield the spans of secrets in text, in forms and in PEM."""
    scanned_to = 0
    for start, end, hint in _names(text):
        if start < scanned_to:  # inside a value that is masked already
            continue
        if text[hint - len(_BEFORE_KEY) : hint].upper() == _BEFORE_KEY and (pem := _PEM.match(text, hint)):
            yield pem.span(1)
        elif may_be_secret_field(name := text[start:end]):
            if text.endswith('name="', max(start - 6, 0), start):
                yield from _form_field(text, end)
            elif (found := _ASSIGNED.match(text, end)) and _is_assigned(name, found):
                scanned_to = found.end()
                yield found.span(3)


def paired_secrets(text: str) -> Iterator[Span]:
    """Yield the spans of secrets in JSON: values beside a secret name, and values in an object with such a name."""
    scanned_to = 0
    for start, end, _ in _names(text):
        if start < max(scanned_to, 1) or text[start - 1] != '"' or not is_secret_name(name := text[start:end]):
            continue
        if after := _VALUE_OF_PAIR.match(text, end):
            close = text.find(after[1] + '"', after.end(), after.end() + MAX_VALUE_CHARS)
            yield from _if_secret(text, name, after.end(), close)
        elif opened := _OBJECT.match(text, end):
            close = text.find("}", opened.end(), opened.end() + MAX_OBJECT_CHARS)
            scanned_to = close if close >= 0 else min(opened.end() + MAX_OBJECT_CHARS, len(text))
            yield from _secrets_in_object(text, opened.end(), scanned_to)
        elif text[start - 2] in ": " and (before := _PAIR_BEFORE.search(text, max(start - MAX_HEAD_CHARS, 0), start)):
            yield from _if_secret(text, name, *before.span(1))


def _names(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and position of the typical word of each name that may belong to a secret."""
    scanned_to = 0
    for hint in windowed(NAME_HINTS, text.lower()):
        if hint.start() < scanned_to:
            continue
        # A hint matches at a word's rarest letter: the word's beginning belongs to the name before it.
        before = text[max(hint.start() - MAX_NAME_CHARS, 0) : hint.start()]
        start = hint.start() - len(before) + len(before.rstrip(_IN_NAMES))
        rest = _REST_OF_NAME.match(text, hint.start())
        scanned_to = rest.end() if rest else hint.end()
        yield start, scanned_to, hint.start()


def _form_field(text: str, end: int) -> Iterator[Span]:
    """Yield the span of a multipart field's value, unless the field is a file."""
    head = text.find("\r\n\r\n", end, end + MAX_HEAD_CHARS)
    close = text.find("\r\n--", head + 4, head + 4 + MAX_VALUE_CHARS) if head >= 0 else -1
    if close >= 0 and "filename" not in text[end:head]:
        yield head + 4, close


def _is_assigned(name: str, found: re.Match[str]) -> bool:
    """Return True if the value is a secret and not a word of a sentence, a count or a variable."""
    value = found[3]
    if not is_secret_field(name, value) or _FILLED in value or has_key_shape(value):
        return False
    if looks_secret(value) or (found[1] == "=" and name.isupper()):
        return True
    return len(value) >= 6 and not value.isalpha() and any(map(str.isdigit, value))


def _if_secret(text: str, name: str, start: int, end: int) -> Iterator[Span]:
    if end > start and is_secret_field(name, text[start:end]):
        yield start, end


def _secrets_in_object(text: str, at: int, end: int) -> Iterator[Span]:
    """Yield values in an object with a secret name that look like secrets; the values of a schema do not."""
    for inner in _INNER.finditer(text, at, end):
        is_value = inner[2].lower() in _VALUE_NAMES or is_secret_name(inner[2])
        if is_value and looks_secret(inner[3]):
            yield inner.span(3)
