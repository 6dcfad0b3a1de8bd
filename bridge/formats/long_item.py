"""Collect and check items of more than 256 KiB in parts as they arrive, so that no call processes a whole item."""

import codecs
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import orjson

from bridge.formats.buffer import BOM, kind_of
from bridge.formats.item import Item, ItemKind
from bridge.formats.long_json import BLOCK_BYTES, LongJson

LONG_ITEM_BYTES: Final = 1 << 18
"""Size from which an item is processed in parts. The bytes received until then are processed at once."""
_MAX_HELD_BLANKS: Final = 1 << 16
_BEGINNING_CHARS: Final = 1024
"""Length of the beginning of a long text, by which the text is interpreted."""

_utf8: Final = codecs.getincrementaldecoder("utf-8")


class LongItem:
    """Collect the data of one item in parts of at least 64 KiB."""

    def __init__(self, kind_of: Callable[[bytes], ItemKind] = kind_of, blanks: bytes = b"") -> None:
        """Create an empty item; `kind_of` returns the kind of the data by its first bytes.

        `blanks` are left out at the beginning and the end of the data; at the end at most 64 KiB of them, because
        they are held until it is known if more data follows.
        """
        self._kind_of = kind_of
        self._blanks = blanks
        self._held_blanks = bytearray()
        self._block = bytearray()
        self._content: _ItemContent | None = None
        self.size = 0
        """Number of bytes, without blanks at the beginning."""

    def feed(self, data: bytes) -> None:
        """Add data. The work of a call is proportional to `data`, which is split into blocks."""
        if self._blanks:
            data = data if self.size else data.lstrip(self._blanks)
            self.size += len(data)
            data = self._without_last_blanks(data)
        else:
            self.size += len(data)
        for start in range(0, len(data), BLOCK_BYTES):
            self._block += data[start : start + BLOCK_BYTES]
            if len(self._block) >= BLOCK_BYTES:
                self._flush()

    def item(self, event: str | None = None, id_: str | None = None) -> Item:
        """Return the item. Call it once."""
        if self._block or self._content is None:
            self._flush()
        assert self._content is not None
        item = self._content.item()
        item.event, item.id = event, id_
        return item

    def _without_last_blanks(self, data: bytes) -> bytes:
        """Return the held blanks and `data`; hold the blanks at its end, which may be the end of the item."""
        content = data.rstrip(self._blanks)
        held, before = self._held_blanks, b""
        if content:
            before = bytes(held) + content
            held.clear()
        held += data[len(content) :]
        excess = len(held) - _MAX_HELD_BLANKS
        if excess > 0:
            before += held[:excess]
            del held[:excess]
        return before

    def _flush(self) -> None:
        part = bytes(self._block)
        self._block.clear()
        if self._content is None:
            self._content = _CONTENTS[self._kind_of(part)]()
        self._content = self._content.feed(part)


class LongBody:
    """Check a body of more than 256 KiB as JSON while it arrives. The caller keeps the bytes."""

    def __init__(self) -> None:
        self._is_at_start = True
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
        if self._is_at_start:
            self._is_at_start = False
            block = block.removeprefix(BOM)
        for start in range(0, len(block), BLOCK_BYTES):
            self._json.feed(block[start : start + BLOCK_BYTES])


class _ItemContent(Protocol):
    """The content of an item of one kind."""

    def feed(self, part: bytes) -> "_ItemContent":
        """Add a part; return the content to which the next part is added."""

    def item(self) -> Item: ...


class _JsonContent:
    """JSON, which is kept as it is; it becomes text as soon as it is known not to be JSON."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._json = LongJson()

    def feed(self, part: bytes) -> "_ItemContent":
        self._parts.append(part)
        self._json.feed(part)
        return self if self._json.is_valid else self._as_text()

    def item(self) -> Item:
        short = self._json.finish()
        return self._as_text().item() if short is None else Item(short, ItemKind.JSON, parts=self._parts)

    def _as_text(self) -> "_TextContent":
        text = _TextContent(ItemKind.MALFORMED)
        for part in self._parts:
            text.feed(part)
        return text


class _TextContent:
    """Text, which is encoded as a JSON string."""

    def __init__(self, kind: ItemKind = ItemKind.TEXT) -> None:
        self._kind = kind
        self._decoder = _utf8()
        self._beginning: str | None = None
        self._parts = [b'"']

    def feed(self, part: bytes) -> "_ItemContent":
        self._add(part)
        return self

    def item(self) -> Item:
        self._add(b"", is_end=True)
        is_malformed = self._kind is ItemKind.MALFORMED
        self._parts.append(b'","malformed":true' if is_malformed else b'"')
        return Item((self._beginning or "").encode(), self._kind, parts=self._parts)

    def _add(self, part: bytes, *, is_end: bool = False) -> None:
        try:
            text = self._decoder.decode(part, is_end)
        except UnicodeDecodeError:
            self._kind = ItemKind.MALFORMED
            self._decoder.errors = "replace"  # an incomplete character of the last part is still in the decoder
            text = self._decoder.decode(part, is_end)
        if self._beginning is None:
            self._beginning = text[:_BEGINNING_CHARS]
        self._parts.append(orjson.dumps(text)[1:-1])


class _BytesContent:
    """Binary data, which is encoded as base64."""

    def __init__(self) -> None:
        self._rest = b""
        self._beginning: bytes | None = None
        self._parts = [b'"']

    def feed(self, part: bytes) -> "_ItemContent":
        if self._beginning is None:
            self._beginning = part[:_BEGINNING_CHARS]
        data = self._rest + part
        end = len(data) - len(data) % 3
        self._rest = data[end:]
        self._parts.append(b64encode(data[:end]))
        return self

    def item(self) -> Item:
        self._parts.append(b64encode(self._rest) + b'","encoding":"base64"')
        return Item(self._beginning or b"", ItemKind.BYTES, parts=self._parts)


class _EndMark:
    """The mark `[DONE]`; what follows it in the same item is not kept."""

    def feed(self, part: bytes) -> "_ItemContent":
        return self

    def item(self) -> Item:
        return Item(b"[DONE]", ItemKind.DONE)


_CONTENTS: Final[dict[ItemKind, Callable[[], _ItemContent]]] = {
    ItemKind.JSON: _JsonContent,
    ItemKind.TEXT: _TextContent,
    ItemKind.MALFORMED: partial(_TextContent, ItemKind.MALFORMED),
    ItemKind.BYTES: _BytesContent,
    ItemKind.DONE: _EndMark,
}
