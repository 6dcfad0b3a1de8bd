"""Remove the secrets that were sent with an event's calls from texts that are shown, logged or exported."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from bridge.config.keys import AwsKey, StoredKey
from bridge.formats.provider_errors import MAX_MESSAGE_CHARS
from bridge.redact.known_secrets import NO_SECRETS, KnownSecrets
from bridge.redact.text import REDACTED, is_secret_name, redact_text
from bridge.relay.summary import SentSecrets
from bridge.tapes.exchange import secrets_of_header, secrets_of_url

MAX_CHARS: Final = 2048
"""Maximal length of a text. A provider's message was cut before, to `MAX_MESSAGE_CHARS`."""
MAX_KEPT: Final = 256
"""Recently used credentials and names whose analysis is cached, in memory only."""
MAX_KEPT_CHARS: Final = 8192
"""Maximal size of one event's credentials to be cached, which bounds the cache's memory."""

Value = str | int | float | bool
Pairs = tuple[tuple[str, str], ...]
Credentials = tuple[Pairs, str, StoredKey | None]
"""Secret headers, a query, and a stored key."""


_is_secret_name = lru_cache(MAX_KEPT)(is_secret_name)


def known_secrets_of(sent: tuple[SentSecrets, ...]) -> KnownSecrets:
    if not sent:
        return NO_SECRETS
    credentials = tuple(map(_credentials_of, sent))
    return _known(credentials) if sum(map(_chars, credentials)) <= MAX_KEPT_CHARS else _known.__wrapped__(credentials)


def scrub_reason(reason: str, known: KnownSecrets) -> str:
    """Return the reason of a failure without secrets. It may quote a provider that repeats them."""
    scrubbed = known.mask(reason[:MAX_CHARS].encode(errors="replace"))
    if len(reason) >= MAX_MESSAGE_CHARS:
        scrubbed = known.mask_cut_end(scrubbed)
    return redact_text(scrubbed.decode(errors="replace"))


def scrub_text(text: str, known: KnownSecrets) -> str:
    """Return a short text from a client (a name, a metadata value) without secrets."""
    return redact_text(known.mask_text(text[:MAX_CHARS]))


def scrub_metadata(metadata: Mapping[str, Value] | None, known: KnownSecrets) -> dict[str, Value]:
    """Return the metadata without secrets. A text whose name marks it as secret is replaced as a whole."""
    return {name: _scrub_value(name, value, known) for name, value in (metadata or {}).items()}


def _scrub_value(name: str, value: Value, known: KnownSecrets) -> Value:
    if not isinstance(value, str):
        return value
    return REDACTED if _is_secret_name(name[:MAX_CHARS]) else scrub_text(value, known)


def _credentials_of(sent: SentSecrets) -> Credentials:
    return tuple(pair for pair in sent.headers.items() if _is_secret_name(pair[0])), sent.query, sent.key


def _chars(credentials: Credentials) -> int:
    headers, query, _ = credentials
    return len(query) + sum(len(value) for _, value in headers)


@lru_cache(MAX_KEPT)
def _known(credentials: tuple[Credentials, ...]) -> KnownSecrets:
    return KnownSecrets(secret for each in credentials for secret in _secrets(*each))


def _secrets(headers: Pairs, query: str, key: StoredKey | None) -> Iterator[str]:
    for name, value in headers:
        yield from secrets_of_header(name, value)
    yield from secrets_of_url(f"?{query}")
    match key.secret if key else None:
        case str() as secret:
            yield secret
        case AwsKey(secret_access_key=secret, session_token=token):
            yield secret
            yield token or ""
