"""Read a block of server-sent events of more than 256 KiB line by line while it arrives."""

import re
from typing import Final

from bridge.errors import ItemTooLarge
from bridge.formats.buffer import JSON_STARTS, PendingBuffer, kind_of
from bridge.formats.item import Item, ItemKind
from bridge.formats.long_item import LongItem

STATUS: Final = re.compile(rb":?HTTP_STATUS/([45][0-9]{2})")
"""Comment with the HTTP status of an error, alone in its line."""

_MAX_FIELD_BYTES: Final = 1 << 20
"""Bound on a line that holds no data, and on the lines `error:` of one block."""
_MAX_NAME_BYTES: Final = 64
"""A line with a longer name is ignored. No field and no comment that is read is longer up to its colon."""
_COMMENTS: Final = re.compile(rb"(?<=\n)(?::(?!HTTP)[^\n]*+\n)+")

_DATA_LINES: Final = re.compile(rb"(?:data(?::[^\n]*+)?\n)+")
_DATA_FIELD: Final = re.compile(rb"^data(?:: ?)?", re.MULTILINE)

_CR: Final = ord("\r")
_COLON: Final = ord(":")
_DATA: Final = b"data:"
_KEPT: Final = (b"event:", b"id:", b"error:")


class LongBlock:
    """A block whose lines are processed as they arrive. The work of a call is proportional to its bytes.

    The data of the lines is the same as in a short block: values of `data:`, or bare JSON up to the end of the block.
    """

    def __init__(self, limit: PendingBuffer) -> None:
        self._limit = limit
        self._data = LongItem()
        self._line = bytearray()
        self._in_data = self._is_ignored = self._is_bare = False
        self._has_data = self._after_cr = False
        self._line_ends = 0  # line ends of bare JSON that are not added yet: those at the end of the block are dropped
        self._errors: list[bytes] = []
        self._error_bytes = 0
        self._event: str | None = None
        self._id: str | None = None
        self._status: int | None = None
        self.has_fields = False
        """True if the block has anything but comments and blanks."""
        self.size = 0

    def begin(self, text: bytes, size: int, *, after_cr: bool) -> None:
        """Add the beginning of the block, with LF for line ends; `size` is its length as it arrived."""
        self.size, self._after_cr = size, after_cr
        self._add_lines(text)

    def add(self, raw: bytes) -> None:
        """Add more of the block. Raise ItemTooLarge if it exceeds the limit."""
        self.size += len(raw)
        self._limit.check(self.size)
        if self._after_cr:
            raw = raw.removeprefix(b"\n")
        self._after_cr = raw.endswith(b"\r")
        self._add_lines(raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if _CR in raw else raw)

    def item(self) -> Item | None:
        """Return the item of the complete block; None if it has no data and reports no error. Call it once."""
        if not self._is_bare:
            self._end_line()
        if self._errors or not self._has_data:
            if not self._errors and self._event != "error":
                return None
            joined = b"\n".join(self._errors)
            is_framed = bool(self._errors)
            return Item(joined, kind_of(joined), self._event, self._id, exception=is_framed, status=self._status)
        item = self._data.item(self._event, self._id)
        item.status = self._status
        return item

    def _add_lines(self, text: bytes) -> None:
        if not self._is_bare and (self._has_data or not any(start in text for start in JSON_STARTS)):
            text = _COMMENTS.sub(b"", text)  # comments inside bare JSON are part of it
        at = 0
        while not self._is_bare:
            if not (self._in_data or self._is_ignored or self._line) and (lines := _DATA_LINES.match(text, at)):
                self._begin_data(_DATA_FIELD.sub(b"", lines[0][:-1]))
                self._in_data = False
                at = lines.end()
            end = text.find(b"\n", at)
            self._add_to_line(text[at:] if end < 0 else text[at:end])
            if end < 0:
                return
            if self._is_bare:
                at = end
                break
            self._end_line()
            at = end + 1
        self._add_bare(text[at:])

    def _add_bare(self, text: bytes) -> None:
        content = text.rstrip(b"\n")
        if content:
            self._data.feed(b"\n" * self._line_ends)
            self._line_ends = 0
            self._data.feed(content)
        self._line_ends += len(text) - len(content)

    def _add_to_line(self, text: bytes) -> None:
        if self._in_data:
            self._data.feed(text)
        elif not self._is_ignored:
            self._line += text
            self._recognise(self._line)

    def _recognise(self, line: bytearray) -> None:
        """Process the line as data, or ignore it, as soon as its beginning shows its field."""
        if line.startswith(_DATA):
            if len(line) > len(_DATA):
                self._begin_data(bytes(line[len(_DATA) :]).removeprefix(b" "))
            return
        if line.startswith(_KEPT):
            if len(line) > _MAX_FIELD_BYTES:
                raise ItemTooLarge(f"a field of the event stream is longer than {_MAX_FIELD_BYTES} bytes")
        elif not self._has_data and line.lstrip().startswith(JSON_STARTS):
            self._is_bare = self._has_data = self.has_fields = True
            self._data.feed(bytes(line))
            line.clear()
        elif len(line) > _MAX_NAME_BYTES:
            if line.isspace():
                del line[_MAX_NAME_BYTES:]
                return
            self.has_fields |= line[0] != _COLON
            self._is_ignored = True
            line.clear()

    def _begin_data(self, value: bytes) -> None:
        self._line.clear()
        if self._has_data:
            self._data.feed(b"\n")
        self._in_data = self._has_data = self.has_fields = True
        self._data.feed(value)

    def _end_line(self) -> None:
        if self._line:
            self._add_field(bytes(self._line))
            self._line.clear()
        self._in_data = self._is_ignored = False

    def _add_field(self, line: bytes) -> None:
        """Process a complete line that is not too long for a field."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        self.has_fields |= bool(name.strip())
        if name == b"data":
            self._begin_data(value)
        elif name == b"event":
            self._event = value.decode(errors="replace") or None
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif name == b"error":
            self._add_error(value)
        elif found := STATUS.fullmatch(line):
            self._status = int(found[1])

    def _add_error(self, value: bytes) -> None:
        self._errors.append(value)
        self._error_bytes += len(value) + 1
        if self._error_bytes > _MAX_FIELD_BYTES:
            raise ItemTooLarge(f"an error of the event stream is longer than {_MAX_FIELD_BYTES} bytes")


def is_whole(item: Item) -> bool:
    """Return True if a long item that the end of the body ends is complete."""
    return item.kind is ItemKind.DONE or (item.kind is ItemKind.JSON and item.parts is not None)
