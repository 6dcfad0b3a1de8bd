"""Write an event as an HTTP response: the provider's own bytes, with the event's metadata in headers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bridge.errors import BridgeError
from bridge.protocol.frames import Frame
from bridge.protocol.response_headers import is_forwardable
from bridge.redact.known_secrets import NO_SECRETS, KnownSecrets
from bridge.relay.event_state import ResponseHead
from bridge.relay.stream_encoders import BYTES, RunEncoder, StreamEncoder
from bridge.relay.writer import Metadata
from bridge.server.http.errors import NOSNIFF, ErrorBody, retry_after
from bridge.server.http.response import HttpResponse

MAX_BUFFERED_BYTES: Final = 8 << 20


class HttpResponseWriter:
    """Writes an event to the response of its request."""

    max_buffered_bytes: Final = MAX_BUFFERED_BYTES

    def __init__(
        self, response: HttpResponse, event_id: str | None, more_headers: Mapping[str, str], error_body: ErrorBody
    ) -> None:
        """`event_id` is the client's, or None; `more_headers` are added to every response."""
        self._response = response
        self._event_id = event_id
        self._more_headers = more_headers
        self._error_body = error_body
        self.write = response.write
        self.drain = response.drain

    @property
    def is_full(self) -> bool:
        return self._response.is_full

    def stream_encoder(self, *, raw: bool, known: KnownSecrets = NO_SECRETS) -> StreamEncoder:
        return RunEncoder(known) if known else BYTES

    def start_stream(self, head: ResponseHead, metadata: Metadata, held: Sequence[Frame]) -> None:
        self._response.begin(head.status, self._headers(head, metadata), held)

    def encode_body(self, body: bytes, content_type: str, *, raw: bool, checked: bool) -> bytes:
        return body

    def send_response(self, head: ResponseHead, metadata: Metadata, encoded: bytes, error: BridgeError | None) -> None:
        self._response.send(head.status, self._headers(head, metadata), encoded)

    def send_error(self, metadata: Metadata, error: BridgeError) -> None:
        headers = [("content-type", "application/json"), NOSNIFF, *self._own_headers(metadata)]
        if error.retry_after_ms is not None:
            headers.append(("retry-after", retry_after(error.retry_after_ms)))
        self._response.send(error.status, headers, self._error_body(error))

    def end_stream(self, metadata: Metadata) -> None:
        self._response.finish()

    def abort_stream(self, metadata: Metadata, error: BridgeError) -> None:
        if self._response.has_begun:
            self._response.close_incomplete()
        else:
            self.send_error(metadata, error)

    def _headers(self, head: ResponseHead, metadata: Metadata) -> list[tuple[str, str]]:
        provider_headers = (head.headers or {}).items()
        return [*(pair for pair in provider_headers if is_forwardable(pair[0])), *self._own_headers(metadata)]

    def _own_headers(self, metadata: Metadata) -> Iterator[tuple[str, str]]:
        log_id = str(metadata["logId"])
        event_id = _as_header(log_id if self._event_id is None else self._event_id)
        yield "cf-aig-step", str(metadata["step"])
        yield "cf-aig-log-id", log_id
        yield "cf-aig-request-id", log_id
        if event_id is not None:
            yield "cf-aig-event-id", event_id
        yield "cf-aig-cache-status", str(metadata["cacheStatus"])
        yield from self._more_headers.items()


def _as_header(text: str) -> str | None:
    """Return the text's UTF-8 bytes as Latin-1 characters; None for a lone surrogate, which JSON may hold."""
    try:
        return text.encode().decode("latin-1")
    except UnicodeEncodeError:
        return None
