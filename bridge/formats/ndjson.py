"""Decode JSON values, one per line: application/x-ndjson, application/jsonl and application/stream+json."""

from bridge.formats.buffer import BOM, PendingBuffer, is_complete, kind_of
from bridge.formats.error_reports import ERROR_TEXT
from bridge.formats.item import Item, ItemKind
from bridge.formats.long_item import LONG_ITEM_BYTES, LongItem

_BLANKS = b" \t\r"


class NdjsonDecoder:
    """Return one item per line that is not blank. A last line without a line end is an item if it is complete JSON."""

    def __init__(self, max_item_bytes: int) -> None:
        self._pending = PendingBuffer(max_item_bytes)
        self._at_start = True
        self._long: LongItem | None = None
        self._long_bytes = 0
        self._may_be_long = True  # not yet decided for the current line
        self.truncated = False

    @property
    def pending_bytes(self) -> int:
        return len(self._pending) + self._long_bytes

    def feed(self, data: bytes) -> list[Item]:
        if self._long is not None:
            return self._feed_long(self._long, data)
        cut = data.rfind(b"\n") + 1
        items = self._items(self._pending.take(data[:cut])) if cut else []
        self._pending.add(data[cut:])
        self._may_be_long |= cut > 0
        if self._may_be_long and len(self._pending) > LONG_ITEM_BYTES:
            self._begin_long()
        return items

    def _begin_long(self) -> None:
        """Check the line as it arrives if it is an object or array; any other line waits for its end."""
        self._may_be_long = False
        raw = self._pending.take()
        line = (raw.removeprefix(BOM) if self._at_start else raw).lstrip(_BLANKS)
        if kind_of(line) is not ItemKind.JSON:
            self._pending.add(raw)
            return
        self._at_start = False
        self._long, self._long_bytes = LongItem(), len(raw)
        self._long.feed(line)

    def _feed_long(self, item: LongItem, data: bytes) -> list[Item]:
        line, end, rest = data.partition(b"\n")
        self._long_bytes += len(line)
        self._pending.check(self._long_bytes)
        item.feed(line)
        if not end:
            return []
        self._long, self._long_bytes, self._may_be_long = None, 0, True
        return [item.item(), *self.feed(rest)]

    def finish(self) -> list[Item]:
        if self._long is not None:
            item = self._long.item()
            self.truncated = item.parts is None
            return [] if self.truncated else [item]
        left = self._pending.take()
        items = self._items(left)
        if all(item.kind is not ItemKind.JSON or is_complete(item.data) for item in items):
            return items
        self._pending.add(left)
        self.truncated = True
        return []

    def _items(self, lines: bytes) -> list[Item]:
        if self._at_start:
            self._at_start = False
            lines = lines.removeprefix(BOM)
        self._pending.check_pieces(lines, b"\n")
        return [_item(data) for line in lines.split(b"\n") if (data := line.strip(_BLANKS))]


def _item(data: bytes) -> Item:
    """Return the item of a line.

    A bare `5` is JSON here, unlike in SSE; some proxies reduce `data: [DONE]` to `[DONE]`.
    """
    if data.startswith(ERROR_TEXT):
        return Item(data, ItemKind.TEXT)
    return Item(data, ItemKind.DONE if kind_of(data) is ItemKind.DONE else ItemKind.JSON)
