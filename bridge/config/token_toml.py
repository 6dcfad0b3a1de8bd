"""Read `[gateways.NAME.tokens]`: tokens with their scopes and limits."""

import hashlib
import re
from collections.abc import Mapping
from functools import partial
from typing import Final

from bridge.config.gateways import Token, digest_of
from bridge.config.limit_toml import limit_converters, limits_from
from bridge.config.problems import Converters
from bridge.config.reader import Reader
from bridge.config.secrets import Secrets
from bridge.settings.kinds import Choice, refusal

_HEX_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{64}")
_EMPTY_DIGEST: Final = hashlib.sha256().digest()
STORED_KEY_ACCESS: Final = Choice(("models", "full"))
_SCOPES: Final = {
    "models": (re.compile(r"[^*\s]+\*?"), 'a list of models such as ["gpt-4o-mini", "claude-*"]'),
    "endpoints": (
        re.compile(r"[^/?#\s]++(?:/[^/?#\s]++)*"),
        'a list of beginnings of endpoints such as ["v1/embeddings"]',
    ),
    "methods": (re.compile(r"[A-Z]{1,32}"), 'a list of methods such as ["POST"]'),
}
"""The pattern of an element and its description, by scope."""
_NO_TOKEN: Final = (b"", "")


def tokens_of(reader: Reader, value: object) -> tuple[Token, ...]:
    """Return one token for each name, also for invalid ones: without tokens a gateway would be open."""
    return tuple(_token(reader.below(name), name, value) for name, value in reader.table(value).items())


def _token(reader: Reader, name: str, value: object) -> Token:
    if not isinstance(value, Mapping):
        return Token(name, *_secret(reader, value))
    own: Converters = {
        "token": partial(_secret, reader.below("token")),
        "providers": reader.slugs,
        "stored_key_access": STORED_KEY_ACCESS.convert,
        **{name: partial(_scope, *scope) for name, scope in _SCOPES.items()},
    }
    values = reader.take(value, {**own, **limit_converters(reader)})
    if "token" not in value:
        reader.problem('has no token; add one: token = "sha256:HEX"')
    limits = limits_from(reader, values)
    digest, source = values.get("token", _NO_TOKEN)
    scopes = {scope: values[scope] for scope in _SCOPES if scope in values}
    access = values.get("stored_key_access")
    return Token(name, digest, source, values.get("providers"), limits, stored_key_access=access, **scopes)


def _scope(kind: re.Pattern[str], expected: str, value: object) -> frozenset[str]:
    """Convert a scope. An empty list is refused: it would allow nothing but could be meant to allow all.

    Raises ValueError.
    """
    if not isinstance(value, list) or not value:
        raise refusal(value, expected)
    if invalid := [each for each in value if not isinstance(each, str) or not kind.fullmatch(each)]:
        raise refusal(invalid[0], f"one of {expected}")
    return frozenset(value)


def _secret(reader: Reader, value: object) -> tuple[bytes, str]:
    try:
        return read_token(value, reader.secrets)
    except ValueError as error:
        reader.problem(str(error))
        return _NO_TOKEN


def read_token(value: object, secrets: Secrets) -> tuple[bytes, str]:
    """Return the digest of the token that `sha256:HEX`, `env:NAME` or `file:PATH` names, and its configured form.

    Raises ValueError, whose message never contains a value that may be the token itself.
    """
    kind, _, reference = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind == "sha256":
        return _from_hex(reference), kind
    if kind in {"env", "file"}:
        return digest_of(secrets.read(value, "a token")), f"{kind}:{reference}"
    raise ValueError(
        'a token must be given as "sha256:HEX", "env:NAME" or "file:PATH", never as plain text; '
        "print the hash of a token with: bridge token --hash"
    )


def _from_hex(text: str) -> bytes:
    if not _HEX_DIGEST.fullmatch(text):
        raise ValueError("sha256: must be followed by 64 hexadecimal digits, the output of: bridge token --hash")
    digest = bytes.fromhex(text)
    if digest == _EMPTY_DIGEST:
        raise ValueError("this is the SHA-256 of an empty token, which anyone could present")
    return digest
