"""Whether an answer may come from the cache, how old it may be, and under which key it lies there.

Limits and defaults are Cloudflare's: developers.cloudflare.com/ai-gateway/features/caching, reference/limits.
"""

import hashlib
import re
from collections.abc import Sequence
from enum import Enum, auto
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

from bridge.providers import Target
from bridge.redact.text import is_secret_name
from bridge.settings.step import StepSettings

MAX_REQUEST_BYTES: Final = 25 << 20
MAX_ANSWER_BYTES: Final = 25 << 20
KEYED_TTL_S: Final = 300
"""Where a request names its cache key, and nobody says for how long."""

_CACHEABLE: Final = {"GET", "HEAD", "POST"}
"""RFC 9110, section 9.2.3. The other methods are asked for what they do, not for what they answer."""

_IGNORED_HEADERS: Final = {
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "b3",
    "baggage",
    "idempotency-key",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "uber-trace-id",
    "user-agent",
    "x-amz-user-agent",
    "x-amzn-trace-id",
    "x-client-request-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-goog-api-client",
    "x-idempotency-key",
    "x-ms-client-request-id",
    "x-request-id",
}
_IGNORED_PREFIXES: Final = ("x-b3-", "x-datadog-", "x-fern-", "x-stainless-")
"""Headers that say who asks, or which time, and not what is asked: user agents, traces, SDK telemetry, retries."""

_NO_CREDENTIALS: Final = {
    "accept",
    "accept-language",
    "anthropic-beta",
    "anthropic-version",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-type",
    "http-referer",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "origin",
    "prefer",
    "referer",
    "x-title",
}
"""Headers of which it is known that they carry no credential. Any other may: providers choose the names of theirs."""


class CacheableRequest(NamedTuple):
    """All of a request that its answer may depend on. The account is not among it: it is a label that whoever calls
    may choose, and where it says something, which is in Workers AI's URLs, it is a part of the URL."""

    gateway: str
    token: str
    """The name of the gateway's token; empty for an open gateway."""
    provider: str
    """A slug."""
    method: str
    target: Target
    headers: Sequence[tuple[str, str]]
    """As they are forwarded, names in lower case."""
    body: bytes
    stored_key: bytes = b""
    """A digest of the gateway's own key, where that is used."""


def ttl_s(settings: StepSettings, method: str, body: bytes) -> int:
    """How old an answer may be, and how long a new one is kept; 0: neither is the cache read, nor written, nor is the
    call shared."""
    if settings.skip_cache or method not in _CACHEABLE or len(body) > MAX_REQUEST_BYTES:
        return 0
    return settings.cache_ttl or (KEYED_TTL_S if settings.cache_key else 0)


def is_fresh(stored_at: float, kept_s: float, ttl: float, now: float) -> bool:
    """Whether whoever asks with `ttl` may have an answer that was stored to be kept for so long: the shorter counts.

    Who asks for nothing older than a minute gets nothing older, though another had it stored for a day.
    """
    return now - stored_at < min(kept_s, ttl)


def key_of(request: CacheableRequest, cache_key: str | None, *, is_shared: bool) -> bytes:
    """Return the digest under which the answer is stored.

    A `cache_key` of the request's own stands for URL, headers and body, but never for gateway, token, provider and
    credential: else whoever guesses another tenant's key could read that tenant's answers, or store an answer for
    the other to read; and a fallback would be answered in the dialect of the provider before it. With it, every header
    that could carry a credential counts as one. `is_shared` leaves the token and the credential out.
    """
    secret, told = _split_headers(request.headers)
    target = request.target
    if cache_key is not None:
        secret += [header for header in told if header[0] not in _NO_CREDENTIALS]
        secret += _secrets_in(target.raw_path)
    token, credential = ("", b"") if is_shared else (request.token, _digest((request.stored_key, secret)))
    scope = (request.gateway, token, request.provider, credential)
    if cache_key is not None:
        return _digest((*scope, cache_key))
    url = (target.scheme, target.host, target.port, target.raw_path)
    return _digest((*scope, request.method, url, told), request.body)


def _digest(parts: tuple[object, ...], body: bytes = b"") -> bytes:
    # ASCII, and a literal: whatever the parts hold, what follows cannot be taken for one of them.
    digest = hashlib.sha256(ascii(parts).encode())
    digest.update(body)
    return digest.digest()


def _split_headers(headers: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Those that are secret, whichever header a credential comes in; and those that the answer may depend on."""
    secret, told = [], []
    for header in sorted(headers):
        match _role(header[0]):
            case _Role.SECRET:
                secret.append(header)
            case _Role.TOLD:
                told.append(header)
    return secret, told


def _secrets_in(path: bytes) -> list[tuple[str, str]]:
    """The credentials of a URL's query, as Google's `?key=`."""
    pairs = (pair.partition("=") for pair in re.split("[&;]", path.partition(b"?")[2].decode("ascii")))
    return sorted((name, value) for name, _, value in pairs if is_secret_name(unquote(name)))


class _Role(Enum):
    SECRET = auto()
    TOLD = auto()
    LEFT_OUT = auto()


@lru_cache(maxsize=1024)
def _role(name: str) -> _Role:
    if is_secret_name(name):
        return _Role.SECRET
    is_left_out = name in _IGNORED_HEADERS or name.startswith(_IGNORED_PREFIXES)
    return _Role.LEFT_OUT if is_left_out else _Role.TOLD
