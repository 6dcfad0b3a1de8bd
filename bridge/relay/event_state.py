"""Collect the state of one event for the metadata of its frames and its log line."""

from dataclasses import dataclass, field
from typing import Final

import msgspec

from bridge.errors import BridgeError
from bridge.formats import json_parse
from bridge.formats.stream_reader import Usage
from bridge.policy.reported import Reported
from bridge.protocol.response_headers import readable
from bridge.relay.summary import Cost

_NOT_LOGGED: Final = {"cacheStatus", "headers", "attempts"}


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Head of a response, from a provider or from the bridge."""

    step: int
    provider: str | None
    """None for an event that was refused before a provider was chosen."""
    status: int
    content_type: str
    headers: dict[str, str] | None = None
    """The provider's response headers, as the client may see them."""
    items: bool = False
    """True for a stream of items, whose tokens can be estimated; False for bytes."""
    byok_alias: str | None = None
    """Alias of the stored key that was used."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """One stream that was passed on to the client: its reported usage and its observed size."""

    head: ResponseHead
    usage: Usage | None
    reported: Reported
    answer_bytes: int
    chunks: int
    cached: bool
    """No provider was called for it."""


@dataclass(slots=True)
class EventState:
    """State of one event. Instants are seconds on the loop's clock."""

    log_id: str
    gateway: str
    began_at: float
    warnings: list[str]
    created_at_ns: int = 0
    """Wall clock, since 1970."""
    called_at: float | None = None
    """When the first provider call began."""
    answered_at: float | None = None
    """When the first answer item had come."""
    cached: bool = False
    """No provider was called for the answer."""
    byok_alias: str | None = None
    """Alias of the stored key that the last attempt used."""
    attempts: list[dict[str, object]] = field(default_factory=list)
    attempt_times: list[tuple[float, float]] = field(default_factory=list)
    """Begin and end of each attempt."""
    chunks: int = 0
    """Number of `universal.stream` frames sent."""
    usage: Usage | None = None
    reported: Reported = field(default_factory=dict)
    """Members of the usage that report a cost, as the provider wrote them."""
    streamed: Streamed | None = None
    """The last stream that was passed on; None for a response in one piece."""
    dropped: list[Streamed] = field(default_factory=list)
    """Streams that broke and were replaced by another answer. They are charged as well."""
    cost: Cost | None = None
    model: str | None = None
    answer_bytes: int = 0
    answer_head: list[bytes] = field(default_factory=list)
    """First reads of the response body: at least `head_bytes`, if the body is as long."""
    head_bytes: int = 0
    """Number of bytes to keep in `answer_head`."""
    restarted: bool = False
    """True if the client is to drop an earlier stream of the event."""
    outcome: dict[str, object] = field(default_factory=dict)
    """The last frame's metadata and the error's code, for the log."""
    head: ResponseHead | None = None
    """Head of the last frame."""
    error: BridgeError | None = None
    ended_at: float = 0.0

    def add_body(self, data: bytes) -> None:
        """Count one read of the response body. This is on the hot path."""
        if self.answer_bytes < self.head_bytes:
            self.answer_head.append(data)
        self.answer_bytes += len(data)

    def reset_body(self) -> None:
        """Forget the body: another response replaces it."""
        self.answer_bytes = 0
        self.answer_head.clear()

    def drop_stream(self) -> None:
        """Move the last stream, if any, to `dropped`: another answer replaces it."""
        if self.streamed is not None:
            self.dropped.append(self.streamed)
            self.streamed = None

    def add_attempt(
        self, step: int, provider: str, status: int | None, error: BridgeError | None, began_at: float, ended_at: float
    ) -> None:
        """Add an attempt or a skipped step; `status` is the provider's, if it sent one."""
        attempt: dict[str, object] = {"step": str(step), "provider": provider, "durationMs": _ms(ended_at - began_at)}
        if status is not None:
            attempt["status"] = status
        if error is not None:
            attempt |= {"code": error.code, "reason": str(error)}
        self.attempts.append(attempt)
        self.attempt_times.append((began_at, ended_at))

    def first_metadata(self, head: ResponseHead, *, success: bool) -> dict[str, object]:
        """Return the metadata of a first frame."""
        metadata: dict[str, object] = {
            "cacheStatus": "HIT" if self.cached else "MISS",
            "logId": self.log_id,
            "step": str(head.step),
            "contentType": head.content_type,
            "status": head.status,
            "success": success,
        }
        if head.provider is not None:
            metadata["provider"] = head.provider
        if head.headers is not None:
            metadata["headers"] = readable(head.headers)
        if self.restarted:
            metadata["restarted"] = True
        return metadata

    def last_metadata(self, head: ResponseHead, now: float, error: BridgeError | None) -> dict[str, object]:
        """Return the complete metadata, for the last frame, and record the outcome."""
        metadata = self.first_metadata(head, success=error is None)
        if len(self.attempts) > 1:
            metadata["attempts"] = self.attempts
        self.head, self.error, self.ended_at = head, error, now
        metadata["durationMs"] = _ms(now - self.began_at)
        metadata["chunks"] = self.chunks
        if self.usage is not None:
            metadata["usage"] = msgspec.to_builtins(self.usage)
        if self.cost is not None:
            metadata["cost"] = self.cost.usd
        if self.warnings:
            metadata["warnings"] = self.warnings
        self.outcome = {key: value for key, value in metadata.items() if key not in _NOT_LOGGED}
        if "attempts" in metadata:
            self.outcome["attempts"] = list(map(_without_reason, self.attempts))
        if error is not None:
            self.outcome["code"] = error.code
        return metadata

    def log_fields(self, event_id: bytes) -> dict[str, object]:
        """Return the fields of the log line: no header, no URL, and no text of a body, which may quote a key."""
        fields: dict[str, object] = {"gateway": self.gateway, "eventId": json_parse.parse(event_id), **self.outcome}
        if self.model is not None:
            fields["model"] = self.model
        return fields


def _without_reason(attempt: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in attempt.items() if key != "reason"}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
