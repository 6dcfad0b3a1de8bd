"""Mask secrets in a body without changing its length, so that cuts and offsets stay valid. Pure.

Masked are: every known secret, in each form listed in `known_secrets`; JSON fields with secret names, also in JSON
inside a JSON string; secret parameters of URLs and forms; text that looks like a credential. A known secret that a
model's own text contains is found only if it stands in one piece.

Masking is idempotent, and a body that masking does not change contains nothing to find.
"""

import re
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Final
from urllib.parse import unquote

from bridge.redact.known_secrets import NO_SECRETS, KnownSecrets, filler
from bridge.redact.named_secrets import named_secrets, paired_secrets
from bridge.redact.prefilter import windowed
from bridge.redact.text import HINTS, NAME_HINTS, find_credentials, is_secret_field, is_secret_name

Span = tuple[int, int]

MAX_PASSES: Final = 4
"""Bound on repeated passes: a mask may let the text around it look like a secret, in a body that is hardly JSON."""
MIN_DIGITS: Final = 6
"""Shorter numbers are treated as counts, not as PINs."""
MAX_NAME_CHARS: Final = 64
MAX_BACKSLASHES: Final = 64
"""Bound on the backslashes before a quotation mark: JSON in a JSON string, six levels deep."""


def mask_body(body: bytes, known: KnownSecrets = NO_SECRETS) -> bytes:
    """Return `body` with fillers of equal length in place of secrets: digits for numbers, base64 for base64."""
    output = known.mask(body)
    for _ in range(MAX_PASSES):
        before, output = output, _masked_once(output)
        if output == before:
            break
    return output if output == body else _with_valid_crcs(output, body)


_SUSPECT = re.compile(rf"{HINTS.pattern}|://|%(?=[0-9a-f]{{2}}[^=]{{0,{MAX_NAME_CHARS}}}=)")
"""Quick test: most bodies do not match and need no closer search. The last alternative is an escaped parameter name."""


def _masked_once(body: bytes) -> bytes:
    # One character per byte: spans of characters are spans of bytes, in any encoding.
    text = body.decode("latin-1")
    if not _SUSPECT.search(text.lower()):
        return body
    output = bytearray(body)
    # Inner matches come before those that may contain them, whose filler then replaces all.
    for find in (find_credentials, _passwords, _secret_parameters, named_secrets, secret_values):
        for start, end in find(text):
            output[start:end] = filler(text[start:end])
    return bytes(output)


# Secrets that are found by names and shapes.

_FIELD = re.compile(r'(?<!\\)(\\*+)"([A-Za-z0-9_.-]{1,64}+)\1"\s{0,64}+:\s{0,64}+(\[?)\s{0,64}+')
_QUOTE_OR_END = re.compile(r'(?<!\\)(\\*+)("|\n|\Z)')
_NEXT_STRING = re.compile(r"\s{0,64}+,\s{0,64}+")
_NUMBER = re.compile(rf"-?(\d{{{MIN_DIGITS},}}+)(?![\d.eE])")


def secret_fields(text: str) -> Iterator[Span]:
    """Yield the spans of values of secret JSON fields: strings, lists of strings, and integers that are not counts.

    JSON may stand inside a JSON string, as the arguments of tools do: its quotation marks are escaped.
    """
    scanned_to = 0
    for field in _fields(text):
        if field.start() < scanned_to or not is_secret_name(field[2]):
            continue
        for start, end in _values(text, field):
            if is_secret_field(field[2], text[start:end]):
                scanned_to = end
                yield start, end


def secret_values(text: str) -> Iterator[Span]:
    """Yield the spans of all values that JSON marks as secret by a name."""
    yield from paired_secrets(text)
    yield from secret_fields(text)


def _fields(text: str) -> Iterator[re.Match[str]]:
    """Yield the JSON fields whose names contain a word that is typical of secrets."""
    end = 0
    for hint in windowed(NAME_HINTS, text.lower()):
        quote = text.rfind('"', max(end, hint.start() - MAX_NAME_CHARS), hint.start())
        backslashes = text[max(end, quote - MAX_BACKSLASHES) : quote] if quote >= 0 else ""
        start = quote - len(backslashes) + len(backslashes.rstrip("\\"))
        if quote >= 0 and (field := _FIELD.match(text, start)):
            yield field
            end = field.end()


def _values(text: str, field: re.Match[str]) -> Iterator[Span]:
    backslashes, is_list = field[1], bool(field[3])
    if number := _NUMBER.match(text, field.end()):
        yield number.span(1)
    at = field.end()
    while text.startswith(backslashes + '"', at):
        start = at + len(backslashes) + 1
        end = _string_end(text, start, len(backslashes))
        yield start, end
        following = _NEXT_STRING.match(text, end + len(backslashes) + 1)
        if following is None or not is_list:
            break
        at = following.end()


def _string_end(text: str, start: int, depth: int) -> int:
    r"""Return the end of the string whose quotation marks have `depth` backslashes: `"`, `\"`, `\\\"`.

    Each level doubles the backslashes of the level inside, so a run of backslashes before the end comes in such
    multiples.
    """
    for mark in _QUOTE_OR_END.finditer(text, start):
        if mark[2] != '"':
            return mark.start()
        if len(mark[1]) % (2 * (depth + 1)) == depth:
            return mark.end() - 1 - depth
    return len(text)


_PAIR = r"""([A-Za-z0-9_.%-]{1,64}+)=([^\s&#;"'<>\\)\]}]{1,16384}+)"""
_FIRST_PARAMETER = re.compile(_PAIR)
_PARAMETER = re.compile(rf"(?:[?&]|\\u0026){_PAIR}")


def _secret_parameters(text: str) -> Iterator[Span]:
    for parameter in chain(filter(None, [_FIRST_PARAMETER.match(text)]), windowed(_PARAMETER, text)):
        if is_secret_name(unquote(parameter[1])):
            yield parameter.span(2)


_PASSWORD = re.compile(r"""://[^/\s?#"'<>\\@:]{1,256}+:([^/\s?#"'<>\\@]{1,256}+)@""")


def _passwords(text: str) -> Iterator[Span]:
    for userinfo in windowed(_PASSWORD, text):
        yield userinfo.span(1)


# The AWS event stream.

_MIN_MESSAGE_BYTES = 16


def _with_valid_crcs(body: bytes, before: bytes) -> bytes:
    """Return `body` with recomputed CRCs if `before` was an AWS event stream with valid CRCs
    (formats/eventstream.py).
    """
    sealed = bytearray(body)
    at = 0
    while at + _MIN_MESSAGE_BYTES <= len(before):
        end = at + int.from_bytes(before[at : at + 4], "big")
        if end - at < _MIN_MESSAGE_BYTES or end > len(before) or not _has_valid_crc(before[at:end]):
            break
        sealed[end - 4 : end] = zlib.crc32(sealed[at : end - 4]).to_bytes(4, "big")
        at = end
    return bytes(sealed)


def _has_valid_crc(message: bytes) -> bool:
    return zlib.crc32(message[:-4]) == int.from_bytes(message[-4:], "big")
