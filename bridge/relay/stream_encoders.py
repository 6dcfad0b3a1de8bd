"""Encode a stream for the client: as items, as parts of the body cut at item ends, or as unchanged bytes."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from bridge.formats.item import Item
from bridge.protocol.frames import EventFrames, Frame

Conceal = Callable[[bytes], bytes]
"""Masks secrets in bytes without changing the length."""


class StreamEncoder(Protocol):
    """Encodes the reads of one stream."""

    @property
    def passes_all(self) -> bool:
        """True if the body is passed on to its end, including what follows the closing mark."""

    def encode(self, data: bytes, items: list[Item], pending_bytes: int) -> Sequence[Frame]:
        """Return the frames or bytes to send for one read.

        `items` are those that `data` completed, up to the first error. `pending_bytes` of an incomplete item are
        buffered. At the body's end there may be items without data.
        """


class ItemEncoder:
    """Encodes each item as a frame."""

    passes_all = False

    def __init__(self, frames: EventFrames) -> None:
        self._frames = frames

    def encode(self, data: bytes, items: list[Item], pending_bytes: int) -> Sequence[Frame]:
        return self._frames.items(items)


class RunEncoder:
    """Cuts the body at item ends, so that a secret inside an item is not split."""

    passes_all = True

    def __init__(self, conceal: Conceal | None = None) -> None:
        self._conceal = conceal
        self._run = bytearray()

    def encode(self, data: bytes, items: list[Item], pending_bytes: int) -> list[bytes]:
        run = self._run
        run += data
        end = len(run) - pending_bytes
        if end <= 0:
            return []
        with memoryview(run) as view:
            body = bytes(view[:end])
        del run[:end]
        return [body if self._conceal is None else self._conceal(body)]


class RawEncoder:
    """Encodes the body as raw frames, each up to the end of its last item."""

    passes_all = False

    def __init__(self, frames: EventFrames, conceal: Conceal | None = None) -> None:
        self._frames = frames
        self._runs = RunEncoder(conceal)

    def encode(self, data: bytes, items: list[Item], pending_bytes: int) -> Sequence[Frame]:
        return list(map(self._frames.run, self._runs.encode(data, items, pending_bytes)))


class ByteEncoder:
    """Passes the body on unchanged, read by read."""

    passes_all = True

    def encode(self, data: bytes, items: list[Item], pending_bytes: int) -> Sequence[Frame]:
        return [data] if data else []


BYTES: Final = ByteEncoder()
