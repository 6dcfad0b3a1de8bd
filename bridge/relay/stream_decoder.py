"""Decode, check and encode one stream: provider bytes in, client frames out. Pure."""

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
"""Number of Anthropic pings that keep their place before the answer."""
MAX_PING_BYTES = 256


class StreamDecoder:
    """Decodes, interprets and encodes a stream; holds its frames back until `release`.

    `answered` becomes True at the first item that is neither bookkeeping nor a heartbeat, and when too much bookkeeping
    is held (`bridge/docs/protocol.md`, "When a step has answered"). `failed` becomes True at an item that reports an
    error. No item after it is passed on, and none after the closing mark. Raw parts of the body contain what follows
    the closing mark up to the last item that was complete when the stream ended: Bedrock sends its usage there, and
    its SDK reads it.
    """

    def __init__(
        self, decoder: Decoder, reader: StreamReader, encoder: StreamEncoder, conceal: Conceal | None = None
    ) -> None:
        """Create a decoder. `conceal` is applied to the item that reports an error."""
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
        """True if an item is held back. Comments in raw parts are not items."""
        return self._held is not None and self._held_items > 0

    @property
    def is_over(self) -> bool:
        """True once the closing mark and the usage were received: the rest of the body is not needed."""
        return self.reader.closed and not self._encoder.passes_all and self.reader.usage is not None

    @property
    def passes_all(self) -> bool:
        return self._encoder.passes_all

    @property
    def pending_bytes(self) -> int:
        """Number of buffered bytes of an incomplete item."""
        return self._decoder.pending_bytes

    def feed(self, data: bytes) -> Sequence[Frame]:
        """Return the frames for one read. Raises ItemTooLarge, and BrokenStream for damaged framing."""
        return self._pass_on(data, self._read(self._decoder.feed(data)), self._decoder.pending_bytes)

    def finish(self, ending: StreamState, *, clean_end_is_complete: bool) -> tuple[Sequence[Frame], Verdict]:
        """Return the remaining frames and the verdict, for a body that ended as `ending` says."""
        is_rest_unwanted = self.reader.closed and not self._encoder.passes_all
        items = self._read(self._decoder.finish())
        parts = [] if is_rest_unwanted else self._pass_on(b"", items, 0)
        truncated = self._decoder.truncated
        return parts, self.reader.verdict(ending, truncated=truncated, clean_end_is_complete=clean_end_is_complete)

    def release(self) -> Sequence[Frame]:
        """Return the frames that were held back, in order. Later frames are not held back."""
        held, self._held = self._held or [], None
        self.chunks += len(held)
        return held

    def _read(self, items: list[Item]) -> list[Item]:
        """Return the items to pass on: up to and including the first error, or up to the closing mark.

        Items after the closing mark are read for their usage.
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
                    # Of a long item the short version is passed on: masking the item would block the event loop.
                    passed[-1] = msgspec.structs.replace(item, data=self._conceal(item.data), parts=None)
                break
            self._held_items += self._held is not None
            self.answered |= mark is not Mark.BOOKKEEPING and not reader.is_empty
        return passed

    def _keep_ping(self, item: Item, passed: list[Item]) -> None:
        """Keep the place of an Anthropic ping before the answer. Other heartbeats are dropped."""
        if b'"ping"' not in item.data[:MAX_PING_BYTES] or len(item.data) > MAX_PING_BYTES or self._pings >= MAX_PINGS:
            return
        self._pings += 1
        if self.reader.dialect is None:
            self._early_pings.append(item)
        elif self.reader.dialect == Anthropic.name:
            passed.append(item)

    def _place_pings(self, passed: list[Item]) -> None:
        """Pass on the pings before the first item if the dialect turns out to be Anthropic's."""
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
