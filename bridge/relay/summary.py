"""One event as it was at its end: what its row in the log, its metrics and its span are made of.

Every event makes an `Entry`: a struct, for to fill a frozen dataclass takes ten times as long. Python's collector need
not look at it (`gc=False`): nothing in it leads back to it, and thousands wait in queues.
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
    """US dollars. What the cache gives costs nothing: the only 0 that is not somebody's price."""

    usd: float
    source: CostSource
    estimated: bool = False
    """The tokens were not told, because the stream was cut; they were guessed."""
    known_usd: float | None = None
    """What it cost as far as the gateway knows, where `usd` is the client's own word."""
    is_capped: bool = False
    """The provider reported more than is believed."""

    @property
    def charged_usd(self) -> float:
        """What a budget is charged: a client's word would spare its own, or use up what others share."""
        return self.usd if self.known_usd is None else self.known_usd

    def plus(self, more: "Cost") -> "Cost":
        """Both together, of one source."""
        known_usd = self.charged_usd + more.charged_usd
        is_known = self.known_usd is None and more.known_usd is None
        usd, estimated = self.usd + more.usd, self.estimated or more.estimated
        return Cost(usd, self.source, estimated, None if is_known else known_usd, self.is_capped or more.is_capped)


class BodyPreviews(msgspec.Struct, gc=False):
    """The beginnings of request and answer: whoever stores them redacts them first."""

    request: bytes
    answer: bytes
    are_redacted: bool = False
    """Done once, by whichever observer's thread is the first: nothing that is done for an entry takes as long."""


class SentSecrets(msgspec.Struct, frozen=True, gc=False):
    """What a request carried its secrets in. Not to be kept anywhere, but to know them by when they come back."""

    headers: Mapping[str, str]
    """Their names in lower case."""
    query: str
    """The endpoint's."""
    key: StoredKey | None
    """The gateway's, where it was used instead of the client's."""


NO_TOKENS: Final = Usage(input_tokens=0, output_tokens=0)


class SessionTotals(msgspec.Struct, frozen=True):
    """A realtime session's two directions, and how it ended. Bytes are those of messages, without frames."""

    messages_from_client: int
    messages_from_provider: int
    bytes_from_client: int
    bytes_from_provider: int
    closed_by: Literal["client", "provider", "bridge"]
    close_code: int
    """That this one gave; 1005 for a goodbye without one, 1006 for none (RFC 6455, section 7.4.1)."""


class EventSummary(msgspec.Struct, frozen=True, gc=False):
    """No header's value but those that are named here, no URL's query; but for `sent`."""

    log_id: str
    event_id: str | int
    account: str
    gateway: str
    """As the client called it."""
    token: str
    """The name of the token that was presented; empty where the gateway is open."""
    transport: Transport
    created_at_ns: int
    """Wall clock, since 1970."""
    duration_ms: float
    first_answer_ms: float | None
    """From the event's beginning to its first answer item; None when there was none."""
    added_ms: float | None
    """From the event's beginning to the first provider call: what the bridge itself took. None without a call."""
    step: int
    provider: str | None
    """A slug; None when no step could be planned."""
    model: str | None
    method: str | None
    path: str | None
    """Below the provider's base URL, without query."""
    url: str | None
    """The base URL that was called: the key to its price."""
    status: int
    success: bool
    code: int | None
    """The error's; None for a success."""
    reason: str | None
    cached: bool
    byok_alias: str | None
    """Of the stored key that was used."""
    request_content_type: str
    answer_content_type: str
    request_bytes: int
    answer_bytes: int
    chunks: int
    usage: Usage | None
    cost: Cost | None
    attempts: list[dict[str, object]]
    attempt_times_ms: list[tuple[float, float]]
    """Of each attempt, when it began and ended, from the event's beginning."""
    settings: StepSettings
    """The first step's: they hold what is the whole event's."""
    traceparent: str
    """That header of the first step, else of the handshake or the HTTP request; empty without."""
    bodies: BodyPreviews | None
    """None where they are not to be kept."""
    sent: tuple[SentSecrets, ...]
    """Of each step that was tried: what one of them tells back may stand in the reason of an attempt, whichever
    answered."""
    log_rows: int
    """As `config.Gateway` has it, like the next one, when the event ended."""
    log_strategy: LogStrategy
    log_is_shared: bool
    """The gateway has several tokens, so that none may fill its log alone."""
    otel: tuple[OtelExporter, ...]
    """Where the gateway wants its spans, likewise."""
    warnings: list[str]
    realtime: SessionTotals | None = None
    """Of a realtime session: in place of `chunks`, which are none."""

    @property
    def is_refused(self) -> bool:
        """It failed before a provider was called: such events cost nothing, and a client can send any number."""
        return not self.success and self.added_ms is None

    @property
    def used(self) -> Usage | None:
        """The tokens that a provider was asked for: what the cache gave took none, whatever `usage` tells of it."""
        return NO_TOKENS if self.cached else self.usage


class Observer(Protocol):
    def on_event_end(self, summary: EventSummary) -> None:
        """A plain call that cannot block, and does not fail."""
