"""An event as spans: one for all of it, below that one for each attempt.

Names are those of OpenTelemetry's conventions for generative AI (opentelemetry.io/docs/specs/semconv/gen-ai, 1.41; they
are not stable yet), of Cloudflare's exporter (developers.cloudflare.com/ai-gateway/observability/otel-integration), and
`bridge.*` for what is our own. Needs the extra `otel`.
"""

from collections.abc import Mapping
from functools import lru_cache
from random import getrandbits
from typing import Final
from urllib.parse import urlsplit

from msgspec.structs import asdict
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from bridge import __version__, redact
from bridge.policy.trace_context import TraceContext
from bridge.relay.entry import Entry
from bridge.services.journal_rows import row_of

Attributes = dict[str, AttributeValue]

_SCOPE: Final = InstrumentationScope("bridge", __version__)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)
_NS_PER_MS: Final = 1_000_000

MAX_CHARS: Final = 2048
"""Of one text, but for bodies, which have a bound of their own."""

_OPERATIONS: Final = (
    ("chat/completions", "chat"),
    ("embeddings", "embeddings"),
    ("completions", "text_completion"),
    ("messages", "chat"),
    ("responses", "chat"),
    ("/chat", "chat"),
    ("/converse", "chat"),
    ("/converse-stream", "chat"),
    (":generatecontent", "generate_content"),
    (":streamgeneratecontent", "generate_content"),
    (":embedcontent", "embeddings"),
)
"""How paths end, in lower case, and what is done there. The first that fits."""
_OTHER_OPERATION: Final = "request"
_LONGEST_END: Final = max(len(end) for end, _ in _OPERATIONS)

_PROVIDERS: Final = {
    "aws-bedrock": "aws.bedrock",
    "azure-openai": "azure.ai.openai",
    "google-ai-studio": "gcp.gemini",
    "google-vertex-ai": "gcp.vertex_ai",
    "grok": "x_ai",
    "mistral": "mistral_ai",
    "perplexity-ai": "perplexity",
}
"""Where the conventions have a name other than our slug."""


_OURS: Final = ("gen_ai.", "bridge.", "server.", "http.", "error.")
"""How names begin that a client's metadata cannot have: what it says would pass for what we say."""


class EventSpan(ReadableSpan):
    """The bodies become attributes when they are asked for, which is in the exporter's thread: to redact takes time."""

    entry: Entry

    @property
    def attributes(self) -> Mapping[str, AttributeValue] | None:
        row = row_of(self.entry)
        said = {"gen_ai.prompt_json": row.request_head, "gen_ai.completion_json": row.response_head}
        return {**(super().attributes or {}), **{name: text for name, text in said.items() if text is not None}}


def weight(span: ReadableSpan) -> int:
    """Of the bodies that it holds, in bytes."""
    bodies = span.entry.bodies if isinstance(span, EventSpan) else None
    return len(bodies.request) + len(bodies.answer) if bodies else 0


def spans_of(entry: Entry, context: TraceContext, resource: Resource) -> list[ReadableSpan]:
    """With the SDK's own type, which it takes from its tracer, too: to start and end a span there costs ten times as
    much, and knows no trace that somebody else has named.
    """
    own = _span_context(context.trace_id)
    parent = None if context.parent_id is None else _span_context(context.trace_id, context.parent_id)
    kind = EventSpan if entry.bodies is not None else ReadableSpan
    span = kind(
        name=str(_sendable(_name(entry))),
        context=own,
        parent=parent,
        resource=resource,
        attributes={str(_sendable(name)): _sendable(value) for name, value in _attributes(entry).items()},
        kind=SpanKind.CLIENT,
        instrumentation_scope=_SCOPE,
        status=_status(entry.code, entry.reason),
        start_time=entry.created_at_ns,
        end_time=entry.created_at_ns + int(entry.duration_ms * _NS_PER_MS),
    )
    if isinstance(span, EventSpan):
        span.entry = entry
    return [span, *(_attempt(entry, number, own, resource) for number in range(len(entry.attempts)))]


