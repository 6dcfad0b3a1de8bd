"""Gateways and their tokens: who may use the bridge, and with which defaults."""

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
"""The gateway that stands in for every name that has none of its own."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}|\*")

StoredKeyAccess = Literal["models", "full"]
"""The calls that stored keys are used for: those that make models answer, or all."""

LogStrategy = Literal["STOP_INSERTING", "DELETE_OLDEST"]


@dataclass(frozen=True, slots=True)
class Token:
    name: str
    digest: bytes = field(repr=False)
    """SHA-256 of the token's UTF-8 bytes."""
    given: str = "sha256"
    """How the configuration gives it, without the secret: `sha256`, `env:NAME` or `file:PATH`."""
    providers: frozenset[str] | None = None
    """The slugs that it may call; None for any, as in what follows."""
    limits: Limits = NO_LIMITS
    models: frozenset[str] | None = None
    """Names of models; one that ends with `*` is the beginning of names."""
    endpoints: frozenset[str] | None = None
    """Beginnings of endpoints, whole segments."""
    methods: frozenset[str] | None = None
    stored_key_access: StoredKeyAccess | None = None
    """In place of the gateway's."""


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
    stored_key_access: StoredKeyAccess = "models"
    """For tokens that say nothing of their own."""
    cache_shared: bool = False
    """The cache gives an answer to whoever asks the same, with whichever token and credential."""
    collect_log_locked: bool = False
    """Clients choose neither if an event has a row in the request log nor if its bodies are kept there."""
    log_rows: int = 0
    """How many rows of its events the request log keeps at most; 0 for any number."""
    log_strategy: LogStrategy = "DELETE_OLDEST"
    """What makes room once there are so many: the oldest row goes, or no new one is kept."""
    otel: tuple[OtelExporter, ...] = ()
    digests: frozenset[bytes] = field(init=False, repr=False, compare=False)
    """Of all tokens. To look one up takes a time that tells nothing: nobody can choose the digest of a guess."""
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
    """The name of the token that was presented, or None. Takes as long whichever it is, and never raises."""
    name, presented = None, digest_of(token)
    for known in gateway.tokens:
        if hmac.compare_digest(known.digest, presented):
            name = known.name
    return name


def digest_of(token: str) -> bytes:
    # A header that was no UTF-8 reaches us with lone surrogates; they must fail to match, not raise.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
