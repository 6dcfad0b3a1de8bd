"""`[gateways.NAME.tokens]`: who may use a gateway, and for what."""

import hashlib
import re
from collections.abc import Mapping
from functools import partial
from typing import Final

from bridge.config.gateways import Token, digest_of
from bridge.config.limit_toml import limit_takers, limits_from
from bridge.config.problems import Takers
from bridge.config.reader import Reader
from bridge.config.secrets import Secrets
from bridge.settings.kinds import Choice, refusal

_HEX_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{64}")
_EMPTY_DIGEST: Final = hashlib.sha256().digest()
STORED_KEY_ACCESS: Final = Choice(("models", "full"))
_SCOPES: Final = {
    "models": (re.compile(r"[^*\s]+\*?"), 'a list of models such as ["gpt-4o-mini", "claude-*"]'),
    "endpoints": (
        re.compile(r"[^/?#\s]+(?:/[^/?#\s]+)*+"),
        'a list of beginnings of endpoints such as ["v1/embeddings"]',
    ),
    "methods": (re.compile(r"[A-Z]{1,32}"), 'a list of methods such as ["POST"]'),
}
"""Forms of their elements, and what they are."""
_NOBODYS: Final = (b"", "")


def tokens_of(reader: Reader, given: object) -> tuple[Token, ...]:
    """One for each name, also for what cannot stand: without it the gateway could pass for an open one."""
    return tuple(_token(reader.below(name), name, value) for name, value in reader.table(given).items())


def _token(reader: Reader, name: str, given: object) -> Token:
    if not isinstance(given, Mapping):
        return Token(name, *_secret(reader, given))
    own: Takers = {
        "token": partial(_secret, reader.below("token")),
        "providers": reader.slugs,
        "stored_key_access": STORED_KEY_ACCESS.convert,
        **{name: partial(_scope, *scope) for name, scope in _SCOPES.items()},
    }
    taken = reader.take(given, {**own, **limit_takers(reader)})
    if "token" not in given:
        reader.problem('has no token; say which it is: token = "sha256:HEX"')
    limits = limits_from(reader, taken)
    digest, how = taken.get("token", _NOBODYS)
    scopes = {scope: taken[scope] for scope in _SCOPES if scope in taken}
    access = taken.get("stored_key_access")
    return Token(name, digest, how, taken.get("providers"), limits, stored_key_access=access, **scopes)


def _scope(form: re.Pattern[str], wanted: str, given: object) -> frozenset[str]:
    """An empty list is refused: it would allow nothing, and may be meant to allow all. Raises ValueError."""
    if not isinstance(given, list) or not given:
        raise refusal(given, wanted)
    if wrong := [each for each in given if not isinstance(each, str) or not form.fullmatch(each)]:
        raise refusal(wrong[0], f"one of {wanted}")
    return frozenset(given)


def _secret(reader: Reader, given: object) -> tuple[bytes, str]:
    try:
        return read_token(given, reader.secrets)
    except ValueError as error:
        reader.problem(str(error))
        return _NOBODYS


def read_token(given: object, secrets: Secrets) -> tuple[bytes, str]:
    """The digest of the token that `sha256:HEX`, `env:NAME` or `file:PATH` stands for, and how it is given.

    Raises ValueError, whose message never holds `given` where that may be the token itself.
    """
    form, _, rest = given.partition(":") if isinstance(given, str) else ("", "", "")
    if form == "sha256":
        return _from_hex(rest), form
    if form in {"env", "file"}:
        return digest_of(secrets.read(given, "a token")), f"{form}:{rest}"
    raise ValueError(
        'a token is given as "sha256:HEX", "env:NAME" or "file:PATH", never as plain text; '
        "what to write for one is the output of: bridge token --hash"
    )


def _from_hex(text: str) -> bytes:
    if not _HEX_DIGEST.fullmatch(text):
        raise ValueError("sha256: is followed by 64 hexadecimal digits, the output of: bridge token --hash")
    digest = bytes.fromhex(text)
    if digest == _EMPTY_DIGEST:
        raise ValueError("sha256 is of an empty token, which anybody could present")
    return digest
