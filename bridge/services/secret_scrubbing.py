"""The secrets that went out with an event's calls, by which they are known where a provider tells them back."""

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
"""Of a reason. A provider's words in it were cut before (`wire.faults`)."""
MAX_KEPT: Final = 256
"""Credentials and names that came of late, which need not be taken apart anew. They stay in memory alone."""
MAX_KEPT_CHARS: Final = 8192
"""Of one event's credentials that are kept, so that what is kept is bounded."""

Value = str | int | float | bool
Pairs = tuple[tuple[str, str], ...]
Carried = tuple[Pairs, str, StoredKey | None]
"""Secret headers, a query, and a stored key."""

_is_secret_name = lru_cache(MAX_KEPT)(is_secret_name)


def known_of(sent: tuple[SentSecrets, ...]) -> KnownSecrets:
    if not sent:
        return NO_SECRETS
    carried = tuple(map(_carried, sent))
    return _known(carried) if sum(map(_chars, carried)) <= MAX_KEPT_CHARS else _known.__wrapped__(carried)


def scrub(reason: str, known: KnownSecrets) -> str:
    """What may be told of a failure: its reason may be what a provider said."""
    said = known.mask(reason[:MAX_CHARS].encode(errors="replace"))
    if len(reason) >= MAX_MESSAGE_CHARS:
        said = known.mask_cut_end(said)
    return redact_text(said.decode(errors="replace"))


def shown_text(text: str, known: KnownSecrets) -> str:
    """What may be told of a short text that a client wrote: a name, a value of its metadata."""
    return redact_text(known.mask_text(text[:MAX_CHARS]))


def shown_metadata(metadata: Mapping[str, Value] | None, known: KnownSecrets) -> dict[str, Value]:
    """Its values without secrets; one with a secret name is one."""
    return {name: _shown_value(name, value, known) for name, value in (metadata or {}).items()}


def _shown_value(name: str, value: Value, known: KnownSecrets) -> Value:
    if not isinstance(value, str):
        return value
    return REDACTED if _is_secret_name(name[:MAX_CHARS]) else shown_text(value, known)


def _carried(sent: SentSecrets) -> Carried:
    return tuple(pair for pair in sent.headers.items() if _is_secret_name(pair[0])), sent.query, sent.key


def _chars(carried: Carried) -> int:
    headers, query, _ = carried
    return len(query) + sum(len(value) for _, value in headers)


@lru_cache(MAX_KEPT)
def _known(carried: tuple[Carried, ...]) -> KnownSecrets:
    return KnownSecrets(secret for each in carried for secret in _secrets(*each))


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
