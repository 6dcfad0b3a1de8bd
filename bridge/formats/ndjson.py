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
        if len(self._pending) > LONG_ITEM_BYTES:
            self._begin_long()
        return items

    def _begin_long(self) -> None:
        raw = self._pending.take()
        line = raw.removeprefix(BOM) if self._at_start else raw
        self._at_start = False
        self._long, self._long_bytes = LongItem(_kind_of, _BLANKS), len(raw)
        self._long.feed(line)

    def _feed_long(self, item: LongItem, data: bytes) -> list[Item]:
        line, end, rest = data.partition(b"\n")
        self._long_bytes += len(line)
        self._pending.check(self._long_bytes)
        item.feed(line)
        if not end:
            return []
        long_item = self._end_long(item)
        return [*([] if long_item is None else [long_item]), *self.feed(rest)]

    def _end_long(self, item: LongItem) -> Item | None:
        self._long, self._long_bytes = None, 0
        return item.item() if item.size else None

    def finish(self) -> list[Item]:
        if self._long is not None:
            return self._finish_long(self._long)
        left = self._pending.take()
        items = self._items(left)
        if all(item.kind is not ItemKind.JSON or is_complete(item.data) for item in items):
            return items
        self._pending.add(left)
        self.truncated = True
        return []

    def _finish_long(self, item: LongItem) -> list[Item]:
        size = self._long_bytes
        long_item = self._end_long(item)
        self.truncated = long_item is not None and long_item.kind is ItemKind.MALFORMED
        if not self.truncated:
            return [] if long_item is None else [long_item]
        self._long, self._long_bytes = item, size
        return []

    def _items(self, lines: bytes) -> list[Item]:
        if self._at_start:
            self._at_start = False
            lines = lines.removeprefix(BOM)
        self._pending.check_pieces(lines, b"\n")
        return [_item(data) for line in lines.split(b"\n") if (data := line.strip(_BLANKS))]


def _item(data: bytes) -> Item:
    return Item(data, _kind_of(data))


def _kind_of(data: bytes) -> ItemKind:
    """Return the kind of a line.

    A bare `5` is JSON here, unlike in SSE; some proxies reduce `data: [DONE]` to `[DONE]`.
    """
    if data.startswith(ERROR_TEXT):
        return ItemKind.TEXT
    return ItemKind.DONE if kind_of(data) is ItemKind.DONE else ItemKind.JSON
