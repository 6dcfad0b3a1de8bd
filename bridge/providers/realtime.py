"""What the URL and the subprotocols of a client's handshake ask a provider's WebSocket for.

Pure. Keys leave the URL and the subprotocols here, and go on in the header in which the provider wants them. What a
provider's sockets have of their own is data: `registry.Realtime`.
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

TOKEN_PROTOCOL: Final = "cf-aig-authorization."  # noqa: S105 - what stands before the gateway's token
KEY_PROTOCOL: Final = "openai-insecure-api-key."
"""Browsers' clients for OpenAI put their key behind it; here it may be a gateway's token."""
CREDENTIAL_PROTOCOLS: Final = (TOKEN_PROTOCOL, KEY_PROTOCOL, "xi-api-key.", "fal-api-key.")
"""What a subprotocol begins with that is a credential, at whichever provider."""

_PAIR_SCHEMES: Final = {"token": "", "bearer": "Bearer"}
"""The subprotocols whose next one is a key, and the scheme that they stand for; empty is the provider's own."""

_PREFERRED: Final = "realtime"


@dataclass(frozen=True, slots=True)
class RealtimeHandshake:
    """What is to be asked of a provider. Nothing in `endpoint` and `protocols` is the provider's key."""

    endpoint: str
    """Path and query below the provider's base URL."""
    key: tuple[str, str] | None
    """A header and its value, from the URL or a subprotocol."""
    protocols: tuple[str, ...]
    """To be offered to the provider: what the client offered, without credentials."""
    model: str | None
    brings_key: bool
    """A parameter of `endpoint` is a secret: a signed URL, or a token for one session."""


def opening(provider: Provider, path: str, query: str, offered: Sequence[str]) -> RealtimeHandshake:
    """`path` is what follows the provider's name, and `query` what follows that, both as they were written.

    Raises EndpointRefused for a URL that names no endpoint, BadField for a key that no header can hold.
    """
    row, parameters = provider.realtime, list(_parameters(query))
    ours = {*row.key_parameters, *(("model",) if row.model_in_path and not path else ())}
    taken = {name: value for name, value, _ in reversed(parameters) if name in ours and value}
    kept = [(name, written) for name, _, written in parameters if name not in ours]
    path = path or quote(taken.get("model", ""), safe="@/:,") or row.endpoint
    if not path:
        wanted = "a model (?model=)" if row.model_in_path else "an endpoint"
        raise EndpointRefused(f"A realtime URL of {provider.slug} has to name {wanted} behind the provider.")
    endpoint = f"{path}?{'&'.join(written for _, written in kept)}" if kept else path
    return RealtimeHandshake(
        endpoint,
        _offered_key(provider, offered) or _key_in_url(provider, taken),
        tuple(offer.value for offer in _offers(offered) if offer.is_innocent and not offer.is_word),
        taken.get("model") or model_of(endpoint, None),
        any(is_secret_name(name) for name, _ in kept),
    )


def socket_target(provider: Provider, endpoint: str, account: str) -> Target:
    """Where the provider's socket is; http and https stand for ws and wss. Raises EndpointRefused."""
    routes = provider.realtime.routes or provider.routes
    return resolve(replace(provider, routes=routes, target_header=""), endpoint, account=account, headers={})


def select_subprotocol(offered: Sequence[str], picked: str | None) -> str | None:
    """The one offered subprotocol to answer with: the provider's choice, `realtime`, any without a credential, any.

    Browsers and Node's ws break off when they offered some and none comes back, or another one.
    """
    innocent = [offer.value for offer in _offers(offered) if offer.is_innocent]
    if picked in innocent:
        return picked
    if _PREFERRED in innocent:
        return _PREFERRED
    return next(iter(innocent or offered), None)


def plain_value(written: str) -> str:
    """What a subprotocol carries: as it is, or percent- or base64url-encoded if it could not be one as it is.

    A subprotocol is a token (RFC 6455, section 4.1) and so holds no colon, for one, which a key of fal's does.
    """
    if "%" in written:
        return unquote(written, "latin-1")
    decoded = _from_base64url(written)
    return decoded if decoded and _NO_TOKEN.search(decoded) else written


_NO_TOKEN: Final = re.compile(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]{16,}")
"""Shorter ones make sense by chance too often."""
_VISIBLE: Final = re.compile(rb"[!-~]+")
_SENDABLE: Final = re.compile(r"[!-~]+")


def _from_base64url(written: str) -> str | None:
    """None for what decodes to anything but visible characters: it was no base64url then."""
    if not _BASE64URL.fullmatch(written):
        return None
    try:
        decoded = base64.urlsafe_b64decode(written + "=" * (-len(written) % 4))
    except binascii.Error:
        return None
    return decoded.decode("ascii") if _VISIBLE.fullmatch(decoded) else None


def _offered_key(provider: Provider, offered: Sequence[str]) -> tuple[str, str] | None:
    row, credential = provider.realtime, provider.credential
    for offer in _offers(offered):
        if offer.word and row.key_pair:
            credential = replace(credential, scheme=_PAIR_SCHEMES[offer.word] or credential.scheme)
            return _header(credential, plain_value(offer.value), f"the subprotocol behind {offer.word}")
        for prefix in row.key_protocols:
            if offer.value.startswith(prefix):
                return _header(credential, plain_value(offer.value[len(prefix) :]), f"the subprotocol {prefix}KEY")
    return None


def _key_in_url(provider: Provider, taken: Mapping[str, str]) -> tuple[str, str] | None:
    name = next((name for name in provider.realtime.key_parameters if name in taken), None)
    return _header(provider.credential, taken[name], f"the parameter {name}") if name else None


def _header(credential: Credential, key: str, where: str) -> tuple[str, str]:
    if not _SENDABLE.fullmatch(key):
        raise BadField(f"{where} holds no key that a header could carry")
    return credential.header, credential.value(key)


class _Offer(NamedTuple):
    value: str
    word: str
    """The first of the pair whose key it is, in lower case; empty for what is no such key."""
    is_word: bool
    """It is the first of a pair."""

    @property
    def is_innocent(self) -> bool:
        return not self.word and not self.value.startswith(CREDENTIAL_PROTOCOLS)


def _offers(offered: Sequence[str]) -> Iterator[_Offer]:
    word = ""
    for value, following in zip(offered, [*offered[1:], ""], strict=False):
        is_word = not word and value.lower() in _PAIR_SCHEMES
        is_word = is_word and following != "" and not following.startswith(CREDENTIAL_PROTOCOLS)
        yield _Offer(value, word, is_word)
        word = value.lower() if is_word else ""


def _parameters(query: str) -> Iterator[tuple[str, str, str]]:
    """Name, value, and the pair as it was written."""
    for written in query.split("&"):
        if written:
            name, _, value = written.partition("=")
            yield unquote(name), unquote(value), written
