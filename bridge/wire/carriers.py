"""How a stream's bytes reach the client: as items, as runs of the body cut at item ends, or just as they came."""

from collections.abc import Callable
from typing import Final, Protocol

from bridge.wire.frames import EventFrames
from bridge.wire.item import Item

Conceal = Callable[[bytes], bytes]
"""Takes secrets out of bytes without changing their number."""


class Carrier(Protocol):
    """Of one stream."""

    @property
    def passes_all(self) -> bool:
        """The body is passed on to its end, also what comes after the closing mark."""

    def take(self, data: bytes, items: list[Item], pending_bytes: int) -> list[bytes]:
        """What to send for one read.

        `items` are those that `data` completed, up to the first that reports an error; `pending_bytes` have come of
        an item that is not complete yet. At the body's end there may be items without data.
        """


class ItemCarrier:
    """A frame per item."""

    passes_all = False

    def __init__(self, frames: EventFrames) -> None:
        self._frames = frames

    def take(self, data: bytes, items: list[Item], pending_bytes: int) -> list[bytes]:
        return self._frames.items(items)


class Runs:
    """The body cut at the ends of items, so that a secret inside an item is seen in one piece."""

    passes_all = True

    def __init__(self, conceal: Conceal | None = None) -> None:
        self._conceal = conceal
        self._run = bytearray()

    def take(self, data: bytes, items: list[Item], pending_bytes: int) -> list[bytes]:
        run = self._run
        run += data
        end = len(run) - pending_bytes
        if end <= 0:
            return []
        with memoryview(run) as view:
            body = bytes(view[:end])
        del run[:end]
        return [body if self._conceal is None else self._conceal(body)]


class RunCarrier:
    """A frame per run of the body, up to the end of its last item."""

    passes_all = False

    def __init__(self, frames: EventFrames, conceal: Conceal | None = None) -> None:
        self._frames = frames
        self._runs = Runs(conceal)

    def take(self, data: bytes, items: list[Item], pending_bytes: int) -> list[bytes]:
        return list(map(self._frames.run, self._runs.take(data, items, pending_bytes)))


class ByteCarrier:
    """The body itself, whole items or not."""

    passes_all = True

    def take(self, data: bytes, items: list[Item], pending_bytes: int) -> list[bytes]:
        return [data] if data else []


BYTES: Final = ByteCarrier()
