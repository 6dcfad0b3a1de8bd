"""One streamed answer of one step: the provider's bytes in, what the client gets of them out."""

from bridge.wire.body import Decoder
from bridge.wire.carriers import Carrier
from bridge.wire.dialects import Ending, Mark, StreamReader, Verdict
from bridge.wire.item import Item

MAX_HELD_ITEMS = 64
MAX_HELD_BYTES = 1 << 20


class Stream:
    """Decodes, judges and encodes; holds what it made back until `release`.

    `answered` turns true at the first item that is not bookkeeping, and when too much bookkeeping has come to be held
    (PROTOCOL.md, B "Answering"). `failed` turns true at an item that reports an error; no item after it is passed on,
    though what the provider sent behind it in the same read stays part of a run of the body.
    """

    def __init__(self, decoder: Decoder, reader: StreamReader, carrier: Carrier) -> None:
        self._decoder = decoder
        self._carrier = carrier
        self._held: list[bytes] | None = []
        self._held_items = self._held_bytes = 0
        self.reader = reader
        self.answered = False
        self.failed = False
        self.chunks = 0

    @property
    def is_holding(self) -> bool:
        """Whether an item is held back. Comments, which runs carry too, are none."""
        return self._held is not None and self._held_items > 0

    @property
    def pending_bytes(self) -> int:
        """What has come of an item that is not complete yet."""
        return self._decoder.pending_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """What to send for one read. Raises ItemTooLarge, or BrokenStream where the framing says so."""
        return self._pass_on(data, self._read(self._decoder.feed(data)), self._decoder.pending_bytes)

    def finish(self, ending: Ending, *, clean_end_is_whole: bool) -> tuple[list[bytes], Verdict]:
        """The body has ended so: what is left to send, and whether the answer is whole."""
        parts = self._pass_on(b"", self._read(self._decoder.finish()), 0)
        truncated = self._decoder.truncated
        return parts, self.reader.verdict(ending, truncated=truncated, clean_end_is_whole=clean_end_is_whole)

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

    def _pass_on(self, data: bytes, items: list[Item], pending_bytes: int) -> list[bytes]:
        parts = self._carrier.take(data, items, pending_bytes)
        if self._held is None:
            self.chunks += len(parts)
            return parts
        self._held += parts
        self._held_items += len(items)
        self._held_bytes += sum(map(len, parts))
        if self._held_items > MAX_HELD_ITEMS or self._held_bytes > MAX_HELD_BYTES:
            self.answered = True
        return []
