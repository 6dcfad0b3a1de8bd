"""Selection of the stored key for a step."""

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
ENCODED = base64.b64encode(ACCOUNT.encode()).decode()


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


def selected(slug: str, endpoint: str = "x", headers: dict[str, str] | None = None, **config: Any) -> StoredKey | None:
    request = {"provider": slug, "endpoint": endpoint, "headers": headers or {}, "config": config}
    [step] = created(json.dumps(request)).steps
    return key_for(step, REGISTRY[slug], KEYS)


def test_the_default_key_is_used_for_a_request_without_a_credential() -> None:
    assert selected("openai") == KEYS["openai", "default"]
    assert selected("openai", headers={"x-request-id": "1", "content-type": "application/json"}) is not None


@pytest.mark.parametrize("options", [{"headers": {"cf-aig-byok-alias": "team-b"}}, {"byokAlias": "team-b"}])
def test_an_alias_selects_another_key(options: dict[str, Any]) -> None:
    assert selected("openai", **options) == KEYS["openai", "team-b"]


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
def test_a_request_with_its_own_credential_gets_no_stored_key(
    slug: str, endpoint: str, headers: dict[str, str]
) -> None:
    assert selected(slug, endpoint, headers) is None


@pytest.mark.parametrize("endpoint", ["v1/models/m?monkey=1", "v1/models/m?key=", "v1/models/key=1:generateContent"])
def test_a_similar_query_parameter_is_not_a_credential(endpoint: str) -> None:
    assert selected("google-ai-studio", endpoint) == KEYS["google-ai-studio", "default"]


def test_a_query_key_is_a_credential_only_for_providers_that_accept_one() -> None:
    assert selected("openai", "x?key=1") == KEYS["openai", "default"]


def test_a_provider_without_stored_keys_gets_none() -> None:
    assert selected("groq") is None


@pytest.mark.parametrize(
    ("slug", "alias", "aliases"),
    [("openai", "nobody", "default, team-b"), ("groq", "nobody", "none"), ("anthropic", "default", "spare")],
)
def test_an_unknown_alias_is_reported_with_the_configured_aliases(slug: str, alias: str, aliases: str) -> None:
    with pytest.raises(UnknownKey) as caught:
        selected(slug, byokAlias=alias)
    assert str(caught.value).endswith(f"'{alias}'. Configured aliases: {aliases}")
    assert (caught.value.code, caught.value.status) == (2040, 400)


@pytest.mark.parametrize("value", [ENCODED, f"Bearer {ENCODED}", f"bearer  {ENCODED}"])
def test_a_base64_service_account_is_used_to_mint_tokens(value: str) -> None:
    """Source: Cloudflare's page usage/providers/vertex, option 2."""
    key = selected("google-vertex-ai", headers={"authorization": value})
    assert key == StoredKey("google-vertex-ai", "", GoogleAccount(ACCOUNT), "authorization")


@pytest.mark.parametrize(
    ("slug", "value"),
    [
        ("google-vertex-ai", "Bearer ya29.c.b0Aaekm1K" + "x" * 300),
        ("google-vertex-ai", "Bearer eyJhbGciOi." + "x" * 300 + ".sig"),
        ("google-vertex-ai", "Bearer ey" + "x" * 301),
        ("google-vertex-ai", "Bearer e" + "yw" * 160),
        ("openai", f"Bearer {ENCODED}"),
    ],
)
def test_any_other_value_stays_the_requests_credential(slug: str, value: str) -> None:
    assert selected(slug, headers={"authorization": value}) is None
