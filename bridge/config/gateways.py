"""Gateways and their tokens: who may use the bridge, and with which defaults."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bridge.config.keys import StoredKey
from bridge.config.limits import NO_LIMITS, Limits
from bridge.settings.step import StepSettings

ANY: Final = "*"
"""The gateway that stands in for every name that has none of its own."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}|\*")
_HEX_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{64}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EMPTY_DIGEST: Final = hashlib.sha256().digest()
_MAX_TOKEN_FILE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Token:
    name: str
    digest: bytes = field(repr=False)
    """SHA-256 of the token's UTF-8 bytes."""
    given: str = "sha256"
    """How the configuration gives it, without the secret: `sha256`, `env:NAME` or `file:PATH`."""
    providers: frozenset[str] | None = None
    """The slugs that it may call; None for any."""
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class Gateway:
    name: str
    tokens: tuple[Token, ...] = ()
    settings: StepSettings = field(default_factory=StepSettings)
    compat: bool = False
    """Speak as to a client written for Cloudflare, without `universal.error` for an event."""
    allowed_origins: tuple[str, ...] = ()
    """Beside loopback ones, for an open gateway; lower case."""
    allowed_hosts: tuple[str, ...] = ()
    keys: Mapping[tuple[str, str], StoredKey] = field(default_factory=dict)
    """By provider's slug and alias. An open gateway has none."""
    limits: Limits = NO_LIMITS
    cache_shared: bool = False
    """The cache gives an answer to whoever asks the same, with whichever credential."""
    log_rows: int = 0
    """How many rows of its events the request log keeps at most; 0 for any number."""

    @property
    def is_open(self) -> bool:
        return not self.tokens

    def token(self, name: str) -> Token | None:
        return next((token for token in self.tokens if token.name == name), None)


def is_gateway_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def authenticate(gateway: Gateway, token: str) -> str | None:
    """The name of the token that was presented, or None. Takes as long whichever it is, and never raises."""
    presented = _digest(token)
    name = None
    for known in gateway.tokens:
        if hmac.compare_digest(known.digest, presented):
            name = known.name
    return name


def read_token(name: str, given: object, folder: Path, environ: Mapping[str, str]) -> Token:
    """The token that `sha256:HEX`, `env:NAME` or `file:PATH`, relative to `folder`, stands for.

    Raises ValueError, whose message never holds `given` where that may be the token itself.
    """
    form, _, rest = given.partition(":") if isinstance(given, str) else ("", "", "")
    if form == "sha256":
        return _checked(Token(name, _from_hex(rest)))
    if form == "env" and _VARIABLE.fullmatch(rest):
        return _checked(Token(name, _digest(_from_environment(rest, environ)), f"env:{rest}"))
    if form == "file" and rest:
        return _checked(Token(name, _digest(_from_file(folder / Path(rest).expanduser())), f"file:{rest}"))
    raise ValueError(
        'a token is given as "sha256:HEX", "env:NAME" or "file:PATH", never as plain text; '
        "HEX is the output of: printf %s TOKEN | sha256sum"
    )


def _digest(token: str) -> bytes:
    # A header that was no UTF-8 reaches us with lone surrogates; they must fail to match, not raise.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _checked(token: Token) -> Token:
    if token.digest == _EMPTY_DIGEST:
        raise ValueError(f"{token.given} is an empty token, which anybody could present")
    return token


def _from_hex(text: str) -> bytes:
    if not _HEX_DIGEST.fullmatch(text):
        raise ValueError("sha256: is followed by 64 hexadecimal digits, the output of: printf %s TOKEN | sha256sum")
    return bytes.fromhex(text)


def _from_environment(variable: str, environ: Mapping[str, str]) -> str:
    if variable not in environ:
        raise ValueError(f"the environment variable {variable} is not set")
    return environ[variable].strip()


def _from_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_TOKEN_FILE_BYTES).decode().strip()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} does not hold a token: it is not UTF-8 text") from None
