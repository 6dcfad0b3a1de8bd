"""Check a long JSON text while it arrives, and keep a short version of it to interpret.

Pure. The work of each call is proportional to the bytes it receives, so that the event loop is never blocked for a
whole text.

The text is checked in segments between two commas. The containers that are open at the first comma are opened before
the segment, and those that are open at its end are closed after it, each with one more element. The result is a JSON
text if and only if the segment is valid in its place. Pieces of a long string are checked as strings.
"""

import codecs
import re
from itertools import repeat
from typing import Final

import msgspec

from bridge.formats.body_end import candidate_positions
from bridge.formats.json_text import replace_lone_surrogates, truncated_at_depth

BLOCK_BYTES: Final = 1 << 16
"""Size of the blocks for `LongJson.feed`; longer blocks block the event loop for longer."""
_MAX_TOKEN_BYTES: Final = 1 << 17
"""Bound on a number, or on a run of tokens outside strings without a comma."""
_MAX_SHORT_BYTES: Final = 1 << 20
MAX_SHORT_PARTS: Final = 50_000
"""Bound on the values of a short version, which takes a millisecond per 2,000 of them to decode."""
_LIST_BYTES: Final = 4096
_SPARSE: Final = 16
"""A segment that is still longer, with a quotation mark or an opening bracket in every 16 bytes at most, may be a list
of numbers.
"""
_KEPT_BYTES: Final = 1 << 16
"""Size of the beginning and the end that are kept of a text with more values."""
_OPEN_STRING_BYTES: Final = 4096
"""An unfinished string up to this size waits for the next block, so that the short version contains it."""
_ESCAPE_BYTES: Final = 12
"""Length of the longest escape, which is a surrogate pair."""
_PASSES: Final = 8

_skim: Final = msgspec.json.Decoder(msgspec.Raw).decode
_utf8: Final = codecs.getincrementaldecoder("utf-8")
_CONTENT: Final = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
_END: Final = rb'(?:"|\\?\Z)'
"""A string without an end extends to the end of the text, so that its quotation marks are not searched again."""
_STRING: Final = re.compile(rb'"%b%b' % (_CONTENT, _END), re.DOTALL)
_CLOSED_OR_OPEN: Final = re.compile(rb'"%b"|("%b\\?\Z)' % (_CONTENT, _CONTENT), re.DOTALL)
_STRING_REST: Final = re.compile(rb'%b(")?' % _CONTENT, re.DOTALL)
_TO_LAST_COMMA: Final = re.compile(rb'(?:[^"]*(?:"%b"[^"]*)*,)?' % _CONTENT, re.DOTALL)
_PREFIX: Final = rb'(?:[^"\\\x80-\xff]{1,64}+|[\xc0-\xff][\x80-\xbf]{0,3}+|\\u[0-9a-fA-F]{4}|\\[^u]){0,16}+'
"""The beginning of a string, which replaces a long one in the short version."""
_BEGINNING: Final = re.compile(_PREFIX, re.DOTALL)
_SHORTEN: Final = re.compile(
    rb'"(?:([^"\\]{0,1024}+(?:\\.[^"\\]{0,64}+){0,64}+)"|(%b)%b%b)' % (_PREFIX, _CONTENT, _END), re.DOTALL
)
_SHORTEN_MORE: Final = re.compile(rb'"(?:([^"\\]{0,128}+)"|(%b)%b%b)' % (_PREFIX, _CONTENT, _END), re.DOTALL)
_NUMBERS: Final = re.compile(
    rb'("[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z))|(?<=[\[,])(?:[ \t\r\n]*+-?[0-9][0-9.eE+-]*+[ \t\r\n]*+,){8,}', re.DOTALL
)
"""A string, or consecutive numbers of a list, such as those of an embedding."""
_OPENINGS: Final = (b"{", b'{"response":{', b'{"result":{')
"""Texts before the last members of an object: its own, or those of the answer inside (OpenAI Responses, Workers AI)."""
_HIGH: Final = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_COMPLETE: Final = re.compile(
    rb"(?:[^\\\x80-\xff]++|\\[^u]|%b(?:%b|(?=.{6}))|\\u(?!%b)[0-9a-fA-F]{4}"
    rb"|[\xc0-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xff][\x80-\xbf]{3})*"
    % (_HIGH, _LOW, rb"[dD][89abAB][0-9a-fA-F]{2}"),
    re.DOTALL,
)
"""The part of a string's content that never splits a character, an escape or a surrogate pair at its end."""
_BLANKS: Final = b" \t\r\n"
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_CLOSERS: Final = {ord("["): b"]", ord("{"): b"}"}
_OPENERS: Final = {ord("]"): ord("["), ord("}"): ord("{")}
_ARRAY: Final = ord("[")


