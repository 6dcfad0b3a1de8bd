"""Interface between an event and its client connection, and its implementation for WebSocket frames."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from bridge.errors import BridgeError
from bridge.protocol.frames import EventFrames, Frame, error_body, error_object, response_value
from bridge.redact.known_secrets import NO_SECRETS, KnownSecrets
from bridge.relay.event_state import ResponseHead
from bridge.relay.stream_encoders import ItemEncoder, RawEncoder, StreamEncoder

Metadata = Mapping[str, object]


class ResponseWriter(Protocol):
    """Sends the response of one event. No method blocks or raises; data for a closed connection is dropped.

    Either `send_response`, `send_error` or `abort_stream` is the only call; or `start_stream` is the first, followed by
    any number of `write`, and `end_stream` or `abort_stream` is the last. On a socket `start_stream` may be repeated:
    the client then drops the earlier stream.
    """

    @property
    def max_buffered_bytes(self) -> int | None:
        """Largest response that is buffered in one piece; longer ones are streamed. None means no limit."""

    @property
    def is_full(self) -> bool:
        """True while sent data is queued. Await `drain` before the next read from the provider."""

    async def drain(self) -> None: ...

    def stream_encoder(self, *, raw: bool, known: KnownSecrets = NO_SECRETS) -> StreamEncoder:
        """Return the encoder for `write`; `raw` is True for the setting `frames: raw`.

        `known` are masked in everything that is passed on as bytes, because errors are not recognised there.
        """

    def start_stream(self, head: ResponseHead, metadata: Metadata, held: Sequence[Frame]) -> None:
        """Start a stream, and send the frames that were held back."""

    def write(self, parts: Sequence[Frame]) -> None:
        """Send the result of one read. This is the hot path."""

    def encode_body(self, body: bytes, content_type: str, *, raw: bool, checked: bool) -> bytes:
        """Return a body in one piece as `send_response` takes it. Pure: it may run in a thread.

        `checked`: the body is known to be JSON.
        """

    def send_response(self, head: ResponseHead, metadata: Metadata, encoded: bytes, error: BridgeError | None) -> None:
        """Send a provider's response in one piece; `error` is set if it reports one."""

    def send_error(self, metadata: Metadata, error: BridgeError) -> None:
        """Send the bridge's own error instead of a response."""

    def end_stream(self, metadata: Metadata) -> None:
        """End a complete stream."""

    def abort_stream(self, metadata: Metadata, error: BridgeError) -> None:
        """End a broken stream, or an event that was cancelled before it began."""


class Sink(Protocol):
    """Destination of frames."""

    @property
    def is_full(self) -> bool: ...

    def send(self, frames: Sequence[Frame]) -> None:
        """Send frames without blocking or raising. Frames for a closed connection are dropped."""

    def send_one(self, parts: list[bytes]) -> None:
        """Send one frame in parts, so that a long one is not copied."""

    async def drain(self) -> None: ...


class FrameWriter:
    """Writes frames to a socket that several events share."""

    max_buffered_bytes = None

    def __init__(self, event_id: bytes, sink: Sink, *, compat: bool) -> None:
        """Create a writer. `event_id` is raw JSON."""
        self._frames = EventFrames(event_id, compat=compat)
        self._sink = sink
        self.write = sink.send
        self.drain = sink.drain

    @property
    def is_full(self) -> bool:
        return self._sink.is_full

    def stream_encoder(self, *, raw: bool, known: KnownSecrets = NO_SECRETS) -> StreamEncoder:
        return RawEncoder(self._frames, known) if raw else ItemEncoder(self._frames)

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
