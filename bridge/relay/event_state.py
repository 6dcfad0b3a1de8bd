"""What is known of one event: the metadata of its frames, and its line in the log."""

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
    """The head of an answer, a provider's or the bridge's own."""

    step: int
    provider: str | None
    """None for an event that was refused before it came to one."""
    status: int
    content_type: str
    headers: dict[str, str] | None = None
    """The provider's response headers, as the client may see them."""
    items: bool = False
    """It is a stream of items, and not of bytes: a model's words, whose tokens can be guessed."""
    byok_alias: str | None = None
    """Of the stored key that was used for it."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """One stream that the client was told of: what it told of its usage, and what was seen of it."""

    head: ResponseHead
    usage: Usage | None
    reported: Reported
    answer_bytes: int
    chunks: int
    cached: bool
    """No provider was called for it."""


@dataclass(slots=True)
class EventState:
    """One event, kept by whoever runs it. Instants are seconds on the loop's clock."""

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
    """Of the stored key that the last attempt used."""
    attempts: list[dict[str, object]] = field(default_factory=list)
    attempt_times: list[tuple[float, float]] = field(default_factory=list)
    """Of each attempt, when it began and ended."""
    chunks: int = 0
    """Frames of items or runs that were sent."""
    usage: Usage | None = None
    reported: Reported = field(default_factory=dict)
    """The members of the usage that tell a cost, as the provider wrote them."""
    streamed: Streamed | None = None
    """The stream that the client was told of last; None where the answer is in one piece."""
    dropped: list[Streamed] = field(default_factory=list)
    """Streams that broke, and in whose place another answer came. They were paid for all the same."""
    cost: Cost | None = None
    model: str | None = None
    answer_bytes: int = 0
    answer_head: list[bytes] = field(default_factory=list)
    """The beginning of the answer's body, at least `head_bytes` of it if there were as many."""
    head_bytes: int = 0
    """How much of it is wanted."""
    restarted: bool = False
    """An earlier stream of the event is to be dropped."""
    outcome: dict[str, object] = field(default_factory=dict)
    """The last frame's metadata and the error's code, for the log."""
    head: ResponseHead | None = None
    """The last frame's."""
    error: BridgeError | None = None
    ended_at: float = 0.0

    def add_body(self, data: bytes) -> None:
        """More of the answer that is passed on; the hot path."""
        if self.answer_bytes < self.head_bytes:
            self.answer_head.append(data)
        self.answer_bytes += len(data)

    def reset_body(self) -> None:
        """Another one begins in its place."""
        self.answer_bytes = 0
        self.answer_head.clear()

    def drop_stream(self) -> None:
        """Another answer begins in place of the stream told last, if there was one."""
        if self.streamed is not None:
            self.dropped.append(self.streamed)
            self.streamed = None

    def add_attempt(
        self, step: int, provider: str, status: int | None, error: BridgeError | None, began_at: float, ended_at: float
    ) -> None:
        """One attempt, or one step that was skipped; `status` is the provider's, if it came to one."""
        attempt: dict[str, object] = {"step": str(step), "provider": provider, "durationMs": _ms(ended_at - began_at)}
        if status is not None:
            attempt["status"] = status
        if error is not None:
            attempt |= {"code": error.code, "reason": str(error)}
        self.attempts.append(attempt)
        self.attempt_times.append((began_at, ended_at))

    def first_metadata(self, head: ResponseHead, *, success: bool) -> dict[str, object]:
        """The metadata of a first frame."""
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
        """The metadata of the last frame: all of it."""
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
        """One event as one line: no header, no URL, and no word of a body, in which a provider may tell a key back."""
        fields: dict[str, object] = {"gateway": self.gateway, "eventId": json_parse.parse(event_id), **self.outcome}
        if self.model is not None:
            fields["model"] = self.model
        return fields


def _without_reason(attempt: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in attempt.items() if key != "reason"}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
