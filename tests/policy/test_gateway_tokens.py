"""Tokens where a provider's key would be."""

import hashlib

import pytest

from bridge.config.gateways import Gateway, Token
from bridge.errors import BadField
from bridge.policy.gateway_tokens import token_as_key, without_tokens
from bridge.settings.step import StepSettings
from bridge.wire.steps import Step

GATEWAY = Gateway("g", tuple(Token(name, hashlib.sha256(f"secret-of-{name}".encode()).digest()) for name in ("a", "b")))
OPEN = Gateway("open")


def step(endpoint: str = "v1/x", **headers: str) -> Step:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Step("openai", endpoint, "POST", named, named, b"", StepSettings())


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"authorization": "Bearer secret-of-a"}, "a"),
        ({"authorization": "secret-of-b"}, "b"),
        ({"authorization": "Key  secret-of-b "}, "b"),
        ({"x-api-key": "secret-of-a"}, "a"),
        ({"authorization": "Bearer sk", "x-goog-api-key": "secret-of-a"}, "a"),
        ({"authorization": "Bearer sk"}, None),
        ({"x-other": "secret-of-a"}, None),
        ({}, None),
    ],
)
def test_an_sdks_key_may_be_a_token(headers: dict[str, str], name: str | None) -> None:
    assert token_as_key(GATEWAY, headers) == name


def test_a_token_is_taken_out_and_all_else_stays() -> None:
    kept = without_tokens(step(authorization="Bearer secret-of-a", x_api_key="sk", x_mine="1"), GATEWAY)
    assert kept.provider_headers == {"x-api-key": "sk", "x-mine": "1"}


@pytest.mark.parametrize(
    "value",
    ["Bearer secret-of-a, Bearer sk", "Bearer sk,Bearer secret-of-a", "Bearer\tsecret-of-b", "secret-of-b, sk"],
)
def test_a_token_beside_another_credential_is_taken_out_with_it(value: str) -> None:
    """As two headers of one name are joined."""
    assert without_tokens(step(authorization=value), GATEWAY).provider_headers == {}


@pytest.mark.parametrize("given", [step(authorization="Bearer sk"), step("v1/x?key=sk&a=secret-of-a")])
def test_a_step_without_one_is_the_same_step(given: Step) -> None:
    assert without_tokens(given, GATEWAY) is given


def test_an_open_gateway_has_none() -> None:
    given = step("v1/x?key=secret-of-a", authorization="Bearer secret-of-a")
    assert without_tokens(given, OPEN) is given


@pytest.mark.parametrize(
    "query",
    ["key=secret-of-a", "a=b&api_key=secret-of-b&c", "key=secret%2Dof%2Da", "%6bey=secret-of-a", "a=b;key=secret-of-a"],
)
def test_one_in_the_url_is_refused_without_being_told(query: str) -> None:
    with pytest.raises(BadField, match="cf-aig-authorization") as refused:
        without_tokens(step(f"v1/x?{query}"), GATEWAY)
    assert "secret" not in str(refused.value)
