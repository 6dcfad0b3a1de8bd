"""Make the request log's row of an event, with secrets removed. Pure."""

import json
from functools import lru_cache
from typing import Final

import orjson

from bridge.formats.usage import Usage
from bridge.redact.body import mask_body
from bridge.redact.known_secrets import KnownSecrets
from bridge.redact.text import redact_url
from bridge.relay.summary import EventSummary
from bridge.services.request_log.schema import LogRow
from bridge.services.secret_scrubbing import known_secrets_of, scrub_metadata, scrub_reason, scrub_text

MAX_CHARS: Final = 2048
"""Maximal length of an untrusted text without a bound of its own."""
MAX_KEPT: Final = 256
"""Recent paths whose redaction is cached, in memory only."""

_UNKNOWN_USAGE: Final = Usage()

_path = lru_cache(MAX_KEPT)(redact_url)


def row_of(summary: EventSummary) -> LogRow:
    """Return the redacted row. This takes some microseconds, and more with longer bodies."""
    cost, bodies, known, realtime = summary.cost, summary.bodies, known_secrets_of(summary.sent), summary.realtime
    request_head, response_head = redacted_previews(summary)
    usage = summary.used or _UNKNOWN_USAGE
    return LogRow(
        id=summary.log_id,
        created_at=summary.created_at_ns // 1_000_000,
        account=scrub_text(summary.account, known),
        gateway=summary.gateway,
        token=summary.token or None,
        request_type=summary.transport,
        event_id=scrub_text(str(summary.event_id), known),
        provider=summary.provider,
        model=summary.model and scrub_text(summary.model, known),
        method=summary.method,
        path=summary.path and _path(summary.path[:MAX_CHARS]),
        step=summary.step,
        status_code=summary.status,
        success=summary.success,
        cached=summary.cached,
        duration=round(summary.duration_ms, 3),
        first_answer=_rounded(summary.first_answer_ms),
        added=_rounded(summary.added_ms),
        chunks=summary.chunks,
        tokens_in=usage.input_tokens,
        tokens_out=usage.output_tokens,
        tokens_cached=usage.cached_tokens,
        tokens_cache_write=usage.cache_write_tokens,
        cost=None if cost is None else cost.usd,
        cost_source=None if cost is None else cost.source,
        cost_estimated=cost is not None and cost.estimated,
        byok=summary.byok_alias,
        code=summary.code,
        reason=summary.reason and scrub_reason(summary.reason, known),
        metadata=_json(scrub_metadata(summary.settings.metadata, known)),
        attempts=_json([_attempt(each, known) for each in summary.attempts]),
        warnings=_json([scrub_text(each, known) for each in summary.warnings]),
        request_content_type=summary.request_content_type[:MAX_CHARS] or None,
        request_size=summary.request_bytes,
        request_head_complete=bodies is not None and len(bodies.request) == summary.request_bytes,
        response_content_type=summary.answer_content_type[:MAX_CHARS] or None,
        response_size=summary.answer_bytes,
        response_head_complete=bodies is not None and len(bodies.answer) == summary.answer_bytes,
        request_head=request_head,
        response_head=response_head,
        tokens_in_audio=usage.input_audio_tokens,
        tokens_out_audio=usage.output_audio_tokens,
        messages_from_client=None if realtime is None else realtime.messages_from_client,
        messages_from_provider=None if realtime is None else realtime.messages_from_provider,
        closed_by=None if realtime is None else realtime.closed_by,
        close_code=None if realtime is None else realtime.close_code,
        refused=summary.is_refused,
    )


def redacted_previews(summary: EventSummary) -> tuple[str | bytes | None, str | bytes | None]:
    """Return the redacted beginnings of both bodies: None if they are not kept, bytes if one is not text."""
    bodies = summary.bodies
    if bodies is None:
        return None, None
    if not bodies.are_redacted:  # two threads may do this at the same time: redaction is idempotent
        known = known_secrets_of(summary.sent)
        bodies.request = _redacted(bodies.request, summary.request_bytes, known)
        bodies.answer = _redacted(bodies.answer, summary.answer_bytes, known)
        bodies.are_redacted = True
    return _text(bodies.request), _text(bodies.answer)


def storable(row: LogRow) -> LogRow:
    """Return the row without lone surrogates, which a header may hold and SQLite does not accept in text."""
    return LogRow._make(value.encode(errors="replace").decode() if isinstance(value, str) else value for value in row)


def memory_bytes(summary: EventSummary) -> int:
    """Return the estimated memory of an event in bytes."""
    size = 4096 + 512 * len(summary.attempts) + len(summary.path or "")
    if summary.bodies is not None:
        size += len(summary.bodies.request) + len(summary.bodies.answer)
    for secrets in summary.sent:
        size += len(secrets.query) + sum(map(len, secrets.headers.values()))
    return size


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)


def _json(value: object) -> str | None:
    try:
        return orjson.dumps(value).decode() if value else None
    except TypeError:  # a lone surrogate, or an integer of more than 64 bits
        return json.dumps(value)


def _redacted(head: bytes, size: int, known: KnownSecrets) -> bytes:
    """Mask secrets in the beginning of a body of `size` bytes, without changing its length."""
    return mask_body(head if len(head) == size else known.mask_cut_end(head), known)


def _text(body: bytes) -> str | bytes:
    """Return the body as text if it is text; a character cut at its end is dropped."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        is_cut = error.reason == "unexpected end of data"
        return body[: error.start].decode() if is_cut else body


def _attempt(attempt: dict[str, object], known: KnownSecrets) -> dict[str, object]:
    return attempt | {"reason": scrub_reason(str(attempt["reason"]), known)} if "reason" in attempt else attempt
