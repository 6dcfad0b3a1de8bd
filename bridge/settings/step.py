"""The settings of one step, and the table that describes each.

The headers and the ranges of their values are Cloudflare's (developers.cloudflare.com/ai-gateway: request handling,
caching, logging, custom costs, stored keys); settings without a header are the bridge's own.
"""

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from bridge.settings.accounting import CustomCost, CustomCosts, Metadata, MetadataEntries
from bridge.settings.kinds import LONGEST_MS, Choice, Converter, Flag, Number, NumberOrZero, Pattern


class StepSettings(msgspec.Struct, frozen=True, gc=False):
    """Values of the settings of one step; `SETTINGS` describes each.

    Times are milliseconds; 0 means no limit for the four timeouts.
    """

    connect_timeout: int = 10_000
    request_timeout: int = 600_000
    idle_timeout: int = 300_000
    total_timeout: int = 3_600_000
    max_attempts: int = 1
    retry_delay: int = 500
    backoff: Literal["constant", "linear", "exponential"] = "exponential"
    max_retry_after: int = 10_000
    on_break: Literal["error", "restart"] = "error"
    on_policy: Literal["answer", "next"] = "answer"
    frames: Literal["items", "raw"] = "items"
    cache_ttl: int | None = None
    skip_cache: bool = False
    cache_key: str | None = None
    byok_alias: str = "default"
    collect_log: bool = True
    collect_log_payload: bool = True
    metadata: Metadata | None = None
    custom_cost: CustomCost | None = None
    otel_trace_id: str | None = None
    otel_parent_span_id: str | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table of step settings."""

    name: str
    """The name in StepSettings and in a gateway's table of the configuration file."""
    wire: str
    """The name in a message's `config`."""
    header: str | None
    """The request header that also sets it, lower case."""
    default: int | str | None
    kind: Converter
    help: str
    old_header: str | None = None
    """Another name of the header that Cloudflare still accepts."""
    of_event: bool = False
    """True if it applies to the whole event: the value of the first step counts."""
    of_gateway: bool = True
    """True if a gateway may set it."""


_MONTH_S: Final = 2_592_000

_MS: Final = Number(0, LONGEST_MS, "milliseconds")

SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "connect_timeout",
        "connectTimeout",
        None,
        10_000,
        _MS,
        "Longest time to connect to the provider, TLS included. 0: no limit.",
    ),
    Setting(
        "request_timeout",
        "requestTimeout",
        "cf-aig-request-timeout",
        600_000,
        _MS,
        "Longest time to the first item of an answer; headers, comments and bookkeeping do not count. 0: no limit.",
    ),
    Setting(
        "idle_timeout",
        "idleTimeout",
        None,
        300_000,
        _MS,
        "Longest silence of a stream; any byte ends the silence. 0: no limit.",
    ),
    Setting(
        "total_timeout",
        "totalTimeout",
        None,
        3_600_000,
        _MS,
        "Longest time of the whole event, with all its steps and retries. 0: no limit.",
    ),
    Setting(
        "max_attempts",
        "maxAttempts",
        "cf-aig-max-attempts",
        1,
        Number(1, 5),
        "Attempts per step, 1 to 5. A retry after the request was sent may be billed twice.",
    ),
    Setting(
        "retry_delay",
        "retryDelay",
        "cf-aig-retry-delay",
        500,
        Number(0, 5000, "milliseconds"),
        "Wait before the first retry, varied by up to 20 %.",
    ),
    Setting(
        "backoff",
        "backoff",
        "cf-aig-backoff",
        "exponential",
        Choice(("constant", "linear", "exponential")),
        "Growth of the wait between retries: `constant`, `linear` or `exponential`.",
    ),
    Setting(
        "max_retry_after",
        "maxRetryAfter",
        None,
        10_000,
        _MS,
        "Longest wait that a provider's `Retry-After` may request; if it requests more, the step is not retried.",
    ),
    Setting(
        "on_break",
        "onBreak",
        None,
        "error",
        Choice(("error", "restart")),
        "After a break of a stream that had answered: `error` ends the event, `restart` starts the next step.",
    ),
    Setting(
        "on_policy",
        "onPolicy",
        None,
        "answer",
        Choice(("answer", "next")),
        "After a content-policy refusal: `answer` returns it, `next` tries the next step.",
    ),
    Setting(
        "frames",
        "frames",
        None,
        "items",
        Choice(("items", "raw")),
        "Content of a stream's frames: `items`, one item each; `raw`, a part of the provider's body as it came.",
    ),
    Setting(
        "cache_ttl",
        "cacheTtl",
        "cf-aig-cache-ttl",
        None,
        NumberOrZero(Number(60, _MONTH_S, "seconds")),
        "Seconds that an answer is served from the cache. 0 or not set: the cache is off.",
        old_header="cf-cache-ttl",
    ),
    Setting(
        "skip_cache",
        "skipCache",
        "cf-aig-skip-cache",
        False,
        Flag(),
        "Do not read from the cache and do not store in it.",
        old_header="cf-skip-cache",
        of_gateway=False,
    ),
    Setting(
        "cache_key",
        "cacheKey",
        "cf-aig-cache-key",
        None,
        Pattern(r"[^\x00-\x1f]{1,1024}", "a key of 1 to 1024 characters"),
        "Cache key of the answer, in place of the content of the request; with it the cache is on for 5 minutes "
        "where no cache_ttl is set.",
        of_gateway=False,
    ),
    Setting(
        "byok_alias",
        "byokAlias",
        "cf-aig-byok-alias",
        "default",
        Pattern(r"[A-Za-z0-9_-]{1,64}", "an alias of 1 to 64 of A-Z a-z 0-9 _ -"),
        "Alias of the gateway's stored key that is used if the request brings no key.",
    ),
    Setting(
        "collect_log",
        "collectLog",
        "cf-aig-collect-log",
        True,
        Flag(),
        "Write a row of the request log for the event.",
        of_event=True,
    ),
    Setting(
        "collect_log_payload",
        "collectLogPayload",
        "cf-aig-collect-log-payload",
        True,
        Flag(),
        "Store the bodies of request and answer in that row, redacted and bounded.",
        of_event=True,
    ),
    Setting(
        "metadata",
        "metadata",
        "cf-aig-metadata",
        None,
        MetadataEntries(),
        "Up to five entries by which the event's row can be found: strings, numbers, booleans.",
        of_event=True,
    ),
    Setting(
        "custom_cost",
        "customCost",
        "cf-aig-custom-cost",
        None,
        CustomCosts(),
        "Price per token, or of the whole event, in US dollars, in place of the known price.",
    ),
    Setting(
        "otel_trace_id",
        "otelTraceId",
        "cf-aig-otel-trace-id",
        None,
        Pattern(r"(?!0{32})[0-9A-Fa-f]{32}", "a trace id of 32 hexadecimal digits"),
        "Trace of the event's span.",
        of_event=True,
        of_gateway=False,
    ),
    Setting(
        "otel_parent_span_id",
        "otelParentSpanId",
        "cf-aig-otel-parent-span-id",
        None,
        Pattern(r"(?!0{16})[0-9A-Fa-f]{16}", "a span id of 16 hexadecimal digits"),
        "Parent span of the event's span.",
        of_event=True,
        of_gateway=False,
    ),
)
