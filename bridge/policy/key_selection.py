"""Select the stored key for a step whose request has no credential.

Source: developers.cloudflare.com/ai-gateway/configuration/bring-your-own-keys, and usage/providers/vertex.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

from bridge.config.keys import DEFAULT_ALIAS, GoogleAccount, StoredKey
from bridge.errors import UnknownKey
from bridge.protocol.steps import ProviderStep
from bridge.providers import Provider

_OTHER_HEADERS: Final = {
    "aws-bedrock": ("x-api-key",),  # at its Mantle endpoint
    "google-vertex-ai": ("x-goog-api-key",),
}
"""Additional headers in which a provider accepts a credential."""

_GOOGLE_KEY: Final = re.compile(r"\A[^?]*+\?(?:.*[&?])?key=[^&]")
_IN_QUERY: Final = {
    "google-ai-studio": _GOOGLE_KEY,
    "google-vertex-ai": _GOOGLE_KEY,
    "aws-bedrock": re.compile(r"\A[^?]*+\?(?:.*[&?])?X-Amz-Signature=[^&]"),
}
"""Patterns of endpoints that contain a credential."""

_CODED_OBJECT: Final = re.compile(r"(?:Bearer\s+)?(e[wy][A-Za-z0-9+/]{200,}={0,2})", re.IGNORECASE)
"""A JSON object in base64. Access tokens do not match, and a JWT contains dots."""

Keys = Mapping[tuple[str, str], StoredKey]


def credential_headers(provider: Provider) -> frozenset[str]:
    """Return the headers, in lower case, in which a request may bring the provider's key."""
    return frozenset({"authorization", provider.credential.header, *_OTHER_HEADERS.get(provider.slug, ())})


def key_for(step: ProviderStep, provider: Provider, keys: Keys) -> StoredKey | None:
    """Return the stored key; None if the request has a credential, or if no key is stored and no alias is set.

    Raises UnknownKey for an alias without a key.
    """
    if _has_credential(step, provider):
        return _account_in(step) if provider.slug == "google-vertex-ai" else None
    alias = step.settings.byok_alias
    if (key := keys.get((provider.slug, alias))) is not None:
        return key
    aliases = sorted(stored for slug, stored in keys if slug == provider.slug)
    if not aliases and alias == DEFAULT_ALIAS:
        return None
    raise UnknownKey(
        f"Provider '{provider.slug}' has no BYOK credential named '{alias}'. "
        f"Configured aliases: {', '.join(aliases) or 'none'}"
    )


def _has_credential(step: ProviderStep, provider: Provider) -> bool:
    if not credential_headers(provider).isdisjoint(step.provider_headers):
        return True
    in_query = _IN_QUERY.get(provider.slug)
    return in_query is not None and in_query.search(step.endpoint) is not None


def _account_in(step: ProviderStep) -> StoredKey | None:
    """Return the service account whose base64-encoded JSON is sent instead of an access token."""
    coded = _CODED_OBJECT.fullmatch(step.provider_headers.get("authorization", ""))
    if coded is None:
        return None
    try:
        account = base64.b64decode(coded[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return StoredKey("google-vertex-ai", "", GoogleAccount(account), "authorization")
