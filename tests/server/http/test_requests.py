"""Parse the steps of an HTTP request from its body and its headers."""

import pytest

from bridge.errors import BadField, BadMessage, BridgeError, TooLarge
from bridge.protocol.event_id import EventId
from bridge.protocol.headers import request_headers, strip_proxy_headers
from bridge.protocol.messages import Create, RejectedMessage
from bridge.protocol.steps import MessageLimits
from bridge.server.http.requests import read_step, read_steps
from bridge.settings.step import StepSettings

DEFAULTS = StepSettings(max_attempts=4)
LIMITS = MessageLimits(max_message_bytes=4096, max_headers=3, max_header_bytes=64)


def create_of(body: bytes, **headers: str) -> Create:
    parsed = read_steps(body, named(headers), DEFAULTS, LIMITS)
    assert isinstance(parsed, Create), parsed
    return parsed


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def single(**headers: str) -> Create | RejectedMessage:
    return read_step(b"body", named(headers), DEFAULTS, LIMITS, method="PUT", provider="openai", endpoint="v1/x?y=%20")


def test_the_body_of_a_step_is_the_clients_own_bytes() -> None:
    body = b' [ {"provider":"a","endpoint":"","query": {"n" : 1.0e0, "s":"\\ud83d"} } ] '
    [step] = create_of(body).steps
    assert step.body == b'{"n" : 1.0e0, "s":"\\ud83d"}'


def test_settings_of_the_request_apply_to_all_its_steps() -> None:
    body = b'[{"provider":"a","endpoint":""},{"provider":"b","endpoint":"","headers":{"cf-aig-max-attempts":"2"}}]'
    first, second = create_of(body, cf_aig_retry_delay="7").steps
    assert (first.settings.max_attempts, first.settings.retry_delay) == (4, 7)
    assert (second.settings.max_attempts, second.settings.retry_delay) == (2, 7)
    assert first.provider_headers == {}


def test_a_clamped_setting_of_the_request_is_reported_once() -> None:
    create = create_of(b'[{"provider":"a","endpoint":""},{"provider":"b","endpoint":""}]', cf_aig_max_attempts="9")
    assert create.warnings == ["headers.cf-aig-max-attempts: 9 is not a whole number from 1 to 5; 5 is used instead."]


@pytest.mark.parametrize(
    ("body", "header", "event_id"),
    [
        (b'{"provider":"a","endpoint":""}', None, None),
        (b'{"provider":"a","endpoint":""}', "x", EventId("x", b'"x"')),
        (b'{"provider":"a","endpoint":"","eventId":"y"}', "x", EventId("y", b'"y"')),
        (b'[{"provider":"a","endpoint":""},{"provider":"b","endpoint":"","eventId":7}]', "x", EventId(7, b"7")),
    ],
)
def test_the_event_id_nearest_to_the_step_is_used(body: bytes, header: str | None, event_id: EventId | None) -> None:
    headers = {} if header is None else {"cf_aig_event_id": header}
    assert create_of(body, **headers).event_id == event_id


@pytest.mark.parametrize(
    ("body", "error", "event_id"),
    [
        (b"", BadMessage, "x"),
        (b"\xff", BadMessage, "x"),
        (b"null", BadField, "x"),
        (b'{"eventId":"y"}', BadField, "y"),
        (b'{"eventId":"y","provider":"a","endpoint":"","query":' + b"[" * 2000 + b"]" * 2000 + b"}", TooLarge, "y"),
        (b'{"eventId":"y","provider":"a","endpoint":"","query":"' + b"x" * 5000 + b'"}', TooLarge, "y"),
    ],
)
def test_a_refused_body_still_has_an_event_that_fails(body: bytes, error: type[BridgeError], event_id: str) -> None:
    parsed = read_steps(body, {"cf-aig-event-id": "x"}, DEFAULTS, LIMITS)
    assert isinstance(parsed, RejectedMessage)
    assert type(parsed.error) is error
    assert parsed.event_id is not None
    assert parsed.event_id.key == event_id


def test_a_request_that_is_a_step_has_its_method_its_target_and_its_body() -> None:
    create = single(cf_aig_event_id="x", cf_aig_max_attempts="2", authorization="Bearer key")
    assert isinstance(create, Create)
    [step] = create.steps
    assert (step.method, step.provider, step.endpoint, step.body) == ("PUT", "openai", "v1/x?y=%20", b"body")
    assert step.provider_headers == {"authorization": "Bearer key"}
    assert (step.settings.max_attempts, create.event_id) == (2, EventId("x", b'"x"'))


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"a": "1", "b": "2", "c": "3", "d": "4"}, TooLarge),
        ({"a": "x" * 64}, TooLarge),
        ({"cf_aig_backoff": "never"}, BadField),
        ({"cf_aig_event_id": ""}, BadField),
    ],
)
def test_a_request_that_cannot_be_a_step_is_refused(headers: dict[str, str], error: type[BridgeError]) -> None:
    parsed = single(**headers)
    assert isinstance(parsed, RejectedMessage)
    assert type(parsed.error) is error


def test_repeated_headers_are_joined() -> None:
    assert request_headers([("A", "1"), ("b", "2"), ("a", "3")], "headers") == {"a": "1, 3", "b": "2"}


def test_a_header_that_is_not_utf_8_is_named() -> None:
    with pytest.raises(BadField, match=r"^headers\.x-name: the value is not valid UTF-8$"):
        request_headers([("X-Name", "caf\udce9")], "headers")


def test_headers_of_browsers_and_proxies_are_not_forwarded() -> None:
    theirs = {
        "cookie": "1",
        "origin": "1",
        "x-forwarded-host": "1",
        "sec-fetch-site": "1",
        "via": "1",
        "x-real-ip": "1",
    }
    ours = {"x-forward": "1", "user-agent": "1", "http-referer": "1"}
    assert strip_proxy_headers({**theirs, **ours}) == ours
