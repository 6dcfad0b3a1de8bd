"""Metadata of an event's frames and fields of its log line."""

from typing import Any

import pytest

from bridge.errors import ConnectFailed, NoAnswerInTime, ProviderStatus
from bridge.formats.stream_reader import Usage
from bridge.relay.event_state import EventState, ResponseHead
from bridge.relay.summary import Cost

HEAD = ResponseHead(1, "openai", 200, "application/json")
FIRST = {
    "cacheStatus": "MISS",
    "logId": "log-id",
    "step": "1",
    "contentType": "application/json",
    "status": 200,
    "success": True,
    "provider": "openai",
}


def new_state(**fields: Any) -> EventState:
    return EventState("log-id", "mine", 100.0, **{"warnings": []} | fields)


# The first frame.


def test_the_first_frame_has_the_head_of_the_response() -> None:
    assert new_state().first_metadata(HEAD, success=True) == FIRST


def test_the_first_frame_has_the_providers_headers_even_if_empty() -> None:
    for headers in ({}, {"x-request-id": "7"}):
        head = ResponseHead(1, "openai", 200, "application/json", headers)
        assert new_state().first_metadata(head, success=True) == FIRST | {"headers": headers}


def test_a_stream_that_replaces_another_is_marked_as_restarted() -> None:
    assert new_state(restarted=True).first_metadata(HEAD, success=True) == FIRST | {"restarted": True}


def test_an_event_refused_before_planning_has_no_provider() -> None:
    head = ResponseHead(0, None, 400, "application/json")
    metadata = new_state().last_metadata(head, 100.0, NoAnswerInTime("x"))
    assert "provider" not in metadata
    assert (metadata["step"], metadata["status"], metadata["success"]) == ("0", 400, False)


# The last frame.


def test_the_last_frame_repeats_the_first_and_adds_duration_and_chunks() -> None:
    assert new_state().last_metadata(HEAD, 101.2345, None) == FIRST | {"durationMs": 1234, "chunks": 0}


def test_the_last_frame_of_a_failed_event_reports_failure() -> None:
    assert new_state().last_metadata(HEAD, 100.0, NoAnswerInTime("late")) == FIRST | {
        "success": False,
        "durationMs": 0,
        "chunks": 0,
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"chunks": 7}, {"chunks": 7}),
        ({"cost": Cost(0.0, "provider")}, {"cost": 0.0}),
        ({"cost": Cost(0.25, "prices")}, {"cost": 0.25}),
        (
            {"usage": Usage(1, 2, 0, 3)},
            {"usage": {"inputTokens": 1, "outputTokens": 2, "cachedTokens": 0, "totalTokens": 3}},
        ),
        ({"usage": Usage(output_tokens=2)}, {"usage": {"outputTokens": 2}}),
        ({"warnings": ["clamped"]}, {"warnings": ["clamped"]}),
        ({"restarted": True}, {"restarted": True}),
    ],
)
def test_the_last_frame_has_only_known_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert new_state(**fields).last_metadata(HEAD, 100.0, None) == FIRST | {"durationMs": 0, "chunks": 0} | expected


def test_attempts_are_listed_if_there_is_more_than_one() -> None:
    state = new_state()
    state.add_attempt(0, "openai", 429, ProviderStatus(429, "slow down", retryable=True, retry_after_ms=None), 0.0, 0.5)
    assert "attempts" not in state.last_metadata(HEAD, 100.0, None)
    state.add_attempt(0, "openai", None, ConnectFailed("refused"), 1.0, 1.0015)
    state.add_attempt(1, "groq", 200, None, 2.0, 4.0)
    assert state.last_metadata(HEAD, 100.0, None)["attempts"] == [
        {"step": "0", "provider": "openai", "durationMs": 500, "status": 429, "code": 429, "reason": "slow down"},
        {"step": "0", "provider": "openai", "durationMs": 2, "code": 9010, "reason": "refused"},
        {"step": "1", "provider": "groq", "durationMs": 2000, "status": 200},
    ]


# The log.


def test_header_bytes_are_decoded_as_utf_8_or_latin_1() -> None:
    bytes_in_latin_1 = "报告.pdf".encode().decode("latin-1")
    head = ResponseHead(1, "openai", 200, "application/json", {"a": bytes_in_latin_1, "b": "caf\xe9"})
    assert new_state().first_metadata(head, success=True)["headers"] == {"a": "报告.pdf", "b": "café"}


def test_the_log_has_the_outcome_without_headers() -> None:
    state = new_state(model="gpt", usage=Usage(1))
    head = ResponseHead(0, "openai", 503, "text/plain", {"x-secret": "1"})
    state.last_metadata(head, 100.5, NoAnswerInTime("late"))
    assert state.log_fields(b'"my-request"') == {
        "gateway": "mine",
        "eventId": "my-request",
        "logId": "log-id",
        "step": "0",
        "contentType": "text/plain",
        "status": 503,
        "success": False,
        "provider": "openai",
        "durationMs": 500,
        "chunks": 0,
        "usage": {"inputTokens": 1},
        "code": 9013,
        "model": "gpt",
    }


def test_the_log_omits_the_reasons_of_attempts() -> None:
    state = new_state()
    state.add_attempt(
        0, "openai", 401, ProviderStatus(401, "no key sk", retryable=False, retry_after_ms=None), 0.0, 0.5
    )
    state.add_attempt(1, "groq", 200, None, 2.0, 4.0)
    metadata = state.last_metadata(HEAD, 100.0, None)
    assert state.log_fields(b"1")["attempts"] == [
        {"step": "0", "provider": "openai", "durationMs": 500, "status": 401, "code": 401},
        {"step": "1", "provider": "groq", "durationMs": 2000, "status": 200},
    ]
    assert "no key sk" in str(metadata["attempts"])


@pytest.mark.parametrize(
    ("raw", "logged"),
    [
        (rb'"\u0061"', "a"),
        (b"7", 7),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (rb'"\ud83d"', "\ud83d"),
    ],
)
def test_the_log_has_the_parsed_event_id(raw: bytes, logged: str | int) -> None:
    assert new_state().log_fields(raw)["eventId"] == logged


def test_an_event_without_a_last_frame_is_logged() -> None:
    assert new_state().log_fields(b"1") == {"gateway": "mine", "eventId": 1}
