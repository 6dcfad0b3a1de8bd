"""Collect and check items of more than 256 KiB in parts as they arrive, so that no call processes a whole item."""

from typing import Final

from bridge.formats.buffer import kind_of
from bridge.formats.item import Item, ItemKind
from bridge.formats.long_json import BLOCK_BYTES, LongJson

LONG_ITEM_BYTES: Final = 1 << 18
"""Size from which an item is processed in parts. The bytes received until then are processed at once."""


class LongItem:
    """Collect the data of one item in parts of at least 64 KiB."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._block = bytearray()
        self._json: LongJson | None = None

    def feed(self, data: bytes) -> None:
        """Add data. The work of a call is proportional to `data`, which is split into blocks."""
        for start in range(0, len(data), BLOCK_BYTES):
            self._block += data[start : start + BLOCK_BYTES]
            if len(self._block) >= BLOCK_BYTES:
                self._flush()

    def item(self, event: str | None = None, id_: str | None = None) -> Item:
        """Return the item: JSON in parts, anything else in one piece. Call it once."""
        self._flush()
        parts, reading = self._parts, self._json
        short = reading.finish() if reading is not None else None
        if short is not None:
            return Item(short, ItemKind.JSON, event, id_, parts=parts)
        data = b"".join(parts)
        kind = kind_of(data)
        return Item(data, ItemKind.MALFORMED if kind is ItemKind.JSON else kind, event, id_)

    def _flush(self) -> None:
        part = bytes(self._block)
        self._block.clear()
        if not part:
            return
        if not self._parts and kind_of(part) is ItemKind.JSON:
            self._json = LongJson()
        self._parts.append(part)
        if self._json is not None:
            self._json.feed(part)


class LongBody:
    """Check a body of more than 256 KiB as JSON while it arrives. The caller keeps the bytes."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._size = 0
        self._json = LongJson()

    def feed(self, data: bytes) -> None:
        """Add data, which is checked once more than 256 KiB have arrived."""
        if not self._json.is_valid:
            return
        self._block += data
        self._size += len(data)
        if self._size > LONG_ITEM_BYTES and len(self._block) >= BLOCK_BYTES:
            self._flush()

    def finish(self) -> bytes | None:
        """Return a short version of the body; None if it is not long or not JSON. Call it once."""
        if self._size <= LONG_ITEM_BYTES:
            return None
        self._flush()
        return self._json.finish()

    def _flush(self) -> None:
        block = bytes(self._block)
        self._block.clear()
        for start in range(0, len(block), BLOCK_BYTES):
            self._json.feed(block[start : start + BLOCK_BYTES])
