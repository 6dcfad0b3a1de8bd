"""Shared parts of the decoders: a buffer for incomplete items, and the classification of complete ones."""

from io import BytesIO

import msgspec

from bridge.errors import ItemTooLarge
from bridge.formats.error_reports import ERROR_TEXT
from bridge.formats.item import ItemKind
from bridge.formats.json_text import is_json

BOM = b"\xef\xbb\xbf"
JSON_STARTS = (b"{", b"[")
DONE_MARK = b"[DONE]"

_span = msgspec.json.Decoder(msgspec.Raw)


class PendingBuffer:
    """A buffer for bytes that belong to no complete item yet.

    Bytes are appended as they arrive and returned at once: the cost of an item is linear, with any number of reads.
    """

    __slots__ = ("_bytes", "_size", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._bytes = BytesIO()  # returns its content without a copy
        self._size = 0
        self.max_bytes = max_bytes

    def __len__(self) -> int:
        return self._size

    def add(self, part: bytes) -> None:
        """Append bytes. Raise ItemTooLarge if the buffer would exceed `max_bytes`."""
        self.check(self._size + len(part))
        self._size += self._bytes.write(part)

    def take(self, last: bytes = b"") -> bytes:
        """Return all buffered bytes followed by `last`, and empty the buffer."""
        if not self._size:
            return last
        self._bytes.write(last)
        data = self._bytes.getvalue()
        self._bytes, self._size = BytesIO(), 0
        return data

    def check_pieces(self, data: bytes, separator: bytes) -> None:
        """Raise ItemTooLarge if a piece of `data` between two separators is longer than `max_bytes`."""
        if len(data) > self.max_bytes:
            self.check(max(map(len, data.split(separator))))

    def check(self, size: int) -> None:
        """Raise ItemTooLarge if `size` exceeds `max_bytes`."""
        if size > self.max_bytes:
            raise ItemTooLarge(f"one item of the stream is longer than {self.max_bytes} bytes")


def kind_of(data: bytes) -> ItemKind:
    """Return the kind of `data` by its first bytes.

    The end mark may be followed by more text: OpenAI's own SDKs accept that.
    """
    if data.startswith(b"{"):
        return ItemKind.JSON
    if data.startswith(ERROR_TEXT):
        return ItemKind.TEXT
    if data.lstrip().startswith(DONE_MARK):
        return ItemKind.DONE
    return ItemKind.JSON if data.startswith(b"[") else ItemKind.TEXT


def is_complete(data: bytes) -> bool:
    """Return True if `data` is exactly one JSON value. This parses it, so it is not for the hot path."""
    try:
        _span.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return is_json(data)  # msgspec rejects lone surrogates, which JSON allows
    return True
