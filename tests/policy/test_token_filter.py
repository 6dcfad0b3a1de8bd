"""The gateway's tokens in place of a provider's key, and their removal from provider requests."""

import base64
import hashlib

import pytest

from bridge.config.gateways import Gateway, Token
from bridge.errors import BadField
from bridge.policy.token_filter import check_target, protocols_without_tokens, token_as_key, without_tokens
from bridge.protocol.steps import ProviderStep
from bridge.providers import Target
from bridge.settings.step import StepSettings

GATEWAY = Gateway("g", tuple(Token(name, hashlib.sha256(f"secret-of-{name}".encode()).digest()) for name in ("a", "b")))
OPEN = Gateway("open")


def step(endpoint: str = "v1/x", **headers: str) -> ProviderStep:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ProviderStep("openai", endpoint, "POST", named, named, b"", StepSettings())


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
def test_an_sdk_key_header_may_contain_a_token(headers: dict[str, str], name: str | None) -> None:
    assert token_as_key(GATEWAY, headers) == name


def test_only_the_token_is_removed() -> None:
    kept = without_tokens(step(authorization="Bearer secret-of-a", x_api_key="sk", x_mine="1"), GATEWAY)
    assert kept.provider_headers == {"x-api-key": "sk", "x-mine": "1"}


@pytest.mark.parametrize(
    "value",
    ["Bearer secret-of-a, Bearer sk", "Bearer sk,Bearer secret-of-a", "Bearer\tsecret-of-b", "secret-of-b, sk"],
)
def test_a_header_with_a_token_and_a_credential_is_removed(value: str) -> None:
    """Repeated headers are joined with commas."""
    assert without_tokens(step(authorization=value), GATEWAY).provider_headers == {}


@pytest.mark.parametrize("original", [step(authorization="Bearer sk"), step("v1/x?key=sk&a=secret-of-c")])
def test_a_step_without_a_token_is_unchanged(original: ProviderStep) -> None:
    assert without_tokens(original, GATEWAY) is original


def test_an_open_gateway_has_no_tokens() -> None:
    original = step("v1/x?key=secret-of-a", authorization="Bearer secret-of-a")
    assert without_tokens(original, OPEN) is original


@pytest.mark.parametrize(
    "query",
    [
        "key=secret-of-a",
        "a=b&api_key=secret-of-b&c",
        "key=secret%2Dof%2Da",
        "%6bey=secret-of-a",
        "a=b;key=secret-of-a",
        "a=secret-of-a",
        "secret-of-a",
        "secret-of-a=1",
        "a=Bearer%20secret-of-a",
        "a=Bearer+secret-of-a",
        "a=secret%252Dof%252Da",
        "a=%5B%22secret-of-a%22%5D",
        "url=https://x.example/?key=secret-of-a",
    ],
)
def test_a_token_in_the_query_is_refused_and_not_quoted(query: str) -> None:
    with pytest.raises(BadField, match="cf-aig-authorization") as refused:
        without_tokens(step(f"v1/x?{query}"), GATEWAY)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "endpoint", ["secret-of-a", "v1/secret-of-a", "/v1/secret-of-a/x", "v1/secret%2Dof%2Da", "v1/x:secret-of-a"]
)
def test_a_token_in_the_path_is_refused(endpoint: str) -> None:
    with pytest.raises(BadField):
        without_tokens(step(endpoint), GATEWAY)


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "value",
    [
        "secret-of-a",
        "Bearer%20secret-of-a",
        "Bearer secret%2Dof%2Da",
        "secret%252Dof%252Da",
        f"Basic {base64_of('user:secret-of-a')}",
        f"Basic {base64_of('secret-of-b:')}",
        base64_of("secret-of-a"),
        base64.urlsafe_b64encode(b"??>secret-of-a??>".replace(b"?", b" ")).decode(),
        "cf-aig-authorization.secret-of-a",
        "realtime, openai-insecure-api-key.secret-of-a",
        "a=1; token=secret-of-a; b=2",
        '{"token": "secret-of-a"}',
        "https://x.example/secret-of-a",
        "key:secret-of-a",
        "<secret-of-a>",
    ],
)
def test_any_header_that_contains_a_token_in_any_form_is_removed(value: str) -> None:
    kept = without_tokens(step(x_title=value, x_mine="1"), GATEWAY)
    assert kept.provider_headers == {"x-mine": "1"}


def test_a_header_whose_name_is_a_token_is_removed() -> None:
    assert without_tokens(step(secret_of_a="1"), GATEWAY).provider_headers == {}


@pytest.mark.parametrize("token", ["a/b+c==", "a.b.c", "pass=word", "two:parts", "ÄÖ-Ü", "a;b"])
def test_a_token_with_delimiters_is_found(token: str) -> None:
    gateway = Gateway("g", (Token("t", hashlib.sha256(token.encode()).digest()),))
    for value in (token, f"Bearer {token}", base64_of(f"user:{token}")):
        assert without_tokens(step(x_other=value), gateway).provider_headers == {}


def test_a_token_in_the_target_url_is_refused() -> None:
    with pytest.raises(BadField) as refused:
        check_target(Target("https", "secret-of-a.example", None, b"/v1", "https://x"), GATEWAY)
    assert "secret" not in str(refused.value)
    check_target(Target("https", "api.example", None, b"/v1/x?key=secret-of-c", "https://x"), GATEWAY)


def test_a_subprotocol_that_contains_a_token_is_not_offered() -> None:
    offered = ("realtime", "secret-of-a", "x.secret-of-b", "y.secret-of-c")
    assert protocols_without_tokens(offered, GATEWAY) == ("realtime", "y.secret-of-c")
    assert protocols_without_tokens(offered, OPEN) == offered
