"""Encode a stream for the client: as items, as runs of the body, or as unchanged bytes."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from bridge.formats.item import Item
from bridge.protocol.frames import EventFrames, Frame
from bridge.redact.known_secrets import NO_SECRETS, KnownSecrets

Conceal = Callable[[bytes], bytes]
"""Masks secrets in bytes without changing the length."""

MAX_RUN_BYTES: Final = 1 << 20
"""Size from which a run is cut inside an item: encoding a longer one would block the event loop."""
_MAX_CHARACTER_BYTES: Final = 4


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
    """Cuts the body at item ends, and inside an item of more than 1 MiB, but never inside a secret or a character."""

    passes_all = True

    def __init__(self, known: KnownSecrets = NO_SECRETS) -> None:
        self._known = known
        self._run = bytearray()

    def encode(self, data: bytes, items: list[Item], pending_bytes: int) -> list[bytes]:
        run = self._run
        run += data
        end = len(run) - pending_bytes
        if end <= 0:
            return [] if len(run) <= MAX_RUN_BYTES else self._beginning()
        with memoryview(run) as view:
            body = bytes(view[:end])
        del run[:end]
        return [self._known.mask(body) if self._known else body]

    def _beginning(self) -> list[bytes]:
        """Return the beginning of a long incomplete item."""
        run = bytes(self._run)
        beginning = self._known.mask_beginning(run) if self._known else run
        end = len(beginning) - _split_character_bytes(run[: len(beginning)])
        del self._run[:end]
        return [beginning[:end]] if end else []


def _split_character_bytes(text: bytes) -> int:
    """Return the number of bytes of an incomplete character of UTF-8 at the end."""
    for length in range(1, min(len(text), _MAX_CHARACTER_BYTES) + 1):
        byte = text[-length]
        if byte & 0xC0 != 0x80:  # not a continuation byte
            needed = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
            return length if length < needed else 0
    return 0


class RawEncoder:
    """Encodes the body as raw frames, each a run of the body."""

    passes_all = False

    def __init__(self, frames: EventFrames, known: KnownSecrets = NO_SECRETS) -> None:
        self._frames = frames
        self._runs = RunEncoder(known)

    def encode(self, data: bytes, items: list[Item], pending_bytes: int) -> Sequence[Frame]:
        return list(map(self._frames.run, self._runs.encode(data, items, pending_bytes)))


class ByteEncoder:
    """Passes the body on unchanged, read by read."""

    passes_all = True

    def encode(self, data: bytes, items: list[Item], pending_bytes: int) -> Sequence[Frame]:
        return [data] if data else []


BYTES: Final = ByteEncoder()
