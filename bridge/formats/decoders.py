"""Select the decoder of a provider's body by its content type, its path and its first bytes."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from bridge.formats.buffer import BOM, JSON_STARTS, is_complete
from bridge.formats.eventstream import EventStreamDecoder
from bridge.formats.item import Item, ItemKind
from bridge.formats.json_array import JsonArrayDecoder
from bridge.formats.ndjson import NdjsonDecoder
from bridge.formats.sse import SseDecoder

HEAD_BYTES = 64 * 1024
"""Bound on the bytes that are buffered to detect the shape; beyond it the content type decides."""


class Decoder(Protocol):
    """A stream decoder: takes bytes as they arrive, and returns items as soon as they are complete.

    Reads may be split anywhere: the same bytes result in the same items. `feed` and `finish` raise ItemTooLarge if an
    item exceeds the decoder's limit; a decoder that has raised must not be fed again.
    """

    truncated: bool
    """True after `finish()` if the body ended inside an incomplete item."""

    @property
    def pending_bytes(self) -> int:
        """Number of the last raw bytes that belong to no complete item, comment or blank.

        The bytes before them end with one of these.
        """

    def feed(self, data: bytes) -> list[Item]: ...

    def finish(self) -> list[Item]:
        """Return the last items. Call it once when the body ends, in any way, after the last `feed`."""


class BytesDecoder:
    """Decoder of audio, video and other binary data: every read is one item, so the size of reads bounds it."""

    truncated = False
    pending_bytes = 0

    def feed(self, data: bytes) -> list[Item]:
        return [Item(data, ItemKind.BYTES)] if data else []

    def finish(self) -> list[Item]:
        return []


class Shape(Enum):
    """The framing of a body. SINGLE is one answer in one piece and has no decoder."""

    SSE = auto()
    NDJSON = auto()
    JSON_ARRAY = auto()
    EVENT_STREAM = auto()
    BYTES = auto()
    SINGLE = auto()


_DECODERS: dict[Shape, Callable[[int], Decoder]] = {
    Shape.SSE: SseDecoder,
    Shape.NDJSON: NdjsonDecoder,
    Shape.JSON_ARRAY: JsonArrayDecoder,
    Shape.EVENT_STREAM: EventStreamDecoder,
    Shape.BYTES: lambda _: BytesDecoder(),
}

_LABELS = {
    "text/event-stream": Shape.SSE,
    "application/x-ndjson": Shape.NDJSON,
    "application/jsonl": Shape.NDJSON,
    "application/stream+json": Shape.NDJSON,
    "application/vnd.amazon.eventstream": Shape.EVENT_STREAM,
}
_BYTES_LABELS = ("audio/", "video/")
_BINARY = (Shape.EVENT_STREAM, Shape.BYTES)  # their first bytes prove nothing

_ARRAY_PATH = ":streamGenerateContent"
_SSE_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


def decoder_for(shape: Shape, max_item_bytes: int) -> Decoder:
    """Return a decoder for one body of `shape`. A SINGLE body has none and raises KeyError."""
    return _DECODERS[shape](max_item_bytes)


def sniff(content_type: str, path: str, head: bytes, ended: bool) -> Shape | None:
    """Return the shape of the body that begins with `head`; None while more bytes are needed.

    `content_type` is the bare media type in lower case, `path` has no query, `ended` means that `head` is the whole
    body. A decision below HEAD_BYTES holds for every longer head. See bridge/docs/protocol.md, "What is streamed".
    """
    label = _label(content_type)
    if label in _BINARY:
        return label
    start = head.removeprefix(BOM).lstrip()
    if BOM.startswith(head) or not start:
        shape = None
    elif start.startswith(b"[") and content_type == "application/json" and path.endswith(_ARRAY_PATH):
        shape = Shape.JSON_ARRAY
    elif start.startswith(JSON_STARTS):
        shape = _shape_of_json(start, label)
    else:
        shape = _shape_of_text(start, label)
    undecided = shape is None and not ended and len(head) < HEAD_BYTES
    return None if undecided else shape or label


def _label(content_type: str) -> Shape:
    if content_type.startswith(_BYTES_LABELS):
        return Shape.BYTES
    return _LABELS.get(content_type, Shape.SINGLE)


def _shape_of_json(start: bytes, label: Shape) -> Shape | None:
    """Recognise NDJSON by a second value after the first line; a line that ends inside a value is indented JSON."""
    if label is Shape.NDJSON:
        return label
    line, _, rest = start.partition(b"\n")
    second = rest.lstrip()
    if not second:
        return None
    return Shape.NDJSON if second.startswith(JSON_STARTS) and is_complete(line) else label


def _shape_of_text(start: bytes, label: Shape) -> Shape | None:
    if label is Shape.SSE or start.startswith(_SSE_FIELDS):
        return Shape.SSE
    return None if any(field.startswith(start) for field in _SSE_FIELDS) else label
