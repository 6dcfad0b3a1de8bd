"""Providers' keys that a gateway keeps, to be used for requests that bring none."""

import hashlib
from dataclasses import dataclass, field

DEFAULT_ALIAS = "default"


@dataclass(frozen=True, slots=True)
class AwsKey:
    """What SigV4 signs with."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str | None = None
    """Where the endpoint names none."""


@dataclass(frozen=True, slots=True)
class GoogleAccount:
    """A service account, which mints access tokens; its JSON as Google issues it."""

    json: str = field(repr=False)


Secret = str | AwsKey | GoogleAccount


@dataclass(frozen=True, slots=True)
class StoredKey:
    provider: str
    """A slug."""
    alias: str
    """Empty for a service account that a request brought itself."""
    secret: Secret = field(repr=False)
    given: str
    """How the configuration gives it, without the secret: `env:NAME` or `file:PATH`."""

    @property
    def digest(self) -> bytes:
        """Tells two keys apart without telling either. For cache keys."""
        match self.secret:
            case str():
                told = self.secret
            case AwsKey():
                told = f"{self.secret.access_key_id} {self.secret.secret_access_key}"
            case GoogleAccount():
                told = self.secret.json
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest()
