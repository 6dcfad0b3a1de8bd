"""Tokens of a gateway where a provider's key would be: taken as what they are, and kept from every provider."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

import msgspec

from bridge.config.gateways import Gateway, authenticate, digest_of, name_of
from bridge.errors import BadField
from bridge.providers import REGISTRY
from bridge.redact import is_secret_name
from bridge.wire.steps import Step

KEY_HEADERS: Final = frozenset({"authorization", *(provider.credential.header for provider in REGISTRY.values())})
"""Where the providers' SDKs put their key."""

_BETWEEN: Final = re.compile(r"[\s,]+")
"""A scheme and what follows it; and headers that came twice and were joined."""
_PAIRS: Final = re.compile(r"[&;]")

MAX_KEPT: Final = 256
"""Headers that came of late, which need not be digested anew for each event. They stay in memory alone."""

_is_secret_name = lru_cache(MAX_KEPT)(is_secret_name)


def token_as_key(gateway: Gateway, headers: Mapping[str, str]) -> str | None:
    """The name of the token that an SDK presents as its provider's key; `headers` with lower-case names."""
    found = (authenticate(gateway, _bare(headers[name])) for name in sorted(KEY_HEADERS & headers.keys()))
    return next((name for name in found if name is not None), None)


def without_tokens(step: Step, gateway: Gateway) -> Step:
    """The step as a provider may see it. Raises BadField for a token in the URL, where it cannot be taken out."""
    if gateway.is_open:
        return step
    _check_query(step.endpoint, gateway)
    tokens = {
        name for name, value in step.provider_headers.items() if _is_secret_name(name) and _holds_token(value, gateway)
    }
    if not tokens:
        return step
    kept = {name: value for name, value in step.provider_headers.items() if name not in tokens}
    return msgspec.structs.replace(step, provider_headers=kept)


def _check_query(endpoint: str, gateway: Gateway) -> None:
    query = endpoint.partition("?")[2]
    for pair in _PAIRS.split(query) if query else ():
        name, _, value = pair.partition("=")
        if is_secret_name(unquote(name)) and authenticate(gateway, unquote(value)) is not None:
            raise BadField(
                f"endpoint: {name[:64]} in the query is a token of the gateway, which no provider may see; "
                "send it as header cf-aig-authorization"
            )


def _bare(value: str) -> str:
    """Without the scheme that may stand before it."""
    return value.strip().rpartition(" ")[2]


def _holds_token(value: str, gateway: Gateway) -> bool:
    """In whichever place: a provider that is sent two credentials may log both."""
    return any(name_of(gateway, digest) is not None for digest in _digests_in(value))


@lru_cache(MAX_KEPT)
def _digests_in(value: str) -> tuple[bytes, ...]:
    return tuple(map(digest_of, _BETWEEN.split(value.strip())))
