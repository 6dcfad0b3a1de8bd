"""How an event speaks to its client: the one seam between what an event does and the wire it is heard on."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from bridge.errors import BridgeError
from bridge.protocol.frames import EventFrames, Frame, error_body, error_object, response_value
from bridge.relay.event_state import ResponseHead
from bridge.relay.stream_encoders import Conceal, ItemEncoder, RawEncoder, StreamEncoder

Metadata = Mapping[str, object]


class ResponseWriter(Protocol):
    """Of one event. No method blocks or fails: what is said to a peer that is gone is dropped.

    Either `answer`, `refuse` or `fail` is the only word; or `open` is the first, then any number of `say`, and `done`
    or `fail` the last. On a socket `open` may come again: what was said before is to be dropped.
    """

    @property
    def max_buffered_bytes(self) -> int | None:
        """How long a good answer in one piece may be; a longer one is passed on as it comes. None: as long as it is."""

    @property
    def is_full(self) -> bool:
        """Whether what was said stands in line: then wait for `drained` before the provider is read on."""

    async def drain(self) -> None: ...

    def stream_encoder(self, *, raw: bool, conceal: Conceal | None = None) -> StreamEncoder:
        """What makes of a stream's bytes what `say` takes; `raw` as the step's setting `frames` says.

        `conceal` is applied to what is passed on as bytes: which of them report an error is not known there.
        """

    def start_stream(self, head: ResponseHead, metadata: Metadata, held: Sequence[Frame]) -> None:
        """A stream begins, with what was held back of it."""

    def write(self, parts: Sequence[Frame]) -> None:
        """The hot path: what came of one read."""

    def encode_body(self, body: bytes, content_type: str, *, raw: bool, checked: bool) -> bytes:
        """An answer in one piece, as `answer` takes it. Pure: it may run in a thread.

        `checked`: the body is known to be JSON.
        """

    def send_response(self, head: ResponseHead, metadata: Metadata, encoded: bytes, error: BridgeError | None) -> None:
        """An answer in one piece, as a provider gave it; `error` when it is one."""

    def send_error(self, metadata: Metadata, error: BridgeError) -> None:
        """The bridge's own error in place of an answer."""

    def end_stream(self, metadata: Metadata) -> None:
        """The stream is whole."""

    def abort_stream(self, metadata: Metadata, error: BridgeError) -> None:
        """The stream is not, and never will be; or the event was cancelled before it began."""


class Sink(Protocol):
    """Where frames go."""

    @property
    def is_full(self) -> bool: ...

    def send(self, frames: Sequence[Frame]) -> None:
        """Never blocks, never fails: frames for a peer that is gone are dropped."""

    def send_one(self, parts: list[bytes]) -> None:
        """The same for one frame, given in parts so that a long one need not be copied."""

    async def drain(self) -> None: ...


class FrameWriter:
    """Speaks in frames on a socket that other events share."""

    max_buffered_bytes = None

    def __init__(self, event_id: bytes, sink: Sink, *, compat: bool) -> None:
        """`event_id` is raw JSON."""
        self._frames = EventFrames(event_id, compat=compat)
        self._sink = sink
        self.write = sink.send
        self.drain = sink.drain

    @property
    def is_full(self) -> bool:
        return self._sink.is_full

    def stream_encoder(self, *, raw: bool, conceal: Conceal | None = None) -> StreamEncoder:
        return RawEncoder(self._frames, conceal) if raw else ItemEncoder(self._frames)

    def start_stream(self, head: ResponseHead, metadata: Metadata, held: Sequence[Frame]) -> None:
        self._sink.send([self._frames.stream_start(metadata), *held])

    def encode_body(self, body: bytes, content_type: str, *, raw: bool, checked: bool) -> bytes:
        return response_value(body, content_type, raw=raw, checked=checked)

    def send_response(self, head: ResponseHead, metadata: Metadata, encoded: bytes, error: BridgeError | None) -> None:
        self._sink.send_one(self._frames.response(metadata, encoded, error_object(error) if error else None))

    def send_error(self, metadata: Metadata, error: BridgeError) -> None:
        self._sink.send_one(self._frames.response(metadata, error_body(error), error_object(error)))

    def end_stream(self, metadata: Metadata) -> None:
        self._sink.send_one([self._frames.done(metadata)])

    def abort_stream(self, metadata: Metadata, error: BridgeError) -> None:
        self._sink.send_one([self._frames.error(metadata, error_object(error))])
