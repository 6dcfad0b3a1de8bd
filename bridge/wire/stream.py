"""One streamed answer of one step: the provider's bytes in, the client's frames out."""

from bridge.wire.body import Decoder
from bridge.wire.dialects import Ending, Mark, StreamReader, Verdict
from bridge.wire.frames import EventFrames
from bridge.wire.item import Item

MAX_HELD_ITEMS = 64
MAX_HELD_BYTES = 1 << 20


class Stream:
    """Decodes, judges and encodes; holds frames back until `release`.

    `answered` turns true at the first item that is not bookkeeping, and when too much bookkeeping has come to be held
    (PROTOCOL.md, B "Answering"). `failed` turns true at an item that reports an error; no item after it is passed on,
    though what the provider sent behind it in the same read stays part of a `raw` run.
    """

    def __init__(self, decoder: Decoder, reader: StreamReader, frames: EventFrames, *, raw: bool) -> None:
        self._decoder = decoder
        self._frames = frames
        self._held: list[bytes] | None = []
        self._held_items = self._held_bytes = 0
        self._run = bytearray() if raw else None
        self.reader = reader
        self.answered = False
        self.failed = False
        self.chunks = 0

    @property
    def is_holding(self) -> bool:
        """Whether an item is held back. Comments, which `raw` carries too, are none."""
        return self._held is not None and self._held_items > 0

    @property
    def pending_bytes(self) -> int:
        """What has come of an item that is not complete yet."""
        return self._decoder.pending_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """The frames to be sent for one read. Raises ItemTooLarge, or BrokenStream where the framing says so."""
        if self._run is not None:
            self._run += data
        return self._pass_on(self._read(self._decoder.feed(data)), self._decoder.pending_bytes)

    def finish(self, ending: Ending, *, clean_end_is_whole: bool) -> tuple[list[bytes], Verdict]:
        """The body has ended so: the last frames, and whether the answer is whole."""
        frames = self._pass_on(self._read(self._decoder.finish()), 0)
        truncated = self._decoder.truncated
        return frames, self.reader.verdict(ending, truncated=truncated, clean_end_is_whole=clean_end_is_whole)

    def release(self) -> list[bytes]:
        """What was held back, in order; from now on nothing is."""
        held, self._held = self._held or [], None
        self.chunks += len(held)
        return held

    def _read(self, items: list[Item]) -> list[Item]:
        """Reads the items up to the first that reports an error, that one included."""
        read = self.reader.read
        for count, item in enumerate(items, 1):
            mark = read(item)
            if mark is Mark.BOOKKEEPING:
                continue
            if mark is Mark.FAILED:
                self.failed = True
                return items[:count]
            self.answered = True
        return items

    def _pass_on(self, items: list[Item], pending_bytes: int) -> list[bytes]:
        frames = self._frames.items(items) if self._run is None else self._cut(self._run, pending_bytes)
        if self._held is None:
            self.chunks += len(frames)
            return frames
        self._held += frames
        self._held_items += len(items)
        self._held_bytes += sum(map(len, frames))
        if self._held_items > MAX_HELD_ITEMS or self._held_bytes > MAX_HELD_BYTES:
            self.answered = True
        return []

    def _cut(self, run: bytearray, pending_bytes: int) -> list[bytes]:
        """The body so far, up to the end of its last item."""
        end = len(run) - pending_bytes
        if end <= 0:
            return []
        with memoryview(run) as view:
            body = bytes(view[:end])
        del run[:end]
        return [self._frames.run(body)]
