"""Gateways and their tokens: access rules and default settings."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from bridge.config.keys import StoredKey
from bridge.config.limits import NO_LIMITS, Limits
from bridge.config.otel import OtelExporter
from bridge.settings.step import StepSettings

ANY: Final = "*"
"""The gateway that serves every name without a gateway of its own."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}|\*")

StoredKeyAccess = Literal["models", "full"]
"""The calls that may use stored keys: calls of model endpoints, or all."""

LogStrategy = Literal["STOP_INSERTING", "DELETE_OLDEST"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a gateway, with its scopes and limits."""

    name: str
    digest: bytes = field(repr=False)
    """SHA-256 of the token's UTF-8 bytes."""
    source: str = "sha256"
    """The configured form without the secret: `sha256`, `env:NAME` or `file:PATH`."""
    providers: frozenset[str] | None = None
    """Provider slugs that the token may call. None allows all, also in the fields below."""
    limits: Limits = NO_LIMITS
    models: frozenset[str] | None = None
    """Model names; a name that ends with `*` is a prefix."""
    endpoints: frozenset[str] | None = None
    """Endpoint prefixes of whole segments."""
    methods: frozenset[str] | None = None
    stored_key_access: StoredKeyAccess | None = None
    """Overrides the gateway's value."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A configured gateway with its defaults for steps."""

    name: str
    tokens: tuple[Token, ...] = ()
    settings: StepSettings = field(default_factory=StepSettings)
    compat: bool = False
    """Behave as expected by clients written for Cloudflare: no `universal.error` for a single event."""
    allowed_origins: tuple[str, ...] = ()
    """Origins allowed for an open gateway beside loopback ones; lower case."""
    allowed_hosts: tuple[str, ...] = ()
    keys: Mapping[tuple[str, str], StoredKey] = field(default_factory=dict)
    """Stored keys by provider slug and alias. An open gateway has none."""
    limits: Limits = NO_LIMITS
    stored_key_access: StoredKeyAccess = "models"
    """The default for tokens without a value."""
    cache_shared: bool = False
    """True if cached answers are shared between tokens and credentials."""
    collect_log_locked: bool = False
    """True if clients cannot choose if an event has a log row and if its bodies are stored."""
    log_rows: int = 0
    """Maximum number of rows in the request log; 0 is unlimited."""
    log_strategy: LogStrategy = "DELETE_OLDEST"
    """At the maximum: delete the oldest row, or stop inserting."""
    otel: tuple[OtelExporter, ...] = ()
    digests: frozenset[bytes] = field(init=False, repr=False, compare=False)
    """Digests of all tokens. Set lookup is safe against timing attacks: a client cannot choose the digest of a guess.
    """
    _by_name: Mapping[str, Token] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {token.name: token for token in self.tokens})
        object.__setattr__(self, "digests", frozenset(token.digest for token in self.tokens if token.digest))

    @property
    def is_open(self) -> bool:
        return not self.tokens

    def token(self, name: str) -> Token | None:
        return self._by_name.get(name)


def is_gateway_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def authenticate(gateway: Gateway, token: str) -> str | None:
    """Return the name of the presented token, or None. Runs in constant time and never raises."""
    name, presented = None, digest_of(token)
    for known in gateway.tokens:
        if hmac.compare_digest(known.digest, presented):
            name = known.name
    return name


def digest_of(token: str) -> bytes:
    # Headers with invalid UTF-8 contain lone surrogates; these must not match and not raise.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
