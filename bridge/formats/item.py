"""Define the item of a stream, which the decoders produce and the dialects interpret."""

from enum import IntEnum

import msgspec


class ItemKind(IntEnum):
    """The encoding of an item's data in a frame."""

    JSON = 0
    """One JSON value, copied into the frame unchanged after a check."""
    TEXT = 1
    """UTF-8 text that is not JSON, sent as a string."""
    BYTES = 2
    """Audio, video and other binary data, sent as base64."""
    DONE = 3
    """The mark `[DONE]`, for which no frame is sent."""
    MALFORMED = 4
    """Invalid JSON or UTF-8, sent as a string beside `"malformed": true`."""


class Item(msgspec.Struct, gc=False):
    """An item of a stream. `data` is its content without framing.

    A decoder sets `kind` by the first bytes alone; the stream reader, which parses every item anyway, changes an
    invalid JSON or TEXT item to MALFORMED.
    """

    data: bytes
    kind: ItemKind = ItemKind.JSON
    event: str | None = None
    """Value of the `event:` line, or `:event-type` of an AWS event stream."""
    id: str | None = None
    """Value of the last `id:` line, if the item's own block has one."""
    exception: bool = False
    """True if the framing marks an error; `event` is then its type.

    That is the SSE field `error:`, or `exception` or `error` as `:message-type` of an AWS event stream message.
    """
    status: int | None = None
    """HTTP status from a comment `:HTTP_STATUS/401` in the same block."""
    parts: list[bytes] | None = None
    """The value of an item of more than 256 KiB for a frame, in parts, with the members that describe its encoding.

    `data` is then a short version for interpretation: JSON in which long strings are cut, or the beginning of a text.
    """
