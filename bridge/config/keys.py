"""Provider keys stored for a gateway, used for requests without a key of their own."""

import hashlib
from dataclasses import dataclass, field

DEFAULT_ALIAS = "default"


@dataclass(frozen=True, slots=True)
class AwsKey:
    """Credentials for AWS Signature Version 4."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str | None = None
    """Used when the endpoint contains no region."""


@dataclass(frozen=True, slots=True)
class GoogleAccount:
    """A service account that requests access tokens; the JSON as issued by Google."""

    json: str = field(repr=False)


Secret = str | AwsKey | GoogleAccount


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key with its provider and alias."""

    provider: str
    """The provider's slug."""
    alias: str
    """Empty for a service account supplied by the request."""
    secret: Secret = field(repr=False)
    source: str
    """The configured form without the secret: `env:NAME` or `file:PATH`."""

    @property
    def digest(self) -> bytes:
        """Return a digest that distinguishes keys without revealing them. For cache keys."""
        match self.secret:
            case str():
                text = self.secret
            case AwsKey():
                text = f"{self.secret.access_key_id} {self.secret.secret_access_key}"
            case GoogleAccount():
                text = self.secret.json
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
