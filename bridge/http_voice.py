"""An event as an HTTP answer: the provider's own bytes, and ours in the place of frames but in the headers."""

from collections.abc import Iterator, Mapping
from typing import Final

from bridge.errors import BridgeError
from bridge.http_errors import NOSNIFF, ErrorBody, retry_after
from bridge.http_reply import Reply
from bridge.relay.record import Heading
from bridge.relay.voice import Metadata
from bridge.wire.answer_headers import may_pass
from bridge.wire.carriers import BYTES, Carrier, Conceal, Runs

LONGEST_WHOLE_BYTES: Final = 8 << 20


class HttpVoice:
    """Speaks on one request's reply."""

    whole_bytes: Final = LONGEST_WHOLE_BYTES

    def __init__(
        self, reply: Reply, event_id: str | None, more_headers: Mapping[str, str], error_body: ErrorBody
    ) -> None:
        """`event_id` as the client gave it, if it did; `more_headers` go out with every answer."""
        self._reply = reply
        self._event_id = event_id
        self._more_headers = more_headers
        self._error_body = error_body
        self.say = reply.write
        self.drained = reply.drained

    @property
    def is_full(self) -> bool:
        return self._reply.is_full

    def carrier(self, *, raw: bool, conceal: Conceal | None = None) -> Carrier:
        return BYTES if conceal is None else Runs(conceal)

    def open(self, heading: Heading, metadata: Metadata, held: list[bytes]) -> None:
        self._reply.begin(heading.status, self._headers(heading, metadata), held)

    def encoded(self, body: bytes, content_type: str, *, raw: bool) -> bytes:
        return body

    def answer(self, heading: Heading, metadata: Metadata, encoded: bytes, error: BridgeError | None) -> None:
        self._reply.send(heading.status, self._headers(heading, metadata), encoded)

    def refuse(self, metadata: Metadata, error: BridgeError) -> None:
        headers = [("content-type", "application/json"), NOSNIFF, *self._own_headers(metadata)]
        if error.retry_after_ms is not None:
            headers.append(("retry-after", retry_after(error.retry_after_ms)))
        self._reply.send(error.status, headers, self._error_body(error))

    def done(self, metadata: Metadata) -> None:
        self._reply.finish()

    def fail(self, metadata: Metadata, error: BridgeError) -> None:
        if self._reply.has_begun:
            self._reply.cut()
        else:
            self.refuse(metadata, error)

    def _headers(self, heading: Heading, metadata: Metadata) -> list[tuple[str, str]]:
        theirs = (heading.headers or {}).items()
        return [*(pair for pair in theirs if may_pass(pair[0])), *self._own_headers(metadata)]

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
    """Its bytes as characters; None where it has none, for JSON may hold half a character."""
    try:
        return text.encode().decode("latin-1")
    except UnicodeEncodeError:
        return None
