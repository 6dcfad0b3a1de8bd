"""Convert an event to spans: one for the event, with a child for each attempt.

Names follow OpenTelemetry's conventions for generative AI (opentelemetry.io/docs/specs/semconv/gen-ai, 1.41, not stable
yet) and Cloudflare's exporter (developers.cloudflare.com/ai-gateway/observability/otel-integration); the bridge's own
attributes begin with `bridge.`. `exporters` sends the spans.
"""

from functools import lru_cache
from random import getrandbits
from typing import Final
from urllib.parse import urlsplit

import msgspec

from bridge.redact.known_secrets import KnownSecrets
from bridge.relay.summary import EventSummary
from bridge.services.request_log.rows import redacted_previews
from bridge.services.secret_scrubbing import known_secrets_of, scrub_metadata, scrub_reason, scrub_text
from bridge.services.tracing.context import TraceContext

Attribute = bool | int | float | str
Attributes = dict[str, Attribute]

_NS_PER_MS: Final = 1_000_000

MAX_CHARS: Final = 2048
"""Maximal length of a text, except for bodies, which have a bound of their own."""

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
"""The operation by the suffix of the path in lower case. The first match counts."""
_OTHER_OPERATION: Final = "request"
_MAX_SUFFIX_CHARS: Final = max(len(end) for end, _ in _OPERATIONS)

_PROVIDERS: Final = {
    "aws-bedrock": "aws.bedrock",
    "azure-openai": "azure.ai.openai",
    "google-ai-studio": "gcp.gemini",
    "google-vertex-ai": "gcp.vertex_ai",
    "grok": "x_ai",
    "mistral": "mistral_ai",
    "perplexity-ai": "perplexity",
}
"""Provider names of the conventions that differ from the bridge's slugs."""


_RESERVED_PREFIXES: Final = ("gen_ai.", "bridge.", "server.", "http.", "error.")
"""Prefixes that names in a client's metadata may not have, so that it cannot imitate the bridge's attributes."""


class Span(msgspec.Struct, frozen=True, gc=False):
    """A finished, sampled span of SpanKind.CLIENT."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    has_remote_parent: bool
    attributes: Attributes
    failure: str | None
    """The reason of a failure; None if nothing failed."""
    start_ns: int
    """Nanoseconds since 1970, like the next."""
    end_ns: int


def spans_of(summary: EventSummary, context: TraceContext) -> list[Span]:
    """Return the span of the event, then those of its attempts. Takes some microseconds, more with longer bodies."""
    event = Span(
        _otlp_text(_name(summary)),
        context.trace_id,
        _new_id(),
        context.parent_id,
        context.parent_id is not None,
        _attributes(summary),
        _failure(summary, summary.code, summary.reason),
        summary.created_at_ns,
        summary.created_at_ns + int(summary.duration_ms * _NS_PER_MS),
    )
    return [event, *(_attempt(summary, number, event) for number in range(len(summary.attempts)))]


def _attempt(summary: EventSummary, number: int, parent: Span) -> Span:
    attempt, (began_ms, ended_ms) = summary.attempts[number], summary.attempt_times_ms[number]
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
    return Span(
        f"attempt {slug}",
        parent.trace_id,
        _new_id(),
        parent.span_id,
        False,
        attributes,
        _failure(summary, code, attempt.get("reason")),
        summary.created_at_ns + int(began_ms * _NS_PER_MS),
        summary.created_at_ns + int(ended_ms * _NS_PER_MS),
    )


def _attributes(summary: EventSummary) -> Attributes:
    known = known_secrets_of(summary.sent)
    metadata = scrub_metadata(summary.settings.metadata, known)
    attributes: Attributes = {
        _otlp_text(name): _otlp_value(value)
        for name, value in metadata.items()
        if not name.startswith(_RESERVED_PREFIXES)
    }
    attributes.update(
        (name, _otlp_value(value)) for name, value in _bridge_attributes(summary, known).items() if value is not None
    )
    prompt, completion = redacted_previews(summary)
    if isinstance(prompt, str):
        attributes["gen_ai.prompt_json"] = prompt
    if isinstance(completion, str):
        attributes["gen_ai.completion_json"] = completion
    return attributes


def _bridge_attributes(summary: EventSummary, known: KnownSecrets) -> dict[str, Attribute | None]:
    """Return the bridge's attributes; None marks an attribute that is left out."""
    usage, cost = summary.used, summary.cost
    address, port = _server(summary.url or "")
    is_stream = summary.chunks > 0
    first_s = summary.first_answer_ms / 1000 if is_stream and summary.first_answer_ms is not None else None
    return {
        "gen_ai.provider.name": _PROVIDERS.get(summary.provider or "", summary.provider),
        "gen_ai.model.provider": summary.provider,
        "gen_ai.request.model": summary.model and scrub_text(summary.model, known),
        "gen_ai.request.stream": is_stream,
        "gen_ai.response.time_to_first_chunk": first_s,
        "gen_ai.operation.name": _operation_of(summary),
        "gen_ai.usage.input_tokens": usage.input_tokens if usage else None,
        "gen_ai.usage.output_tokens": usage.output_tokens if usage else None,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens if usage else None,
        "gen_ai.usage.cost": cost.charged_usd if cost else None,
        "server.address": address,
        "server.port": port,
        "http.response.status_code": summary.status,
        "error.type": None if summary.code is None else str(summary.code),
        "bridge.gateway": summary.gateway,
        "bridge.token": summary.token or None,
        "bridge.byok_alias": summary.byok_alias,
        "bridge.event_id": scrub_text(str(summary.event_id), known),
        "bridge.log_id": summary.log_id,
        "bridge.step": str(summary.step),
        "bridge.transport": summary.transport,
        "bridge.cached": summary.cached,
        **_conversation(summary),
    }


def _conversation(summary: EventSummary) -> Attributes:
    """Return the attributes of a realtime session; none for other events."""
    totals = {} if summary.realtime is None else msgspec.structs.asdict(summary.realtime)
    return {f"bridge.server.realtime.{name}": value for name, value in totals.items()}


def _name(summary: EventSummary) -> str:
    operation = _operation_of(summary)
    return f"{operation} {scrub_text(summary.model, known_secrets_of(summary.sent))}" if summary.model else operation


def _operation_of(summary: EventSummary) -> str:
    return _operation(f"/{summary.path or ''}"[-_MAX_SUFFIX_CHARS:])


@lru_cache(maxsize=256)
def _operation(end_of_path: str) -> str:
    lowered = end_of_path.lower()
    return next((name for end, name in _OPERATIONS if lowered.endswith(end)), _OTHER_OPERATION)


@lru_cache(maxsize=256)
def _server(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    return parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _failure(summary: EventSummary, code: object, reason: object) -> str | None:
    return None if code is None else scrub_reason(str(reason), known_secrets_of(summary.sent))


def _otlp_value(value: Attribute) -> Attribute:
    """Return the value as OTLP supports it: bounded text without lone surrogates, integers of at most 64 bits."""
    if isinstance(value, str):
        return _otlp_text(value)
    return str(value)[:MAX_CHARS] if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


def _otlp_text(text: str) -> str:
    if text.isascii() and len(text) <= MAX_CHARS:
        return text
    return text[:MAX_CHARS].encode(errors="replace").decode()


def _new_id() -> int:
    return getrandbits(64) or 1