def _attempt(entry: Entry, number: int, parent: SpanContext, resource: Resource) -> ReadableSpan:
    attempt, (began_ms, ended_ms) = entry.attempts[number], entry.attempt_times_ms[number]
    slug, code = str(attempt["provider"]), attempt.get("code")
    attributes: Attributes = {
        "gen_ai.provider.name": _PROVIDERS.get(slug, slug),
        "bridge.step": str(attempt["step"]),
        "bridge.attempt": number,
    }
    if isinstance(status := attempt.get("status"), int):
        attributes["http.response.status_code"] = status
    if code is not None:
        attributes["error.type"] = str(code)
    return ReadableSpan(
        name=f"attempt {slug}",
        context=_span_context(parent.trace_id),
        parent=parent,
        resource=resource,
        attributes=attributes,
        kind=SpanKind.CLIENT,
        instrumentation_scope=_SCOPE,
        status=_status(code, attempt.get("reason")),
        start_time=entry.created_at_ns + int(began_ms * _NS_PER_MS),
        end_time=entry.created_at_ns + int(ended_ms * _NS_PER_MS),
    )


def _attributes(entry: Entry) -> Attributes:
    given = entry.settings.metadata or {}
    found: Attributes = {name: value for name, value in given.items() if not name.startswith(_OURS)}
    usage, cost = entry.usage, entry.cost
    address, port = _server(entry.url or "")
    optional: dict[str, AttributeValue | None] = {
        "gen_ai.provider.name": _PROVIDERS.get(entry.provider or "", entry.provider),
        "gen_ai.model.provider": entry.provider,
        "gen_ai.request.model": entry.model,
        "gen_ai.usage.input_tokens": usage.input_tokens if usage else None,
        "gen_ai.usage.output_tokens": usage.output_tokens if usage else None,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens if usage else None,
        "gen_ai.usage.cost": cost.usd if cost else None,
        "server.address": address,
        "server.port": port,
        "error.type": None if entry.code is None else str(entry.code),
        "bridge.token": entry.token or None,
        "bridge.byok_alias": entry.byok_alias,
    }
    found.update((name, value) for name, value in optional.items() if value is not None)
    if entry.realtime is not None:
        found.update((f"bridge.realtime.{name}", value) for name, value in asdict(entry.realtime).items())
    if entry.chunks and entry.first_answer_ms is not None:
        found["gen_ai.response.time_to_first_chunk"] = entry.first_answer_ms / 1000
    return found | {
        "gen_ai.operation.name": _operation_of(entry),
        "gen_ai.request.stream": entry.chunks > 0,
        "http.response.status_code": entry.status,
        "bridge.gateway": entry.gateway,
        "bridge.event_id": str(entry.event_id),
        "bridge.log_id": entry.log_id,
        "bridge.step": str(entry.step),
        "bridge.transport": entry.transport,
        "bridge.cached": entry.cached,
    }


def _name(entry: Entry) -> str:
    operation = _operation_of(entry)
    return f"{operation} {entry.model}" if entry.model else operation


def _operation_of(entry: Entry) -> str:
    return _operation(f"/{entry.path or ''}"[-_LONGEST_END:])


@lru_cache(maxsize=256)
def _operation(end_of_path: str) -> str:
    lowered = end_of_path.lower()
    return next((name for end, name in _OPERATIONS if lowered.endswith(end)), _OTHER_OPERATION)


@lru_cache(maxsize=256)
def _server(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    return parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _status(code: object, reason: object) -> Status:
    return _UNSET if code is None else Status(StatusCode.ERROR, redact.text(str(reason)[:MAX_CHARS]))


def _sendable(value: AttributeValue) -> AttributeValue:
    """As OTLP can carry it: no endless text, no half of a character, no integer of more than 64 bits."""
    if isinstance(value, str):
        return value[:MAX_CHARS].encode(errors="replace").decode()
    return str(value)[:MAX_CHARS] if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


def _span_context(trace_id: int, span_id: int | None = None) -> SpanContext:
    return SpanContext(trace_id, span_id or getrandbits(64) or 1, is_remote=span_id is not None, trace_flags=_SAMPLED)
