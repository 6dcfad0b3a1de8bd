"""Decide if an answer may come from the cache, how old it may be, and under which key it is stored. Pure.

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
DEFAULT_KEYED_TTL_S: Final = 300
"""Lifetime of answers to requests that name a cache key without a lifetime."""

_CACHEABLE: Final = {"GET", "HEAD", "POST"}
"""Cacheable methods of RFC 9110, section 9.2.3. The others are called for their effect."""

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
"""Headers that identify the client or the try and do not change the answer: user agents, traces, telemetry, retries."""

_NOT_CREDENTIALS: Final = {
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
"""Headers that are known to carry no credential. Any other may carry one: providers choose the names of theirs."""


class CacheableRequest(NamedTuple):
    """The parts of a request that its answer may depend on.

    The account is left out: the caller chooses it freely, and where it matters (URLs of Workers AI) the URL holds it.
    """

    gateway: str
    token: str
    """The name of the gateway's token; empty for an open gateway."""
    provider: str
    """A slug."""
    method: str
    target: Target
    headers: Sequence[tuple[str, str]]
    """The forwarded headers, with names in lower case."""
    body: bytes
    stored_key: bytes = b""
    """A digest of the gateway's stored key, if the call uses one."""


def ttl_s(settings: StepSettings, method: str, body: bytes) -> int:
    """Return the maximal age in seconds of a stored answer, which is also the lifetime of a new one.

    With 0 the cache is neither read nor written, and the call is not shared.
    """
    if settings.skip_cache or method not in _CACHEABLE or len(body) > MAX_REQUEST_BYTES:
        return 0
    return settings.cache_ttl or (DEFAULT_KEYED_TTL_S if settings.cache_key else 0)


def is_fresh(stored_at: float, stored_ttl_s: float, requested_ttl_s: float, now: float) -> bool:
    """Return True if a stored answer may be used. The shorter of both lifetimes counts.

    A request with a lifetime of a minute gets no older answer, although another request stored it for a day.
    """
    return now - stored_at < min(stored_ttl_s, requested_ttl_s)


def key_of(request: CacheableRequest, cache_key: str | None, *, is_shared: bool) -> bytes:
    """Return the digest under which the answer is stored.

    A `cache_key` of the request replaces URL, headers and body, but never gateway, token, provider and credential.
    Otherwise a client that guesses another tenant's key could read that tenant's answers or store one for it, and a
    fallback would get an answer in the format of the provider before it. With a `cache_key`, every header that could
    carry a credential counts as one. `is_shared` leaves out the token and the credential.
    """
    secret, varying = _split_headers(request.headers)
    target = request.target
    if cache_key is not None:
        secret += [header for header in varying if header[0] not in _NOT_CREDENTIALS]
        secret += _secrets_in(target.raw_path)
    token, credential = ("", b"") if is_shared else (request.token, _digest((request.stored_key, secret)))
    scope = (request.gateway, token, request.provider, credential)
    if cache_key is not None:
        return _digest((*scope, cache_key))
    url = (target.scheme, target.host, target.port, target.raw_path)
    return _digest((*scope, request.method, url, varying), request.body)


def _digest(parts: tuple[object, ...], body: bytes = b"") -> bytes:
    # An ASCII literal is self-delimiting, so a body cannot imitate one of the parts.
    digest = hashlib.sha256(ascii(parts).encode())
    digest.update(body)
    return digest.digest()


def _split_headers(headers: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the headers that carry credentials, and those that the answer may depend on. Both are sorted."""
    secret, varying = [], []
    for header in sorted(headers):
        match _role(header[0]):
            case _Role.SECRET:
                secret.append(header)
            case _Role.VARYING:
                varying.append(header)
    return secret, varying


def _secrets_in(path: bytes) -> list[tuple[str, str]]:
    """Return the credentials in a URL's query, such as Google's `?key=`."""
    pairs = (pair.partition("=") for pair in re.split("[&;]", path.partition(b"?")[2].decode("ascii")))
    return sorted((name, value) for name, _, value in pairs if is_secret_name(unquote(name)))


class _Role(Enum):
    SECRET = auto()
    VARYING = auto()
    IGNORED = auto()


@lru_cache(maxsize=1024)
def _role(name: str) -> _Role:
    if is_secret_name(name):
        return _Role.SECRET
    is_ignored = name in _IGNORED_HEADERS or name.startswith(_IGNORED_PREFIXES)
    return _Role.IGNORED if is_ignored else _Role.VARYING
