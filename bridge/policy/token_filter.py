"""Accept a gateway's tokens where SDKs send a provider's key, and remove them from provider requests."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

import msgspec

from bridge.config.gateways import Gateway, authenticate, digest_of
from bridge.errors import BadField
from bridge.policy.token_words import token_words
from bridge.protocol.steps import ProviderStep
from bridge.providers import REGISTRY, Target
from bridge.providers.realtime import KEY_PROTOCOL, plain_value

KEY_HEADERS: Final = frozenset({"authorization", *(provider.credential.header for provider in REGISTRY.values())})
"""Headers in which the providers' SDKs send their key."""

MAX_KEPT: Final = 1024
MAX_KEPT_CHARS: Final = 512
"""Digests of recent texts up to this length are cached, in memory only."""


def token_as_key(gateway: Gateway, headers: Mapping[str, str]) -> str | None:
    """Return the name of the token that an SDK sends as its provider's key; None if there is none.

    `headers` have lower-case names.
    """
    found = (authenticate(gateway, _bare(headers[name])) for name in sorted(KEY_HEADERS & headers.keys()))
    return next((name for name in found if name is not None), None)


def token_as_key_protocol(gateway: Gateway, offered: Iterable[str]) -> str | None:
    """Return the name of the token that a browser sends as OpenAI key in a subprotocol; None if there is none."""
    keys = [value.removeprefix(KEY_PROTOCOL) for value in offered if value.startswith(KEY_PROTOCOL)]
    found = (authenticate(gateway, key) or authenticate(gateway, plain_value(key)) for key in keys)
    return next((name for name in found if name is not None), None)


def without_tokens(step: ProviderStep, gateway: Gateway) -> ProviderStep:
    """Return the step without the headers that contain a token of the gateway.

    The complete header is removed: a provider that is sent two credentials may log both. Raises BadField for a token
    in the endpoint, from which it cannot be removed.
    """
    if gateway.is_open:
        return step
    if holds_token(step.endpoint, gateway):
        raise _refusal("endpoint")
    headers = step.provider_headers.items()
    tokens = {name for name, value in headers if holds_token(value, gateway) or holds_token(name, gateway)}
    if not tokens:
        return step
    kept = {name: value for name, value in headers if name not in tokens}
    return msgspec.structs.replace(step, provider_headers=kept)


def check_target(target: Target, gateway: Gateway) -> None:
    """Raise BadField if the target URL contains a token, from an account id or a header."""
    if not gateway.is_open and holds_token(f"{target.host}/{target.raw_path.decode()}", gateway):
        raise _refusal("the provider's URL")


def protocols_without_tokens(protocols: Iterable[str], gateway: Gateway) -> tuple[str, ...]:
    """Return the WebSocket subprotocols that hold no token of the gateway."""
    return tuple(protocol for protocol in protocols if gateway.is_open or not holds_token(protocol, gateway))


def holds_token(text: str, gateway: Gateway) -> bool:
    """Return True if a word of the text, as written or decoded, is a token of the gateway."""
    digests = _kept_digests(text) if len(text) <= MAX_KEPT_CHARS else _digests(text)
    return not gateway.digests.isdisjoint(digests)


def _digests(text: str) -> frozenset[bytes]:
    return frozenset(map(digest_of, token_words(text)))


_kept_digests = lru_cache(MAX_KEPT)(_digests)


def _refusal(where: str) -> BadField:
    return BadField(
        f"{where}: holds a token of the gateway, which no provider may see; send it as header cf-aig-authorization"
    )


def _bare(value: str) -> str:
    """Return the credential without its scheme."""
    return value.strip().rpartition(" ")[2]
