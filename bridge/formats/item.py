"""One thing a provider sent: what the decoders make of bytes and the dialects make sense of."""

from enum import IntEnum

import msgspec


class ItemKind(IntEnum):
    """How an item's data is to be carried in a frame."""

    JSON = 0
    """One JSON value; spliced in untouched once it has been checked."""
    TEXT = 1
    """UTF-8 text that is no JSON; carried as a string."""
    BYTES = 2
    """Audio, video and the like; carried as base64."""
    DONE = 3
    """The mark `[DONE]`; makes no frame."""
    MALFORMED = 4
    """Was to be JSON or UTF-8 and is not; carried as a string beside `"malformed": true`."""


class Item(msgspec.Struct, gc=False):
    """`data` are the item's own bytes, without framing.

    A decoder sets `kind` by the first bytes alone; the dialect's reader, which looks at every item anyway, turns
    a JSON or TEXT that does not hold into MALFORMED.
    """

    data: bytes
    kind: ItemKind = ItemKind.JSON
    event: str | None = None
    """The `event:` line's value, or `:event-type` of an AWS event stream."""
    id: str | None = None
    """The last `id:` line's value, when the item's own block had one."""
    exception: bool = False
    """The framing says that it is an error: the SSE field `error:`, or a message of an AWS event stream whose
    `:message-type` is `exception` or `error`; `event` is then its type."""
    status: int | None = None
    """The HTTP status that a comment `:HTTP_STATUS/401` beside it gives."""
