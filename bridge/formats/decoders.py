"""Which decoder a provider's body needs, told by its content type, its path and its first bytes."""

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
"""How much of a body may be held to tell its shape; past that its label decides."""


class Decoder(Protocol):
    """Bytes in as they come off the network, items out as soon as they are complete.

    Reads may be cut anywhere: the same bytes make the same items. `feed` and `finish` raise ItemTooLarge when one item
    outgrows the decoder's limit; a decoder that has raised is fed no more.
    """

    truncated: bool
    """After `finish()`: the body broke off inside something that made no item."""

    @property
    def pending_bytes(self) -> int:
        """How many of the last raw bytes belong to no item, comment or blank yet; what is before them ends with one."""

    def feed(self, data: bytes) -> list[Item]: ...

    def finish(self) -> list[Item]:
        """The body ended, in whatever way. Call it once, after the last `feed`."""


class BytesDecoder:
    """Audio, video and the like: every read is an item, so that no item can outgrow a limit that reads keep."""

    truncated = False
    pending_bytes = 0

    def feed(self, data: bytes) -> list[Item]:
        return [Item(data, ItemKind.BYTES)] if data else []

    def finish(self) -> list[Item]:
        return []


class Shape(Enum):
    """How a body is framed. WHOLE is one answer in one piece, and has no decoder."""

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
_BINARY = (Shape.EVENT_STREAM, Shape.BYTES)  # their first bytes say nothing

_ARRAY_PATH = ":streamGenerateContent"
_SSE_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


def decoder_for(shape: Shape, max_item_bytes: int) -> Decoder:
    """A decoder for one body of `shape`. A WHOLE body has none: KeyError."""
    return _DECODERS[shape](max_item_bytes)


def sniff(content_type: str, path: str, head: bytes, ended: bool) -> Shape | None:
    """The shape of the body that begins with `head`; None while that takes more bytes.

    `content_type` is the bare media type in lower case, `path` has no query, `ended` says that `head` is all of the
    body. What is decided below HEAD_BYTES holds for every longer head. PROTOCOL.md, B "What is streamed".
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
    """NDJSON is told by a second value after the first line; one that breaks off mid-value is pretty-printed JSON."""
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
