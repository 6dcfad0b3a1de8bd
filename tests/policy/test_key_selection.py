"""Which key a step is called with."""

import base64
import json
from typing import Any

import pytest

from bridge.config.keys import GoogleAccount, StoredKey
from bridge.errors import UnknownKey
from bridge.policy.key_selection import Keys, key_for
from bridge.providers import REGISTRY
from tests.support.messages import created

ACCOUNT = json.dumps({"type": "service_account", "client_email": "a@b", "private_key": "x" * 300, "region": "us-east1"})
CODED = base64.b64encode(ACCOUNT.encode()).decode()


def stored(*names: tuple[str, str]) -> Keys:
    return {(slug, alias): StoredKey(slug, alias, f"{slug}-{alias}", "env:KEY") for slug, alias in names}


KEYS = stored(
    ("openai", "default"),
    ("openai", "team-b"),
    ("anthropic", "spare"),
    ("google-ai-studio", "default"),
    ("google-vertex-ai", "default"),
    ("aws-bedrock", "default"),
    ("azure-openai", "default"),
)


def chosen(slug: str, endpoint: str = "x", headers: dict[str, str] | None = None, **config: Any) -> StoredKey | None:
    request = {"provider": slug, "endpoint": endpoint, "headers": headers or {}, "config": config}
    [step] = created(json.dumps(request)).steps
    return key_for(step, REGISTRY[slug], KEYS)


def test_the_default_key_is_used_for_a_request_that_brings_none() -> None:
    assert chosen("openai") == KEYS["openai", "default"]
    assert chosen("openai", headers={"x-request-id": "1", "content-type": "application/json"}) is not None


@pytest.mark.parametrize("given", [{"headers": {"cf-aig-byok-alias": "team-b"}}, {"byokAlias": "team-b"}])
def test_an_alias_names_another(given: dict[str, Any]) -> None:
    assert chosen("openai", **given) == KEYS["openai", "team-b"]


@pytest.mark.parametrize(
    ("slug", "endpoint", "headers"),
    [
        ("openai", "x", {"Authorization": "Bearer sk"}),
        ("openai", "x", {"authorization": "Bearer sk", "cf-aig-byok-alias": "nobody"}),
        ("azure-openai", "a/b/c", {"Authorization": "Bearer entra"}),
        ("azure-openai", "a/b/c", {"api-key": "k"}),
        ("google-ai-studio", "v1/models/m:generateContent?key=AIza", {}),
        ("google-ai-studio", "v1/models/m:generateContent?alt=sse&key=AIza", {}),
        ("google-ai-studio", "v1/models/m:generateContent", {"X-Goog-Api-Key": "AIza"}),
        ("google-vertex-ai", "v1/projects/p?key=AIza", {}),
        ("aws-bedrock", "bedrock-mantle/us-east-1/anthropic/v1/messages", {"x-api-key": "k"}),
        ("aws-bedrock", "bedrock-runtime/us-east-1/model/m/invoke", {"Authorization": "AWS4-HMAC-SHA256 Credential=x"}),
        ("aws-bedrock", "bedrock-runtime/us-east-1/model/m/invoke?X-Amz-Date=1&X-Amz-Signature=abc", {}),
    ],
)
def test_a_request_that_brings_its_own_goes_out_with_that(slug: str, endpoint: str, headers: dict[str, str]) -> None:
    assert chosen(slug, endpoint, headers) is None


@pytest.mark.parametrize("endpoint", ["v1/models/m?monkey=1", "v1/models/m?key=", "v1/models/key=1:generateContent"])
def test_a_query_that_only_looks_like_it_brings_no_key(endpoint: str) -> None:
    assert chosen("google-ai-studio", endpoint) == KEYS["google-ai-studio", "default"]


def test_a_query_is_no_credential_where_the_provider_takes_none_there() -> None:
    assert chosen("openai", "x?key=1") == KEYS["openai", "default"]


def test_where_nothing_is_stored_the_call_goes_out_without_a_key() -> None:
    assert chosen("groq") is None


@pytest.mark.parametrize(
    ("slug", "alias", "aliases"),
    [("openai", "nobody", "default, team-b"), ("groq", "nobody", "none"), ("anthropic", "default", "spare")],
)
def test_an_alias_that_is_not_stored_is_unknown_and_those_that_are_are_named(
    slug: str, alias: str, aliases: str
) -> None:
    with pytest.raises(UnknownKey) as caught:
        chosen(slug, byokAlias=alias)
    assert str(caught.value) == (
        f"Provider '{slug}' has no BYOK credential named '{alias}'. Configured aliases: {aliases}"
    )
    assert (caught.value.code, caught.value.status) == (2040, 400)


@pytest.mark.parametrize("value", [CODED, f"Bearer {CODED}", f"bearer  {CODED}"])
def test_a_service_account_in_base64_is_an_account_to_mint_tokens_for(value: str) -> None:
    """Cloudflare's usage/providers/vertex, option 2."""
    key = chosen("google-vertex-ai", headers={"authorization": value})
    assert key == StoredKey("google-vertex-ai", "", GoogleAccount(ACCOUNT), "authorization")


@pytest.mark.parametrize(
    ("slug", "value"),
    [
        ("google-vertex-ai", "Bearer ya29.c.b0Aaekm1K" + "x" * 300),
        ("google-vertex-ai", "Bearer eyJhbGciOi." + "x" * 300 + ".sig"),
        ("google-vertex-ai", "Bearer ey" + "x" * 301),
        ("google-vertex-ai", "Bearer e" + "yw" * 160),
        ("openai", f"Bearer {CODED}"),
    ],
)
def test_anything_else_stays_the_request_s_own_credential(slug: str, value: str) -> None:
    assert chosen(slug, headers={"authorization": value}) is None
