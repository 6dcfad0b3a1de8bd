"""Decode JSON values, one per line: application/x-ndjson, application/jsonl and application/stream+json."""

from bridge.formats.buffer import BOM, PendingBuffer, is_complete, kind_of
from bridge.formats.error_reports import ERROR_TEXT
from bridge.formats.item import Item, ItemKind

_BLANKS = b" \t\r"


class NdjsonDecoder:
    """Return one item per line that is not blank. A last line without a line end is an item if it is complete JSON."""

    def __init__(self, max_item_bytes: int) -> None:
        self._tail = PendingBuffer(max_item_bytes)
        self._at_start = True
        self.truncated = False

    @property
    def pending_bytes(self) -> int:
        return len(self._tail)

    def feed(self, data: bytes) -> list[Item]:
        cut = data.rfind(b"\n") + 1
        items = self._items(self._tail.take(data[:cut])) if cut else []
        self._tail.add(data[cut:])
        return items

    def finish(self) -> list[Item]:
        left = self._tail.take()
        items = self._items(left)
        if all(item.kind is not ItemKind.JSON or is_complete(item.data) for item in items):
            return items
        self._tail.add(left)
        self.truncated = True
        return []

    def _items(self, lines: bytes) -> list[Item]:
        if self._at_start:
            self._at_start = False
            lines = lines.removeprefix(BOM)
        self._tail.check_pieces(lines, b"\n")
        return [_item(data) for line in lines.split(b"\n") if (data := line.strip(_BLANKS))]


def _item(data: bytes) -> Item:
    """Return the item of a line.

    A bare `5` is JSON here, unlike in SSE; some proxies reduce `data: [DONE]` to `[DONE]`.
    """
    if data.startswith(ERROR_TEXT):
        return Item(data, ItemKind.TEXT)
    return Item(data, ItemKind.DONE if kind_of(data) is ItemKind.DONE else ItemKind.JSON)
