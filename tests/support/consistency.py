"""Check that the frames, the row and the span of an event agree, and that the metrics agree with all events."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.services.metrics.test_metrics import of, written
from tests.support.full_stack import ClientEnd, FullStack, Row
from tests.support.otlp_receiver import ReceivedSpan

Attempt = tuple[int, str, int | None, int | None]
"""The step, provider, status and code of an attempt."""


def assert_consistent(stack: FullStack, *ends: ClientEnd) -> list[Row]:
    """Check all events, and return the rows of the given ends, or of all events if none are given."""
    assert stack.rows.keys() == stack.spans.keys()
    for log_id, row in stack.rows.items():
        _span_agrees(stack, row, stack.spans[log_id])
    _metrics_agree(stack)
    for end in ends:
        _client_agrees(end, stack.rows[end.log_id])
    return [stack.rows[end.log_id] for end in ends] or list(stack.rows.values())


def _span_agrees(stack: FullStack, row: Row, span: ReceivedSpan) -> None:
    found = span.attributes
    assert {
        "http.response.status_code": row["status_code"],
        "error.type": None if row["code"] is None else str(row["code"]),
        "gen_ai.model.provider": row["provider"],
        "gen_ai.request.model": row["model"],
        "gen_ai.request.stream": row["chunks"] > 0,
        "gen_ai.usage.input_tokens": row["tokens_in"],
        "gen_ai.usage.output_tokens": row["tokens_out"],
        "gen_ai.usage.cost": row["cost"],
        "bridge.byok_alias": row["byok"],
        "bridge.cached": bool(row["cached"]),
        "bridge.event_id": row["event_id"],
        "bridge.gateway": row["gateway"],
        "bridge.step": str(row["step"]),
        "bridge.token": row["token"],
        "bridge.transport": row["request_type"],
    }.items() <= {**dict.fromkeys(_OPTIONAL), **found}.items()
    assert span.failed is not bool(row["success"]) is (row["code"] is None)
    lasted_ms = (span.span.end_time_unix_nano - span.span.start_time_unix_nano) / 1e6
    assert lasted_ms == pytest.approx(row["duration"], abs=0.01)
    children = [(each.attributes, each.failed) for each in stack.attempts_of(span)]
    assert [_child_attempt(attributes) for attributes, _ in children] == attempts_of(row)
    assert [failed for _, failed in children] == [code is not None for *_, code in attempts_of(row)]


_OPTIONAL = (
    "error.type",
    "gen_ai.model.provider",
    "gen_ai.request.model",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.cost",
    "bridge.byok_alias",
    "bridge.token",
)


def attempts_of(row: Row) -> list[Attempt]:
    return _attempts_in(orjson.loads(row["attempts"] or "[]"))


def _attempts_in(attempts: list[dict[str, Any]]) -> list[Attempt]:
    return [(int(each["step"]), each["provider"], each.get("status"), each.get("code")) for each in attempts]


def _child_attempt(attributes: dict[str, Any]) -> Attempt:
    code, status = attributes.get("error.type"), attributes.get("http.response.status_code")
    step, provider = attributes["bridge.step"], attributes["gen_ai.provider.name"]
    return int(step), provider, status, None if code is None else int(code)


def _client_agrees(end: ClientEnd, row: Row) -> None:
    assert (end.status, end.step) == (row["status_code"], row["step"])
    if end.http_result is not None:
        # The head was sent when a shared call began; this event may have taken it over since.
        assert end.is_cached or not row["cached"]
        assert end.code in {None, row["code"]}
        assert end.http_result.is_complete or not row["success"]
        return
    metadata = end.metadata
    usage = metadata.get("usage", {})
    assert (end.code, end.is_cached) == (row["code"], bool(row["cached"]))
    assert metadata["success"] is bool(row["success"])
    assert metadata.get("provider") == row["provider"]
    assert metadata.get("cost") == row["cost"]
    assert metadata["chunks"] == row["chunks"] == [each["type"] for each in end.frames].count("universal.stream")
    assert metadata["durationMs"] == pytest.approx(row["duration"], abs=0.51)
    assert metadata.get("warnings") == (orjson.loads(row["warnings"]) if row["warnings"] else None)
    assert row["cached"] or (usage.get("inputTokens"), usage.get("outputTokens")) == (
        row["tokens_in"],
        row["tokens_out"],
    )
    assert _attempts_in(metadata.get("attempts", [])) in ([], attempts_of(row))


def _metrics_agree(stack: FullStack) -> None:
    expected = Counter[str]()
    for row in stack.rows.values():
        for name, value in _expected_samples(row):
            expected[name] += value
    names = {name.partition("[")[0] for name in expected} | {"bridge_events_total", "bridge_attempts_total"}
    found = of(stack.samples, *names)
    found = {name: value for name, value in found.items() if not ("tokens" in name and "outcome=cached" in name)}
    assert found == pytest.approx({name: value for name, value in expected.items() if value})


def _expected_samples(row: Row) -> Iterator[tuple[str, float]]:
    of_call = {"gateway": row["gateway"], "provider": row["provider"] or "", "outcome": _outcome(row)}
    of_event = {"transport": row["request_type"], "code": _text(row["code"]), "step": str(row["step"])}
    yield written("bridge_events_total", {**of_call, **of_event}), 1
    yield written("bridge_chunks_total", of_call), row["chunks"]
    yield written("bridge_cost_usd_total", of_call), row["cost"] or 0
    yield written("bridge_input_tokens_total", of_call), row["tokens_in"] or 0
    yield written("bridge_output_tokens_total", of_call), row["tokens_out"] or 0
    yield written("bridge_request_bytes_total", of_call), row["request_size"]
    yield written("bridge_answer_bytes_total", of_call), row["response_size"]
    for _, provider, _, code in attempts_of(row):
        yield written("bridge_attempts_total", {"provider": provider, "code": _text(code)}), 1


def _outcome(row: Row) -> str:
    if row["success"]:
        return "cached" if row["cached"] else "answered"
    return "cancelled" if row["code"] == 9020 else "failed"


def _text(code: int | None) -> str:
    return "" if code is None else str(code)
