"""How an event speaks to its client: the one seam between what an event does and the wire it is heard on."""

from collections.abc import Mapping
from typing import Protocol

from bridge.errors import BridgeError
from bridge.relay.record import Heading
from bridge.wire.carriers import Carrier, Conceal, ItemCarrier, RunCarrier
from bridge.wire.frames import EventFrames, error_body, error_object, response_value

Metadata = Mapping[str, object]


class Voice(Protocol):
    """Of one event. No method blocks or fails: what is said to a peer that is gone is dropped.

    Either `answer`, `refuse` or `fail` is the only word; or `open` is the first, then any number of `say`, and `done`
    or `fail` the last. On a socket `open` may come again: what was said before is to be dropped.
    """

    @property
    def whole_bytes(self) -> int | None:
        """How long a good answer in one piece may be; a longer one is passed on as it comes. None: as long as it is."""

    @property
    def is_full(self) -> bool:
        """Whether what was said stands in line: then wait for `drained` before the provider is read on."""

    async def drained(self) -> None: ...

    def carrier(self, *, raw: bool, conceal: Conceal | None = None) -> Carrier:
        """What makes of a stream's bytes what `say` takes; `raw` as the step's setting `frames` says.

        `conceal` is applied to what is passed on as bytes: which of them report an error is not known there.
        """

    def open(self, heading: Heading, metadata: Metadata, held: list[bytes]) -> None:
        """A stream begins, with what was held back of it."""

    def say(self, parts: list[bytes]) -> None:
        """The hot path: what came of one read."""

    def encoded(self, body: bytes, content_type: str, *, raw: bool) -> bytes:
        """An answer in one piece, as `answer` takes it. Pure: it may run in a thread."""

    def answer(self, heading: Heading, metadata: Metadata, encoded: bytes, error: BridgeError | None) -> None:
        """An answer in one piece, as a provider gave it; `error` when it is one."""

    def refuse(self, metadata: Metadata, error: BridgeError) -> None:
        """The bridge's own error in place of an answer."""

    def done(self, metadata: Metadata) -> None:
        """The stream is whole."""

    def fail(self, metadata: Metadata, error: BridgeError) -> None:
        """The stream is not, and never will be; or the event was cancelled before it began."""


class Sink(Protocol):
    """Where frames go."""

    @property
    def is_full(self) -> bool: ...

    def send(self, frames: list[bytes]) -> None:
        """Never blocks, never fails: frames for a peer that is gone are dropped."""

    def send_one(self, parts: list[bytes]) -> None:
        """The same for one frame, given in parts so that a long one need not be copied."""

    async def drained(self) -> None: ...


class FrameVoice:
    """Speaks in frames on a socket that other events share."""

    whole_bytes = None

    def __init__(self, event_id: bytes, sink: Sink, *, compat: bool) -> None:
        """`event_id` is raw JSON."""
        self._frames = EventFrames(event_id, compat=compat)
        self._sink = sink
        self.say = sink.send
        self.drained = sink.drained

    @property
    def is_full(self) -> bool:
        return self._sink.is_full

    def carrier(self, *, raw: bool, conceal: Conceal | None = None) -> Carrier:
        return RunCarrier(self._frames, conceal) if raw else ItemCarrier(self._frames)

    def open(self, heading: Heading, metadata: Metadata, held: list[bytes]) -> None:
        self._sink.send([self._frames.opened(metadata), *held])

    def encoded(self, body: bytes, content_type: str, *, raw: bool) -> bytes:
        return response_value(body, content_type, raw=raw)

    def answer(self, heading: Heading, metadata: Metadata, encoded: bytes, error: BridgeError | None) -> None:
        self._sink.send_one(self._frames.answered(metadata, encoded, error_object(error) if error else None))

    def refuse(self, metadata: Metadata, error: BridgeError) -> None:
        self._sink.send_one(self._frames.answered(metadata, error_body(error), error_object(error)))

    def done(self, metadata: Metadata) -> None:
        self._sink.send_one([self._frames.done(metadata)])

    def fail(self, metadata: Metadata, error: BridgeError) -> None:
        self._sink.send_one([self._frames.failed(metadata, error_object(error))])
