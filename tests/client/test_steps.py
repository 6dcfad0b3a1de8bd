"""What is asked, as the wire has it."""

from typing import Any, get_type_hints

import orjson
import pytest

from bridge.client import Config, Step
from bridge.client.steps import cancel, chain, create
from bridge.protocol import messages
from bridge.protocol.messages import Create, EventId, MessageLimits, parse
from bridge.settings.accounting import Metadata
from bridge.settings.step import SETTINGS, StepSettings


@pytest.mark.parametrize(
    ("step", "written"),
    [
        (Step("openai"), {"provider": "openai", "endpoint": ""}),
        (Step("openai", "chat", {}), {"provider": "openai", "endpoint": "chat", "query": {}}),
        (Step("openai", "chat", b'{ "a":1}'), {"provider": "openai", "endpoint": "chat", "query": {"a": 1}}),
        (
            Step("groq", "f", method="PUT", headers={"a": "b"}, config={"maxAttempts": 2}, body="caf\u00e9"),
            {
                "provider": "groq",
                "endpoint": "f",
                "method": "PUT",
                "headers": {"a": "b"},
                "config": {"maxAttempts": 2},
                "body": "caf\u00e9",
                "encoding": "text",
            },
        ),
        (
            Step("groq", "f", body=b"\xff"),
            {"provider": "groq", "endpoint": "f", "body": "/w==", "encoding": "base64"},
        ),
    ],
)
def test_a_step_is_written_without_what_was_not_given(step: Step, written: dict[str, Any]) -> None:
    assert orjson.loads(create(1, step)) == {"type": "universal.create", "eventId": 1, "request": written}


def test_a_request_may_be_steps_of_either_kind() -> None:
    step = {"provider": "openai", "endpoint": ""}
    for request in ([Step("openai"), step], (step, Step("openai"))):
        assert orjson.loads(create("a", request))["request"] == [step, step]
    assert orjson.loads(create("a", {"steps": [step]}))["request"] == {"steps": [step]}


def test_the_settings_of_a_chain_are_beside_its_steps() -> None:
    step = {"provider": "openai", "endpoint": ""}
    assert chain(Step("openai"), [step], {"maxAttempts": 2}) == {"config": {"maxAttempts": 2}, "steps": [step, step]}
    assert chain(Step("openai"), (), None) == {"steps": [step]}


def test_the_name_that_is_given_wins_over_the_requests_own() -> None:
    created = parse(
        create("given", {"provider": "openai", "endpoint": "", "eventId": "own"}), StepSettings(), MessageLimits()
    )
    assert isinstance(created, Create)
    assert created.event_id == EventId("given", b'"given"')


def test_bytes_of_json_stay_as_they_are() -> None:
    assert create(1, Step("a", "b", b'{ "x" : 1e400 }')).endswith(b'"query":{ "x" : 1e400 }}}')


def test_a_bridge_understands_both_messages() -> None:
    created = parse(create("mine", Step("openai", "chat", {})), StepSettings(), MessageLimits())
    assert isinstance(created, Create)
    cancelled = parse(cancel("mine"), StepSettings(), MessageLimits())
    assert isinstance(cancelled, messages.Cancel)
    assert created.event_id == cancelled.event_id


def test_the_settings_are_those_of_the_bridge() -> None:
    """Every name, and what it may hold."""
    hints, theirs = get_type_hints(Config), get_type_hints(StepSettings)
    as_json = {"cache_ttl": int, "metadata": Metadata, "custom_cost": dict[str, float]}
    theirs |= as_json | dict.fromkeys(("cache_key", "otel_trace_id", "otel_parent_span_id"), str)
    assert hints == {setting.wire: theirs[setting.name] for setting in SETTINGS}


def test_a_step_that_is_shown_holds_no_credential() -> None:
    assert "secret" not in repr(Step("openai", headers={"authorization": "Bearer secret"}))
