"""Error codes: each exists once, and its status matches its source."""

import re
from pathlib import Path

import pytest

import bridge.errors
from bridge.errors import (
    BridgeError,
    ItemTooLarge,
    ProviderErrorInStream,
    ProviderStatus,
    RateLimited,
    TlsFailed,
    TooManyEvents,
    TotalTimeout,
    UnusableAnswer,
    all_errors,
)

BRIDGE = Path(bridge.errors.__file__).parent

STATUSES = {"client": range(400, 500), "bridge": range(500, 504), "provider": (502, 504)}


def test_every_code_belongs_to_one_class() -> None:
    codes = [error.code for error in all_errors()]
    assert len(codes) == len(set(codes))
    assert [code for code in codes if not (2000 < code < 3000 or 9000 < code < 9100)] == []


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_the_status_of_an_error_matches_its_source(error: type[BridgeError]) -> None:
    assert error.status in STATUSES[error.source]


def test_only_errors_that_may_pass_are_retryable() -> None:
    errors = {error for error in all_errors() if error.source == "client" and error.retryable}
    assert errors == {RateLimited, TooManyEvents}
    permanent = {error for error in all_errors() if error.source == "provider" and not error.retryable}
    assert permanent == {TlsFailed, TotalTimeout, ItemTooLarge, UnusableAnswer}
    busy = {error for error in all_errors() if error.source == "bridge" and error.retryable}
    assert busy == {error for error in all_errors() if error.source == "bridge" and error.status == 503}


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_every_error_class_is_documented_and_used(error: type[BridgeError]) -> None:
    assert error.__doc__
    assert error.__doc__.strip().endswith(".")
    name = re.compile(rf"\b{error.__name__}\b")
    files = (path for path in BRIDGE.rglob("*.py") if path.name != "errors.py")
    assert any(len(name.findall(path.read_text())) > 1 for path in files)


@pytest.mark.parametrize("kind", [kind for kind in all_errors() if kind is not ProviderErrorInStream])
def test_an_error_holds_a_message_and_a_delay(kind: type[BridgeError]) -> None:
    assert str(kind("the reason")) == "the reason"
    assert kind("x").retry_after_ms is None
    assert kind("x", retry_after_ms=0).retry_after_ms == 0


def test_the_code_of_an_http_error_of_a_provider_is_its_status() -> None:
    error = ProviderStatus(429, "slow down", retryable=True, retry_after_ms=1500)
    assert (error.code, error.status, error.source, error.retryable, error.retry_after_ms) == (
        429,
        429,
        "provider",
        True,
        1500,
    )
    assert BridgeError.code == 9099


def test_an_error_in_a_stream_is_retryable_as_reported() -> None:
    for retryable in (True, False):
        assert ProviderErrorInStream("x", retryable=retryable).retryable is retryable
