"""Summary of one event: the source of its log row, its metrics and its span.

Each event makes an `EventSummary`. It is a msgspec Struct: constructing a frozen dataclass is ten times slower. It is
not tracked by the garbage collector (`gc=False`): it contains no reference cycles, and thousands wait in queues.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import msgspec

from bridge.config.gateways import LogStrategy
from bridge.config.keys import StoredKey
from bridge.config.otel import OtelExporter
from bridge.formats.stream_reader import Usage
from bridge.settings.step import StepSettings

Transport = Literal["websocket", "http", "realtime"]
CostSource = Literal["custom", "provider", "prices", "cache"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost in US dollars. A response from the cache costs 0."""

    usd: float
    source: CostSource
    estimated: bool = False
    """True if the tokens were estimated, because the stream did not report them."""
    known_usd: float | None = None
    """Cost as the gateway knows it, if `usd` is the client's own claim."""
    is_capped: bool = False
    """True if the provider reported more than the accepted maximum."""

    @property
    def charged_usd(self) -> float:
        """Cost that is charged to budgets: never the client's claim, which could be too low or too high."""
        return self.usd if self.known_usd is None else self.known_usd

    def plus(self, more: "Cost") -> "Cost":
        """Return the sum, with the source of this cost."""
        known_usd = self.charged_usd + more.charged_usd
        is_known = self.known_usd is None and more.known_usd is None
        usd, estimated = self.usd + more.usd, self.estimated or more.estimated
        return Cost(usd, self.source, estimated, None if is_known else known_usd, self.is_capped or more.is_capped)


class BodyPreviews(msgspec.Struct, gc=False):
    """First bytes of request and response. They are redacted before they are stored."""

    request: bytes
    answer: bytes
    are_redacted: bool = False
    """Set by the first observer's thread that redacts them: redaction is the most expensive step."""


class SentSecrets(msgspec.Struct, frozen=True, gc=False):
    """The parts of a request that hold secrets. Used to find the secrets in responses, and never stored."""

    headers: Mapping[str, str]
    """Names in lower case."""
    query: str
    """Query of the endpoint."""
    key: StoredKey | None
    """The stored key, if it was used."""


NO_TOKENS: Final = Usage(input_tokens=0, output_tokens=0)


class SessionTotals(msgspec.Struct, frozen=True):
    """Counts of both directions of a realtime session, and its end. Bytes exclude frame headers."""

    messages_from_client: int
    messages_from_provider: int
    bytes_from_client: int
    bytes_from_provider: int
    closed_by: Literal["client", "provider", "bridge"]
    close_code: int
    """Close code of that peer; 1005 for a close frame without code, 1006 for none (RFC 6455, section 7.4.1)."""


class EventSummary(msgspec.Struct, frozen=True, gc=False):
    """Everything that observers get of an event. Except `sent` it holds no other header values and no URL query."""

    log_id: str
    event_id: str | int
    account: str
    gateway: str
    """Name in the client's URL."""
    token: str
    """Name of the presented token; empty for an open gateway."""
    transport: Transport
    created_at_ns: int
    """Wall clock, since 1970."""
    duration_ms: float
    first_answer_ms: float | None
    """From the event's beginning to the first answer item; None without one."""
    added_ms: float | None
    """From the event's beginning to the first provider call: the bridge's own time. None without a call."""
    step: int
    provider: str | None
    """Provider slug; None if no step could be resolved."""
    model: str | None
    method: str | None
    path: str | None
    """Below the provider's base URL, without query."""
    url: str | None
    """Base URL of the call; prices are looked up by it."""
    status: int
    success: bool
    code: int | None
    """Error code; None for a success."""
    reason: str | None
    cached: bool
    byok_alias: str | None
    """Alias of the stored key that was used."""
    request_content_type: str
    answer_content_type: str
    request_bytes: int
    answer_bytes: int
    chunks: int
    usage: Usage | None
    cost: Cost | None
    attempts: list[dict[str, object]]
    attempt_times_ms: list[tuple[float, float]]
    """Begin and end of each attempt, from the event's beginning."""
    settings: StepSettings
    """Settings of the first step, which hold those of the event."""
    traceparent: str
    """Header of the first step, else of the handshake or the HTTP request; empty without one."""
    bodies: BodyPreviews | None
    """None if bodies are not kept."""
    sent: tuple[SentSecrets, ...]
    """Secrets of each step that was tried: the reason of an attempt may quote any of them."""
    log_rows: int
    """Setting of the gateway when the event ended, like the next two."""
    log_strategy: LogStrategy
    log_is_shared: bool
    """True if the gateway has several tokens, of which none may fill the log alone."""
    otel: tuple[OtelExporter, ...]
    """Exporters of the gateway's spans, when the event ended."""
    warnings: list[str]
    realtime: SessionTotals | None = None
    """Set for a realtime session, which has no `chunks`."""

    @property
    def is_refused(self) -> bool:
        """True if the event failed before a provider was called: clients can send any number of those at no cost."""
        return not self.success and self.added_ms is None

    @property
    def used(self) -> Usage | None:
        """Tokens charged by the provider: none for a cached response, whatever `usage` reports."""
        return NO_TOKENS if self.cached else self.usage


class Observer(Protocol):
    def on_event_end(self, summary: EventSummary) -> None:
        """Handle the summary of an event. The call does not block and does not raise."""
