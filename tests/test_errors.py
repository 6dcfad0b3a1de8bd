"""The codes: each exists once, with the HTTP status and the culprit that the protocol gives it."""

import re
from pathlib import Path

import pytest

import bridge.errors
from bridge.errors import BridgeError, ProviderErrorInStream, ProviderStatus, all_errors

BRIDGE = Path(bridge.errors.__file__).parent

CODES = {
    2001: (400, "client"),
    2003: (429, "client"),
    2008: (400, "client"),
    2009: (401, "client"),
    2040: (400, "client"),
    2041: (429, "client"),
    9001: (400, "client"),
    9002: (400, "client"),
    9003: (400, "client"),
    9004: (409, "client"),
    9005: (429, "client"),
    9006: (413, "client"),
    9007: (400, "client"),
    9008: (503, "bridge"),
    9009: (403, "client"),
    9010: (502, "provider"),
    9011: (502, "provider"),
    9012: (502, "provider"),
    9013: (504, "provider"),
    9014: (504, "provider"),
    9015: (504, "provider"),
    9016: (502, "provider"),
    9017: (502, "provider"),
    9018: (502, "provider"),
    9019: (502, "provider"),
    9020: (499, "client"),
    9021: (499, "client"),
    9022: (503, "bridge"),
    9023: (503, "bridge"),
    9024: (502, "bridge"),
    9027: (403, "client"),
    9099: (500, "bridge"),
}

RETRYABLE = {2003, 9005, 9008, 9010, 9012, 9013, 9014, 9016, 9017, 9022, 9023}


def test_every_code_exists_once_with_its_status_and_its_source() -> None:
    assert [error.code for error in all_errors()] == list(CODES)
    assert {error.code: (error.status, error.source) for error in all_errors()} == CODES


def test_to_try_again_helps_where_the_fault_may_pass() -> None:
    by_class = {error.code for error in all_errors() if error.retryable}
    assert by_class == RETRYABLE


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_every_code_is_explained_and_used_beyond_its_import(error: type[BridgeError]) -> None:
    assert error.__doc__
    assert error.__doc__.strip().endswith(".")
    name = re.compile(rf"\b{error.__name__}\b")
    files = (path for path in BRIDGE.rglob("*.py") if path.name != "errors.py")
    assert any(len(name.findall(path.read_text())) > 1 for path in files)


@pytest.mark.parametrize("kind", [kind for kind in all_errors() if kind is not ProviderErrorInStream])
def test_an_error_is_its_message_and_the_wait_it_asks_for(kind: type[BridgeError]) -> None:
    assert str(kind("in the client's words")) == "in the client's words"
    assert kind("x").retry_after_ms is None
    assert kind("x", retry_after_ms=0).retry_after_ms == 0


def test_a_provider_s_own_error_has_its_status_for_code() -> None:
    error = ProviderStatus(429, "slow down", retryable=True, retry_after_ms=1500)
    assert (error.code, error.status, error.source, error.retryable, error.retry_after_ms) == (
        429,
        429,
        "provider",
        True,
        1500,
    )
    assert BridgeError.code == 9099


def test_an_error_in_a_stream_is_as_retryable_as_what_it_reports() -> None:
    for retryable in (True, False):
        assert ProviderErrorInStream("x", retryable=retryable).retryable is retryable
