"""An event as spans: one for all of it, below that one for each attempt.

Names are those of OpenTelemetry's conventions for generative AI (opentelemetry.io/docs/specs/semconv/gen-ai, 1.41; they
are not stable yet), of Cloudflare's exporter (developers.cloudflare.com/ai-gateway/observability/otel-integration), and
`bridge.*` for what is our own. What carries them is `exporters`' work.
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


class Span(msgspec.Struct, frozen=True, gc=False):
    """Of a client's kind (SpanKind.CLIENT), whole and sampled."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    has_remote_parent: bool
    attributes: Attributes
    failure: str | None
    """Why; None where nothing failed."""
    start_ns: int
    """Since 1970, like the next."""
    end_ns: int


def spans_of(summary: EventSummary, context: TraceContext) -> list[Span]:
    """The event's first. Takes some microseconds, and more the longer the bodies are."""
    event = Span(
        _sendable_text(_name(summary)),
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
    given = scrub_metadata(summary.settings.metadata, known)
    found: Attributes = {
        _sendable_text(name): _sendable(value) for name, value in given.items() if not name.startswith(_OURS)
    }
    found.update((name, _sendable(value)) for name, value in _own(summary, known).items() if value is not None)
    prompt, completion = redacted_previews(summary)
    if isinstance(prompt, str):
        found["gen_ai.prompt_json"] = prompt
    if isinstance(completion, str):
        found["gen_ai.completion_json"] = completion
    return found


def _own(summary: EventSummary, known: KnownSecrets) -> dict[str, Attribute | None]:
    """None is no attribute."""
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
    """A realtime session's."""
    told = {} if summary.realtime is None else msgspec.structs.asdict(summary.realtime)
    return {f"bridge.server.realtime.{name}": value for name, value in told.items()}


def _name(summary: EventSummary) -> str:
    operation = _operation_of(summary)
    return f"{operation} {scrub_text(summary.model, known_secrets_of(summary.sent))}" if summary.model else operation


def _operation_of(summary: EventSummary) -> str:
    return _operation(f"/{summary.path or ''}"[-_LONGEST_END:])


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


def _sendable(value: Attribute) -> Attribute:
    """As OTLP can carry it: no endless text, no half of a character, no integer of more than 64 bits."""
    if isinstance(value, str):
        return _sendable_text(value)
    return str(value)[:MAX_CHARS] if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


def _sendable_text(text: str) -> str:
    if text.isascii() and len(text) <= MAX_CHARS:
        return text
    return text[:MAX_CHARS].encode(errors="replace").decode()


def _new_id() -> int:
    return getrandbits(64) or 1
