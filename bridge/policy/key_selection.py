"""Which of a gateway's stored keys a step is called with: one where the request brings no credential of its own.

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

_ELSEWHERE: Final = {
    "aws-bedrock": ("x-api-key",),  # at its Mantle endpoint
    "google-vertex-ai": ("x-goog-api-key",),
}
"""Headers, beside a provider's own and `authorization`, in which it takes a credential."""

_GOOGLE_S: Final = re.compile(r"\A[^?]*+\?(?:.*[&?])?key=[^&]")
_IN_QUERY: Final = {
    "google-ai-studio": _GOOGLE_S,
    "google-vertex-ai": _GOOGLE_S,
    "aws-bedrock": re.compile(r"\A[^?]*+\?(?:.*[&?])?X-Amz-Signature=[^&]"),
}
"""What an endpoint looks like that holds one."""

_CODED_OBJECT: Final = re.compile(r"(?:Bearer\s+)?(e[wy][A-Za-z0-9+/]{200,}={0,2})", re.IGNORECASE)
"""What begins with a brace, in base64; an access token is none, and a JWT has dots."""

Keys = Mapping[tuple[str, str], StoredKey]


def credential_headers(provider: Provider) -> frozenset[str]:
    """The headers, in lower case, in which a request may bring the provider's key."""
    return frozenset({"authorization", provider.credential.header, *_ELSEWHERE.get(provider.slug, ())})


def key_for(step: ProviderStep, provider: Provider, keys: Keys) -> StoredKey | None:
    """None for a request that brings its own, and where nothing is stored nor asked for by name. Raises UnknownKey."""
    if _brings_its_own(step, provider):
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


def _brings_its_own(step: ProviderStep, provider: Provider) -> bool:
    if not credential_headers(provider).isdisjoint(step.provider_headers):
        return True
    in_query = _IN_QUERY.get(provider.slug)
    return in_query is not None and in_query.search(step.endpoint) is not None


def _account_in(step: ProviderStep) -> StoredKey | None:
    """A service account's JSON, in base64, that stands where an access token would."""
    coded = _CODED_OBJECT.fullmatch(step.provider_headers.get("authorization", ""))
    if coded is None:
        return None
    try:
        account = base64.b64decode(coded[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return StoredKey("google-vertex-ai", "", GoogleAccount(account), "authorization")
