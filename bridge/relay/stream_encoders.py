"""How a stream's bytes reach the client: as items, as runs of the body cut at item ends, or just as they came."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from bridge.formats.item import Item
from bridge.protocol.frames import EventFrames, Frame

Conceal = Callable[[bytes], bytes]
"""Takes secrets out of bytes without changing their number."""


class StreamEncoder(Protocol):
    """Of one stream."""

    @property
    def passes_all(self) -> bool:
        """The body is passed on to its end, also what comes after the closing mark."""

    def encode(self, data: bytes, items: list[Item], pending_bytes: int) -> Sequence[Frame]:
        """What to send for one read.

        `items` are those that `data` completed, up to the first that reports an error; `pending_bytes` have come of
        an item that is not complete yet. At the body's end there may be items without data.
        """


class ItemEncoder:
    """A frame per item."""

    passes_all = False

    def __init__(self, frames: EventFrames) -> None:
        self._frames = frames

    def encode(self, data: bytes, items: list[Item], pending_bytes: int) -> Sequence[Frame]:
        return self._frames.items(items)


class RunEncoder:
    """The body cut at the ends of items, so that a secret inside an item is seen in one piece."""

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
    """A frame per run of the body, up to the end of its last item."""

    passes_all = False

    def __init__(self, frames: EventFrames, conceal: Conceal | None = None) -> None:
        self._frames = frames
        self._runs = RunEncoder(conceal)

    def encode(self, data: bytes, items: list[Item], pending_bytes: int) -> Sequence[Frame]:
        return list(map(self._frames.run, self._runs.encode(data, items, pending_bytes)))


class ByteEncoder:
    """The body itself, whole items or not."""

    passes_all = True

    def encode(self, data: bytes, items: list[Item], pending_bytes: int) -> Sequence[Frame]:
        return [data] if data else []


BYTES: Final = ByteEncoder()
