"""Remove a gateway's stored key from provider responses: the client must not see it."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from bridge.config.keys import AwsKey, StoredKey
from bridge.formats.provider_errors import MAX_MESSAGE_CHARS, ProviderFault
from bridge.redact.known_secrets import NO_SECRETS, KnownSecrets
from bridge.tapes.exchange import secrets_of_header

MAX_KEPT: Final = 64
"""Number of recently used keys whose parsed secrets are cached, in memory only."""


def known_key(key: StoredKey | None, credential: str = "") -> KnownSecrets:
    """Return the secrets of a stored key; `credential` is the header made from it, if that holds another secret."""
    return NO_SECRETS if key is None else _known(key, credential)


@lru_cache(MAX_KEPT)
def _known(key: StoredKey, credential: str) -> KnownSecrets:
    secrets = list(secrets_of_header("authorization", credential))
    match key.secret:
        case str() as secret:
            secrets.append(secret)
        case AwsKey(access_key_id=key_id, secret_access_key=secret, session_token=token):
            secrets += key_id, secret, token or ""
    return KnownSecrets(secrets)


def concealed(body: bytes, known: KnownSecrets) -> bytes:
    """Return the body without the key. The length changes only if the key was written with JSON escapes."""
    hidden = known.mask(body)
    if known and b"\\u" in hidden:
        plain = _without_escapes(hidden)
        if (again := known.mask(plain)) != plain:
            return again
    return hidden


def concealed_fault(fault: ProviderFault, known: KnownSecrets) -> ProviderFault:
    if not known:
        return fault
    message = known.mask(fault.message.encode())
    if len(fault.message) >= MAX_MESSAGE_CHARS:
        message = known.mask_cut_end(message)
    return msgspec.structs.replace(fault, message=message.decode(errors="replace"))


def concealed_headers(headers: dict[str, str], known: KnownSecrets) -> dict[str, str]:
    """Return the headers without the key. One joint search handles the common case without a match."""
    if not known or known.mask_text(all_of := "\n".join(headers.values())) == all_of:
        return headers
    return {name: known.mask_text(value) for name, value in headers.items()}


def credential_in(before: Mapping[str, str], headers: list[tuple[str, str]]) -> str:
    """Return the authorization header that a stored key added to a call."""
    authorization = dict(headers).get("authorization", "")
    return "" if before.get("authorization") == authorization else authorization


def _without_escapes(body: bytes) -> bytes:
    try:
        return json.dumps(json.loads(body), ensure_ascii=False).encode(errors="replace")
    except (ValueError, RecursionError):
        return b""
