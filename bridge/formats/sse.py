"""Decode server-sent events as the HTML standard (9.2.5 and 9.2.6) defines them, and as providers really send them.

Blank lines are searched once per read; the bytes between two of them are a block. Only the values of `event:` and `id:`
are decoded to text, so a U+2028 inside JSON is never taken for a line end.
"""

import re

from bridge.formats.buffer import BOM, JSON_STARTS, PendingBuffer, is_complete, kind_of
from bridge.formats.item import Item, ItemKind

_CR = ord("\r")
_STATUS = re.compile(rb":?HTTP_STATUS/([45][0-9]{2})")
_EVENT = b"event: "
_OBJECT = b"data: {"
_EVENT_AT = len(_EVENT)
_DATA_AT = len(b"data: ")


class SseDecoder:
    """Return one item per event that has data.

    Beyond the standard: bare JSON between blank lines is an item (some providers send errors so). An event without a
    final blank line at the end of the body is an item if its data is complete JSON or `[DONE]`. `max_item_bytes`
    includes field names and comments.
    """

    def __init__(self, max_item_bytes: int) -> None:
        self._tail = PendingBuffer(max_item_bytes)
        self._before = b"\n"  # the byte before the next read; a block starts after a line end
        self._after_cr = False  # the last block ended with CR: a following LF belongs to it
        self._at_start = True
        self.truncated = False

    @property
    def pending_bytes(self) -> int:
        return len(self._tail)

    def feed(self, data: bytes) -> list[Item]:
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        cut = _last_block_end(self._before, data)
        items = self._items(data[:cut]) if cut else []
        if rest := data[cut:]:
            self._tail.add(rest)
            self._before = rest[-1:]
        elif cut:
            self._before = b"\n"
            self._after_cr = data.endswith(b"\r")
        return items

    def finish(self) -> list[Item]:
        left = self._tail.take()
        block = self._with_lf(left).removesuffix(b"\n").split(b"\n")
        item = _item_of_any(block)
        if item and (item.kind is ItemKind.DONE or (item.kind is ItemKind.JSON and is_complete(item.data))):
            return [item]
        if any(line.strip() and not line.startswith(b":") for line in block):
            self._tail.add(left)
            self.truncated = True
        return []

    def _items(self, end: bytes) -> list[Item]:
        """Return the items of all blocks up to `end`, the part of the newest read that completes the last block."""
        blocks = self._with_lf(self._tail.take(end))
        self._tail.check_pieces(blocks, b"\n\n")
        items = []
        lines = iter(blocks.split(b"\n"))
        for line in lines:
            if not line:
                continue
            block = [line]
            while line := next(lines):  # never raises StopIteration: `blocks` ends with a blank line
                block.append(line)
            if item := _item(block):
                items.append(item)
        return items

    def _with_lf(self, raw: bytes) -> bytes:
        """Return `raw` with LF for every line end, and without the byte order mark at the start of the body."""
        if self._at_start:
            self._at_start = False
            raw = raw.removeprefix(BOM)
        return raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if _CR in raw else raw


def _last_block_end(before: bytes, data: bytes) -> int:
    """Return the end of the last blank line in `data`, 0 if there is none. `before` is the one byte before `data`.

    Two consecutive line-end bytes form a blank line, unless they are CR LF. A CR counts at once: waiting for the next
    byte would delay the event.
    """
    window = before + data
    at = window.rfind(b"\n\n")
    if _CR in window:
        at = max(at, window.rfind(b"\n\r"), window.rfind(b"\r\r"))
    if at < 0:
        return 0
    cut = at + 1  # the window begins one byte before `data`
    return cut + (window[cut] == _CR and data.startswith(b"\n", cut))


def _item(block: list[bytes]) -> Item | None:
    """Return the item of a block. The two shapes of nearly every block are recognised by their prefixes."""
    data = block[-1]
    if data.startswith(_OBJECT):
        if len(block) == 1:
            return Item(data[_DATA_AT:])
        if len(block) == 2 and block[0].startswith(_EVENT):
            return Item(data[_DATA_AT:], ItemKind.JSON, _text(block[0][_EVENT_AT:]) or None)
    return _item_of_any(block)


def _item_of_any(block: list[bytes]) -> Item | None:
    """Return the item of any block of lines; None if it has no data and reports no error.

    Lines that begin with `{` or `[` are not SSE fields: before any data they begin bare JSON, which extends to the end
    of the block. Some servers report an error in a field `error:` of their own, or as an event `error` without data.
    """
    data: list[bytes] = []
    errors: list[bytes] = []
    event = id_ = status = None
    for at, line in enumerate(block):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = _text(value) or None
        elif name == b"id" and b"\0" not in value:
            id_ = _text(value)
        elif name == b"error":
            errors.append(value)
        elif found := _STATUS.fullmatch(line):
            status = int(found[1])
        elif not data and line.lstrip().startswith(JSON_STARTS):
            data = block[at:]
            break
    if not data and not errors and event != "error":
        return None
    joined = b"\n".join(errors or data)
    return Item(joined, kind_of(joined), event, id_, exception=bool(errors), status=status)


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
