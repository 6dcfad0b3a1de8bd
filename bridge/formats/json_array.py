"""Decode the elements of one JSON array that arrives in pieces, as Gemini streams without `alt=sse`."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from bridge.formats.buffer import BOM, PendingBuffer, is_complete
from bridge.formats.item import Item, ItemKind
from bridge.formats.long_item import LONG_ITEM_BYTES, LongItem

_BLANKS = b" \t\r\n" + BOM  # no JSON value begins or ends with a byte of the BOM
_BACKSLASH = ord("\\")
_DEPTH_CHANGE = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}

# The significant characters outside the array, between its elements, and inside one. A complete string is one match;
# a single quotation mark begins a string that the read does not end.
_SIGNIFICANT = (
    re.compile(rb"[^ \t\r\n\xef\xbb\xbf]"),
    re.compile(rb'"[^"]*"|["\[\]{},]'),
    re.compile(rb'"[^"]*"|["\[\]{}]'),
)


class JsonArrayDecoder:
    """Return one item per element: an object or array when it is complete, any other value at the comma after it.

    The closing `]` of the array is an item of kind DONE, so that the reader sees that the array is complete; an array
    that is open at the end of the body is truncated. A body that is not an array is one item at the end.
    """

    def __init__(self, max_item_bytes: int) -> None:
        self._pending = PendingBuffer(max_item_bytes)
        self._scanner = _Scanner()
        self._long: LongItem | None = None
        self.truncated = False

    @property
    def pending_bytes(self) -> int:
        return len(self._pending) if self._long is None else self._long.size

    def feed(self, data: bytes) -> list[Item]:
        items = []
        start = 0
        for end, resume, closes in self._scanner.cuts(data):
            if self._long is not None:
                self._add_to_long(self._long, data[start:end])
                items.append(self._long.item())
                self._long = None
            elif element := self._pending.take(data[start:end]).strip(_BLANKS):
                self._pending.check(len(element))
                items.append(Item(element))
            if closes:
                items.append(Item(b"]", ItemKind.DONE))
            start = resume
        rest = data[start:]
        if self._long is not None:
            self._add_to_long(self._long, rest)
            return items
        self._pending.add(rest if self._pending else rest.lstrip(_BLANKS))
        if len(self._pending) > LONG_ITEM_BYTES:
            self._long = LongItem(_json_kind, _BLANKS)
            self._add_to_long(self._long, self._pending.take())
        return items

    def finish(self) -> list[Item]:
        if self._long is not None:
            return self._finish_long(self._long)
        left = self._pending.take()
        if self._scanner.is_no_array and is_complete(left):
            return [Item(left.strip(_BLANKS))]
        self._pending.add(left)
        self.truncated = bool(left) or self._scanner.depth > 0
        return []

    def _add_to_long(self, item: LongItem, part: bytes) -> None:
        item.feed(part)
        self._pending.check(item.size)

    def _finish_long(self, item: LongItem) -> list[Item]:
        if self._scanner.is_no_array and (element := item.item()).kind is ItemKind.JSON:
            self._long = None
            return [element]
        self.truncated = True
        return []


def _json_kind(_: bytes) -> ItemKind:
    """Return the kind of every element: one that is not JSON is malformed."""
    return ItemKind.JSON


class _Cut(NamedTuple):
    """A boundary between two elements: one ends before `end`, the next begins at `resume` or later."""

    end: int
    resume: int
    closes: bool
    """True if the closing `]` of the array lies between."""


class _Scanner:
    """Find the boundaries read by read.

    Each byte is examined once; the state is the depth and the position in a string.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.is_no_array = False
        self._in_string = False
        self._after_backslash = False

    def cuts(self, data: bytes) -> Iterator[_Cut]:
        if self.is_no_array or not data:
            return
        masked = self._without_escapes(data)
        at = self._string_end(masked)
        while not self._in_string and (found := _SIGNIFICANT[min(self.depth, 2)].search(masked, at)):
            start, at = found.span()
            sign = masked[start : start + 1]
            if self.depth == 0 and sign != b"[":
                self.is_no_array = True
                return
            if sign == b'"':
                self._in_string = at == start + 1
            elif cut := self._cut(sign, start, at):
                yield cut

    def _cut(self, sign: bytes, start: int, end: int) -> _Cut | None:
        """Process `sign`. Brackets and commas of the array itself are left out of the elements."""
        is_own = self.depth == 0 or (self.depth == 1 and sign in (b",", b"]"))
        self.depth += _DEPTH_CHANGE.get(sign, 0)
        if self.depth > 1:
            return None
        return _Cut(start if is_own else end, end, closes=self.depth == 0 and sign == b"]")

    def _string_end(self, masked: bytes) -> int:
        """Return the end of the string that the last read left open; 0 if none was open or it is still open."""
        end = masked.find(b'"') + 1 if self._in_string else 0
        self._in_string = self._in_string and not end
        return end

    def _without_escapes(self, data: bytes) -> bytes:
        """Return `data` with equal length in which every remaining quotation mark begins or ends a string."""
        masked = b"x" + data[1:] if self._after_backslash else data
        if _BACKSLASH in masked:
            masked = masked.replace(b"\\\\", b"xx").replace(b'\\"', b"xx")
        self._after_backslash = masked.endswith(b"\\")
        return masked
