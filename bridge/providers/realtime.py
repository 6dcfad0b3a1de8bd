"""Translate the URL and subprotocols of a client's handshake into a provider's WebSocket handshake. Pure.

Keys are removed from the URL and the subprotocols and sent in the header that the provider expects. Provider-specific
data is in `registry.Realtime`.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from bridge.errors import BadField, EndpointRefused
from bridge.providers.endpoints import Target
from bridge.providers.registry import Credential, Provider
from bridge.providers.resolving import model_of, resolve
from bridge.redact.text import is_secret_name

TOKEN_PROTOCOL: Final = "cf-aig-authorization."  # noqa: S105 - the prefix of a gateway token
KEY_PROTOCOL: Final = "openai-insecure-api-key."
"""Prefix of the key in OpenAI's browser clients; here the key may be a gateway token."""
CREDENTIAL_PROTOCOLS: Final = (TOKEN_PROTOCOL, KEY_PROTOCOL, "xi-api-key.", "fal-api-key.")
"""Prefixes of subprotocols that are credentials, for any provider."""

_PAIR_SCHEMES: Final = {"token": "", "bearer": "Bearer"}
"""Subprotocols that are followed by a key, and their authorization scheme; empty is the provider's own."""

_PREFERRED: Final = "realtime"


@dataclass(frozen=True, slots=True)
class RealtimeHandshake:
    """A handshake with a provider. `endpoint` and `protocols` never contain the provider's key."""

    endpoint: str
    """Path and query below the provider's base URL."""
    key: tuple[str, str] | None
    """A header name and its value, from the URL or a subprotocol."""
    protocols: tuple[str, ...]
    """The client's subprotocols without credentials, to be offered to the provider."""
    model: str | None
    brings_key: bool
    """True if a parameter of `endpoint` is a secret: a signed URL, or a token for one session."""


def opening(provider: Provider, path: str, query: str, offered: Sequence[str]) -> RealtimeHandshake:
    """Return the handshake for a client's URL and subprotocols.

    `path` follows the provider's name, `query` follows the path; both are unmodified. Raises EndpointRefused for a URL
    without an endpoint, and BadField for a key that is not valid in a header.
    """
    settings, parameters = provider.realtime, list(_parameters(query))
    ours = {*settings.key_parameters, *(("model",) if settings.model_in_path and not path else ())}
    own = {name: value for name, value, _ in reversed(parameters) if name in ours and value}
    kept = [(name, text) for name, _, text in parameters if name not in ours]
    path = path or quote(own.get("model", ""), safe="@/:,") or settings.endpoint
    if not path:
        required = "a model (?model=)" if settings.model_in_path else "an endpoint"
        raise EndpointRefused(f"A realtime URL of {provider.slug} must contain {required} after the provider.")
    endpoint = f"{path}?{'&'.join(text for _, text in kept)}" if kept else path
    return RealtimeHandshake(
        endpoint,
        _offered_key(provider, offered) or _key_in_url(provider, own),
        tuple(offer.value for offer in _offers(offered) if offer.is_public and not offer.is_word),
        own.get("model") or model_of(endpoint, None),
        any(is_secret_name(name) for name, _ in kept),
    )


def socket_target(provider: Provider, endpoint: str, account: str) -> Target:
    """Return the target of the provider's WebSocket; http and https stand for ws and wss. Raises EndpointRefused."""
    routes = provider.realtime.routes or provider.routes
    return resolve(replace(provider, routes=routes, target_header=""), endpoint, account=account, headers={})


def select_subprotocol(offered: Sequence[str], choice: str | None) -> str | None:
    """Return the offered subprotocol to accept.

    Preference: the provider's choice, `realtime`, any without a credential, any. Browsers and Node's ws close the
    connection if they offered some and the answer has none, or another one.
    """
    public = [offer.value for offer in _offers(offered) if offer.is_public]
    if choice in public:
        return choice
    if _PREFERRED in public:
        return _PREFERRED
    return next(iter(public or offered), None)


def plain_value(text: str) -> str:
    """Return the value of a subprotocol; it may be percent- or base64url-encoded.

    A subprotocol is a token (RFC 6455, section 4.1) and so cannot contain a colon, as keys of fal do.
    """
    if "%" in text:
        return unquote(text, "latin-1")
    decoded = _from_base64url(text)
    return decoded if decoded and _NOT_A_TOKEN.search(decoded) else text


_NOT_A_TOKEN: Final = re.compile(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]{16,}")
"""Shorter values decode to visible text by chance too often."""
_VISIBLE: Final = re.compile(rb"[!-~]+")
_SENDABLE: Final = re.compile(r"[!-~]+")


def _from_base64url(text: str) -> str | None:
    """Return the decoded text; None unless all characters are visible."""
    if not _BASE64URL.fullmatch(text):
        return None
    try:
        decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return None
    return decoded.decode("ascii") if _VISIBLE.fullmatch(decoded) else None


def _offered_key(provider: Provider, offered: Sequence[str]) -> tuple[str, str] | None:
    settings, credential = provider.realtime, provider.credential
    for offer in _offers(offered):
        if offer.word and settings.key_pair:
            credential = replace(credential, scheme=_PAIR_SCHEMES[offer.word] or credential.scheme)
            return _header(credential, plain_value(offer.value), f"the subprotocol after {offer.word}")
        for prefix in settings.key_protocols:
            if offer.value.startswith(prefix):
                return _header(credential, plain_value(offer.value[len(prefix) :]), f"the subprotocol {prefix}KEY")
    return None


def _key_in_url(provider: Provider, own: Mapping[str, str]) -> tuple[str, str] | None:
    name = next((name for name in provider.realtime.key_parameters if name in own), None)
    return _header(provider.credential, own[name], f"the parameter {name}") if name else None


def _header(credential: Credential, key: str, source: str) -> tuple[str, str]:
    if not _SENDABLE.fullmatch(key):
        raise BadField(f"{source} contains no key that is valid in a header")
    return credential.header, credential.value(key)


class _Offer(NamedTuple):
    """An offered subprotocol."""

    value: str
    word: str
    """The word before a key, in lower case; empty if the value is not such a key."""
    is_word: bool
    """True for the word itself."""

    @property
    def is_public(self) -> bool:
        return not self.word and not self.value.startswith(CREDENTIAL_PROTOCOLS)


def _offers(offered: Sequence[str]) -> Iterator[_Offer]:
    word = ""
    for value, following in zip(offered, [*offered[1:], ""], strict=False):
        is_word = not word and value.lower() in _PAIR_SCHEMES
        is_word = is_word and following != "" and not following.startswith(CREDENTIAL_PROTOCOLS)
        yield _Offer(value, word, is_word)
        word = value.lower() if is_word else ""


def _parameters(query: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and the original text of each parameter."""
    for text in query.split("&"):
        if text:
            name, _, value = text.partition("=")
            yield unquote(name), unquote(value), text
