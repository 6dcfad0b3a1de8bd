"""Make rows of a request log for tests."""

from typing import Any

from bridge.protocol.ids import uuid7
from bridge.services.request_log.schema import LogRow

BEGAN_MS = 1_700_000_000_000

_ROW = LogRow(
    id="",
    created_at=0,
    account="account",
    gateway="gateway",
    token=None,
    request_type="websocket",
    event_id="event",
    provider="openai",
    model="gpt-4o-mini",
    method="POST",
    path="chat/completions",
    step=0,
    status_code=200,
    success=True,
    cached=False,
    duration=640.25,
    first_answer=120.5,
    added=0.5,
    chunks=0,
    tokens_in=12,
    tokens_out=4,
    tokens_cached=2,
    tokens_cache_write=None,
    cost=0.000_004_05,
    cost_source="prices",
    cost_estimated=False,
    byok=None,
    code=None,
    reason=None,
    metadata=None,
    attempts=None,
    warnings=None,
    request_content_type="application/json",
    request_size=2,
    request_head_complete=True,
    response_content_type="application/json",
    response_size=2,
    response_head_complete=True,
    request_head="{}",
    response_head="[]",
)


def row(number: int = 0, **changes: Any) -> LogRow:
    """Return a row that began `number` milliseconds after the first, with its own id."""
    began = BEGAN_MS + number
    return _ROW._replace(id=uuid7(began, number), created_at=began, **changes)