class LongJson:
    """Check one JSON text, block by block."""

    def __init__(self) -> None:
        self._decode = _utf8().decode
        self._text = b""  # text since the last checked comma; only the beginning of an open long string
        self._in_string = False
        self._string = b""  # the end of the last block, which may be inside an escape
        self._open: bytes | None = None  # the opening brackets around `_text`; None before the first comma
        self._short: list[bytes] = []
        self._short_bytes = self._parts = 0
        self._end: bytes | None = None  # the end of the short version, once it has too many values to be kept
        self.is_valid = True
        """False as soon as the text is known not to be JSON in UTF-8."""

    def feed(self, block: bytes) -> None:
        """Check the next block of the text."""
        if not self.is_valid:
            return
        try:
            self._decode(block)
            self._scan(block)
        except (ValueError, RecursionError):
            self.is_valid = False

    def finish(self) -> bytes | None:
        """Return the text with long strings cut; None if it is not one JSON value in UTF-8. Call it once.

        Most numbers of a long list are left out. If there are still too many values, the text is reduced to the members
        before its first nested container, and those with counts at its end.
        """
        try:
            self._decode(b"", True)
            if self.is_valid and not self._in_string:
                self._check(self._text, b"")
                self._keep_short(self._text)
                return b"".join(self._short) if self._end is None else _reduced(self._short[0], self._end)
        except (ValueError, RecursionError):
            pass
        self.is_valid = False
        return None

    def _scan(self, block: bytes) -> None:
        if self._in_string:
            end = self._pass_string(self._string + block)
            if self._in_string:
                return
            block = b'"' + (self._string + block)[end:]
        text = self._text + block
        if text.endswith((b" ", b"\n")) and self._open_string(text, 0) < 0:
            text = text.rstrip(_BLANKS) + b" "  # white space does not accumulate
        found = _TO_LAST_COMMA.match(text)
        assert found is not None
        at = found.end()
        if at:
            self._pass_segment(text[: at - 1])
        opened = self._open_string(text, at)
        if 0 <= opened < len(text) - _OPEN_STRING_BYTES:
            self._in_string = True
            self._pass_string(text[opened + 1 :])
            beginning = _BEGINNING.match(text, opened + 1)
            assert beginning is not None
            self._text = text[at : beginning.end()]
        else:
            self._text = text[at:]
        if len(self._text) > _MAX_TOKEN_BYTES:
            raise ValueError("a token is too long")

    def _pass_string(self, text: bytes) -> int:
        """Check the piece of the open long string at the start of `text`; return its end, after the quotation mark.

        An incomplete escape waits in `_string`.
        """
        found = _STRING_REST.match(text)
        assert found is not None
        if found[1]:
            _check(b'"' + found[0])
            self._in_string = False
            return found.end()
        complete = _COMPLETE.match(text)
        assert complete is not None
        end = complete.end()
        if len(text) - end > _ESCAPE_BYTES:
            raise ValueError("an escape is wrong")
        _check(b'"%b"' % text[:end])
        self._string = text[end:]
        return len(text)

    @staticmethod
    def _open_string(text: bytes, at: int) -> int:
        """Return the start of the string that `text` does not end, -1 if there is none; `at` is outside a string."""
        without_strings = _CLOSED_OR_OPEN.sub(rb"\1", text[at:])
        quote = without_strings.find(b'"')
        return quote if quote < 0 else len(text) - len(without_strings) + quote

    def _pass_segment(self, segment: bytes) -> None:
        opened = self._opened_by(_STRING.sub(b"", segment))
        next_one = b",0" if opened[-1] == _ARRAY else b',"":0'
        self._check(segment, next_one + b"".join(_CLOSERS[sign] for sign in reversed(opened)))
        self._open = bytes(opened)
        self._keep_short(segment + b",")

    def _check(self, segment: bytes, closers: bytes) -> None:
        _check(b"".join((self._prefix(), segment, closers)))

    def _prefix(self) -> bytes:
        """Return the text that opens the containers around a segment, the innermost with a first element or member."""
        if self._open is None:
            return b""
        *outer, inner = self._open
        opened = b"".join(b"[" if sign == _ARRAY else b'{"":' for sign in outer)
        return opened + (b"[0," if inner == _ARRAY else b'{"":0,')

    def _opened_by(self, structure: bytes) -> bytearray:
        """Return the brackets that are open after a segment. Raise ValueError if they do not match."""
        signs = structure.translate(None, _NOT_BRACKETS)
        for _ in repeat(None, _PASSES):
            signs = signs.replace(b"[]", b"").replace(b"{}", b"")
        opened = bytearray(self._open or b"")
        for sign in signs:
            if sign in _CLOSERS:
                opened.append(sign)
            elif not opened or opened.pop() != _OPENERS[sign]:
                raise ValueError("brackets do not match")
        if not opened:
            raise ValueError("a comma behind the value")
        return opened

    def _keep_short(self, text: bytes) -> None:
        if self._end is not None:
            self._end = (self._end + text[-_KEPT_BYTES:])[-_KEPT_BYTES:]
            return
        pattern = _SHORTEN if self._short_bytes <= _MAX_SHORT_BYTES else _SHORTEN_MORE
        short = pattern.sub(rb'"\1\2"', text)
        if len(short) > _LIST_BYTES and _SPARSE * (short.count(b'"') + short.count(b"[")) < len(short):
            short = _NUMBERS.sub(rb"\1", short)
        self._parts += short.count(b",") + short.count(b"[") + short.count(b"{")
        self._short.append(short)
        self._short_bytes += len(short)
        if self._parts > MAX_SHORT_PARTS or self._short_bytes > 2 * _MAX_SHORT_BYTES:
            whole = b"".join(self._short)
            self._short, self._end = [whole[:_KEPT_BYTES]], whole[-_KEPT_BYTES:]


def _reduced(beginning: bytes, end: bytes) -> bytes:
    """Return a JSON object with the first members and the counts among the last ones."""
    first = truncated_at_depth(1, beginning) or b"{}"
    for start in candidate_positions(end):
        for opening in _OPENINGS:
            try:
                _check(opening + end[start:])
            except (ValueError, RecursionError):
                continue
            separator = b"" if first == b"{}" else b","
            return first[:-1] + separator + opening[1:] + end[start:]
    return first


def _check(text: bytes) -> None:
    """Raise ValueError if the text is not JSON, RecursionError if it nests too deep."""
    try:
        _skim(text)
    except msgspec.DecodeError:
        _skim(replace_lone_surrogates(text))
