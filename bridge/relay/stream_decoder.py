"""One streamed answer of one step: the provider's bytes in, what the client gets of them out."""

from collections.abc import Sequence

import msgspec

from bridge.formats.decoders import Decoder
from bridge.formats.dialects import Anthropic
from bridge.formats.item import Item
from bridge.formats.stream_reader import Mark, StreamReader, StreamState, Verdict
from bridge.protocol.frames import Frame
from bridge.relay.stream_encoders import Conceal, StreamEncoder

MAX_HELD_ITEMS = 64
MAX_HELD_BYTES = 1 << 20
MAX_PINGS = 64
"""How many of Anthropic's pings keep their place before the answer."""
MAX_PING_BYTES = 256


class StreamDecoder:
    """Decodes, judges and encodes; holds what it made back until `release`.

    `answered` turns true at the first item that is neither bookkeeping nor a heartbeat, and when too much bookkeeping
    is held (PROTOCOL.md, B "When a step has answered"). `failed` turns true at an item that reports an error. No item
    after it is passed on, and none after the closing mark, though what the provider sent behind it in the same read
    stays part of a run of the body.
    """

    def __init__(
        self, decoder: Decoder, reader: StreamReader, encoder: StreamEncoder, conceal: Conceal | None = None
    ) -> None:
        """`conceal` is applied to the item that reports an error."""
        self._decoder = decoder
        self._encoder = encoder
        self._conceal = conceal
        self._pings = 0
        self._early_pings: list[Item] = []
        self._held: list[Frame] | None = []
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
    def is_over(self) -> bool:
        """True if nothing that may still come is of use: the closing mark and the usage have come."""
        return self.reader.closed and not self._encoder.passes_all and self.reader.usage is not None

    @property
    def passes_all(self) -> bool:
        return self._encoder.passes_all

    @property
    def _is_late(self) -> bool:
        """True if the next bytes are read for their usage only, since the closing mark has come."""
        return self.reader.closed and not self._encoder.passes_all

    @property
    def pending_bytes(self) -> int:
        """What has come of an item that is not complete yet."""
        return self._decoder.pending_bytes

    def feed(self, data: bytes) -> Sequence[Frame]:
        """What to send for one read. Raises ItemTooLarge, or BrokenStream where the framing says so."""
        is_late = self._is_late
        items = self._read(self._decoder.feed(data))
        return [] if is_late else self._pass_on(data, items, self._decoder.pending_bytes)

    def finish(self, ending: StreamState, *, clean_end_is_whole: bool) -> tuple[Sequence[Frame], Verdict]:
        """The body has ended so: what is left to send, and whether the answer is whole."""
        is_late = self._is_late
        items = self._read(self._decoder.finish())
        parts = [] if is_late else self._pass_on(b"", items, 0)
        truncated = self._decoder.truncated
        return parts, self.reader.verdict(ending, truncated=truncated, clean_end_is_complete=clean_end_is_whole)

    def release(self) -> Sequence[Frame]:
        """What was held back, in order; from now on nothing is."""
        held, self._held = self._held or [], None
        self.chunks += len(held)
        return held

    def _read(self, items: list[Item]) -> list[Item]:
        """The items to pass on: up to the first that reports an error, that one included, or to the closing mark.

        What comes after the closing mark is read for its usage.
        """
        reader = self.reader
        passed: list[Item] = []
        for item in items:
            was_closed = reader.closed
            mark = reader.read(item)
            if was_closed:
                continue
            if mark is Mark.HEARTBEAT and not self.answered:
                self._keep_ping(item, passed)
                continue
            if self._early_pings:
                self._place_pings(passed)
            passed.append(item)
            if mark is Mark.FAILED:
                self.failed = True
                if self._conceal is not None:
                    data = item.data if item.parts is None else b"".join(item.parts)
                    passed[-1] = msgspec.structs.replace(item, data=self._conceal(data), parts=None)
                break
            self._held_items += self._held is not None
            self.answered |= mark is not Mark.BOOKKEEPING and not reader.is_empty
        return passed

    def _keep_ping(self, item: Item, passed: list[Item]) -> None:
        """Before the answer Anthropic's own ping keeps its place; other heartbeats are dropped."""
        if b'"ping"' not in item.data[:MAX_PING_BYTES] or len(item.data) > MAX_PING_BYTES or self._pings >= MAX_PINGS:
            return
        self._pings += 1
        if self.reader.dialect is None:
            self._early_pings.append(item)
        elif self.reader.dialect == Anthropic.name:
            passed.append(item)

    def _place_pings(self, passed: list[Item]) -> None:
        """The pings that came before the first item: now it shows if they are Anthropic's."""
        if self.reader.dialect == Anthropic.name:
            passed += self._early_pings
        self._early_pings = []

    def _pass_on(self, data: bytes, items: list[Item], pending_bytes: int) -> Sequence[Frame]:
        parts = self._encoder.encode(data, items, pending_bytes)
        if self._held is None:
            self.chunks += len(parts)
            return parts
        self._held += parts
        self._held_bytes += sum(map(len, parts))
        if self._held_items > MAX_HELD_ITEMS or self._held_bytes > MAX_HELD_BYTES:
            self.answered = True
        return []
