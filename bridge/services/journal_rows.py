"""An event's row in the request log: what it is made of, and what has to be taken out of it first."""

import json
from functools import lru_cache
from typing import Final

import orjson

from bridge import redact
from bridge.relay.entry import Entry
from bridge.services.told_back import known_of, shown, shown_metadata, shown_text
from bridge.storage.request_schema import Row
from bridge.upstream.known_secrets import Known
from bridge.upstream.tape_redaction import masked
from bridge.wire.usage import Usage

MAX_CHARS: Final = 2048
"""Of a text that comes from outside and has no bound of its own."""
MAX_KEPT: Final = 256
"""Paths that came of late, which need not be taken apart anew. They stay in memory alone."""

_UNTOLD: Final = Usage()

_path = lru_cache(MAX_KEPT)(redact.url)


def row_of(entry: Entry) -> Row:
    """Takes some microseconds, and more the longer the bodies are."""
    cost, bodies, known, talk = entry.cost, entry.bodies, known_of(entry.sent), entry.realtime
    request_head, response_head = heads_of(entry)
    usage = entry.used or _UNTOLD
    return Row(
        id=entry.log_id,
        created_at=entry.created_at_ns // 1_000_000,
        account=shown_text(entry.account, known),
        gateway=entry.gateway,
        token=entry.token or None,
        request_type=entry.transport,
        event_id=shown_text(str(entry.event_id), known),
        provider=entry.provider,
        model=entry.model and shown_text(entry.model, known),
        method=entry.method,
        path=entry.path and _path(entry.path[:MAX_CHARS]),
        step=entry.step,
        status_code=entry.status,
        success=entry.success,
        cached=entry.cached,
        duration=round(entry.duration_ms, 3),
        first_answer=_rounded(entry.first_answer_ms),
        added=_rounded(entry.added_ms),
        chunks=entry.chunks,
        tokens_in=usage.input_tokens,
        tokens_out=usage.output_tokens,
        tokens_cached=usage.cached_tokens,
        tokens_cache_write=usage.cache_write_tokens,
        cost=None if cost is None else cost.usd,
        cost_source=None if cost is None else cost.source,
        cost_estimated=cost is not None and cost.estimated,
        byok=entry.byok_alias,
        code=entry.code,
        reason=entry.reason and shown(entry.reason, known),
        metadata=_json(shown_metadata(entry.settings.metadata, known)),
        attempts=_json([_attempt(each, known) for each in entry.attempts]),
        warnings=_json([shown_text(each, known) for each in entry.warnings]),
        request_content_type=entry.request_content_type[:MAX_CHARS] or None,
        request_size=entry.request_bytes,
        request_head_complete=bodies is not None and len(bodies.request) == entry.request_bytes,
        response_content_type=entry.answer_content_type[:MAX_CHARS] or None,
        response_size=entry.answer_bytes,
        response_head_complete=bodies is not None and len(bodies.answer) == entry.answer_bytes,
        request_head=request_head,
        response_head=response_head,
        tokens_in_audio=usage.input_audio_tokens,
        tokens_out_audio=usage.output_audio_tokens,
        messages_from_client=None if talk is None else talk.messages_from_client,
        messages_from_provider=None if talk is None else talk.messages_from_provider,
        closed_by=None if talk is None else talk.closed_by,
        close_code=None if talk is None else talk.close_code,
        refused=entry.is_refused,
    )


def heads_of(entry: Entry) -> tuple[str | bytes | None, str | bytes | None]:
    """The beginnings of both bodies, redacted; None where they are not kept, bytes where one is no text."""
    bodies = entry.bodies
    if bodies is None:
        return None, None
    if not bodies.are_redacted:  # two threads may do it at a time: what is masked twice is as it was
        known = known_of(entry.sent)
        bodies.request = _redacted(bodies.request, entry.request_bytes, known)
        bodies.answer = _redacted(bodies.answer, entry.answer_bytes, known)
        bodies.are_redacted = True
    return _text(bodies.request), _text(bodies.answer)


def storable(row: Row) -> Row:
    """The same row without what SQLite takes in no text: half a character, which a header may hold."""
    return Row._make(value.encode(errors="replace").decode() if isinstance(value, str) else value for value in row)


def weight(entry: Entry) -> int:
    """About how many bytes of memory it holds."""
    held = 4096 + 512 * len(entry.attempts) + len(entry.path or "")
    if entry.bodies is not None:
        held += len(entry.bodies.request) + len(entry.bodies.answer)
    for each in entry.sent:
        held += len(each.query) + sum(map(len, each.headers.values()))
    return held


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)


def _json(value: object) -> str | None:
    try:
        return orjson.dumps(value).decode() if value else None
    except TypeError:  # half a character, or a number that is too long for it
        return json.dumps(value)


def _redacted(head: bytes, size: int, known: Known) -> bytes:
    """The beginning of a body of so many bytes; it stays as long as it is."""
    return masked(head if len(head) == size else known.hidden_where_cut(head), known)


def _text(body: bytes) -> str | bytes:
    """As text, where it is one; it may have been cut inside a character."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        is_cut = error.reason == "unexpected end of data"
        return body[: error.start].decode() if is_cut else body


def _attempt(attempt: dict[str, object], known: Known) -> dict[str, object]:
    return attempt | {"reason": shown(str(attempt["reason"]), known)} if "reason" in attempt else attempt
