"""Access tokens for Google service accounts, requested by JWT grant and cached until shortly before they expire.

RFC 7523, as described at developers.google.com/identity/protocols/oauth2/service-account. google-auth (the extra `gcp`)
signs; the token request uses a separate upstream that is never recorded on tape.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from bridge.config.keys import GoogleAccount
from bridge.errors import BridgeError, KeyUnusable
from bridge.providers import Target
from bridge.upstream.answer import UpstreamResponse, reads_of
from bridge.upstream.http import Call, Upstream

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_S: Final = 3600
EARLY_S: Final = 300.0
"""A token is replaced this long before it expires; it stays valid if the replacement fails."""
PAUSE_S: Final = 1.0
"""For this long after a failure, callers get the same error and Google is not called."""
REQUEST_TIMEOUT_S: Final = 30.0
MAX_RESPONSE_BYTES: Final = 65_536
MAX_ACCOUNTS: Final = 1024
MAX_KEY_CHARS: Final = 2500
"""Limit of a client-supplied private key: RSA with 3072 bits; Google issues 2048 bits. Checking a key takes some tenths
of a second at that size, and eight seconds at 8192 bits.
"""
_GOOGLE_URL: Final = re.compile(r"https://(?:[a-z0-9-]+\.)+googleapis\.com/[!-~]*")


class _Account(msgspec.Struct):
    client_email: str
    private_key: str
    token_uri: str
    private_key_id: str | None = None


class _TokenResponse(msgspec.Struct):
    access_token: str
    expires_in: float = 3600.0


@dataclass(slots=True)
class _CachedToken:
    """The token of one account. The task that holds the lock requests it; the others use the result."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    token: str = field(default="", repr=False)
    expires_at: float = 0.0
    failed_at: float = float("-inf")
    why: str = ""


class GoogleTokens:
    """Access tokens by account. Owns `upstream`. Times are the loop's clock."""

    def __init__(self, upstream: Callable[[], Upstream]) -> None:
        """`upstream` is called once, when the first token is requested."""
        self._make_upstream = upstream
        self._upstream: Upstream | None = None
        self._accounts: OrderedDict[bytes, _CachedToken] = OrderedDict()
        self._checking = asyncio.Lock()
        """Held while a client-supplied key is checked, so that these checks use one thread at a time."""

    async def token(self, account: GoogleAccount, *, trusted: bool) -> str:
        """Return a valid token. For client-supplied accounts (not `trusted`) only googleapis.com is contacted.

        Raises KeyUnusable.
        """
        cached = self._entry(hashlib.sha256(account.json.encode()).digest())
        now = asyncio.get_running_loop().time
        if now() >= cached.expires_at - EARLY_S:
            async with cached.lock:
                if now() >= max(cached.expires_at - EARLY_S, cached.failed_at + PAUSE_S):
                    await self._renew(cached, account, trusted)
        if now() >= cached.expires_at:
            raise KeyUnusable(cached.why)
        return cached.token

    async def aclose(self) -> None:
        if self._upstream is not None:
            await self._upstream.aclose()

    def _entry(self, digest: bytes) -> _CachedToken:
        """Return the cache entry of an account; the least recently used is evicted above `MAX_ACCOUNTS`."""
        cached = self._accounts.setdefault(digest, _CachedToken())
        self._accounts.move_to_end(digest)
        if len(self._accounts) > MAX_ACCOUNTS:
            self._accounts.popitem(last=False)
        return cached

    async def _renew(self, cached: _CachedToken, account: GoogleAccount, trusted: bool) -> None:
        now = asyncio.get_running_loop().time
        try:
            parsed = _read(account, trusted)
            async with nullcontext() if trusted else self._checking:
                assertion = await asyncio.to_thread(_assertion, parsed, int(time.time()))
            response = await self._request_token(parsed, assertion)
        except KeyUnusable as error:
            cached.failed_at, cached.why = now(), str(error)
        else:
            cached.token, cached.expires_at = response.access_token, now() + response.expires_in

    async def _request_token(self, account: _Account, assertion: str) -> _TokenResponse:
        self._upstream = self._upstream or self._make_upstream()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                upstream_response = await self._upstream.open(_call(account.token_uri, assertion))
                async with aclosing(upstream_response):
                    return _parse_response(upstream_response.status, await _body(upstream_response))
        except TimeoutError:
            raise KeyUnusable(f"{account.client_email}: no access token within {REQUEST_TIMEOUT_S:.0f} s") from None
        except BridgeError as error:
            raise KeyUnusable(f"{account.client_email}: access token request failed: {error}") from None


def _read(account: GoogleAccount, trusted: bool) -> _Account:
    try:
        parsed = msgspec.json.decode(account.json, type=_Account)
    except msgspec.MsgspecError:
        raise KeyUnusable("the decoded base64 value is not the JSON of a service account") from None
    if not trusted and not _GOOGLE_URL.fullmatch(parsed.token_uri):
        raise KeyUnusable("the service account's token_uri must be one of https://*.googleapis.com")
    if not trusted and len(parsed.private_key) > MAX_KEY_CHARS:
        raise KeyUnusable(f"the service account's private_key has more than {MAX_KEY_CHARS} characters")
    return parsed


def _assertion(account: _Account, now_s: int) -> str:
    try:
        from google.auth import crypt, jwt
    except ImportError:
        raise KeyUnusable("service accounts need google-auth: pip install 'universal-bridge[gcp]'") from None
    claims: dict[str, Any] = {
        "iss": account.client_email,
        "scope": SCOPE,
        "aud": account.token_uri,
        "iat": now_s,
        "exp": now_s + ASSERTION_S,
    }
    try:
        signer = crypt.RSASigner.from_string(account.private_key, account.private_key_id)
        assertion: bytes = jwt.encode(signer, claims)
    except (ValueError, TypeError):  # TypeError: a key of another kind, or encrypted
        raise KeyUnusable(f"{account.client_email}: private_key is not an RSA key in PEM") from None
    return assertion.decode()


def _call(token_uri: str, assertion: str) -> Call:
    try:
        parts = urlsplit(token_uri)
        port = parts.port
    except ValueError:
        raise KeyUnusable("the service account's token_uri is not a URL") from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme, parts.hostname or "", port, path.encode(), token_uri)
    body = urlencode({"grant_type": GRANT, "assertion": assertion}).encode()
    return Call("POST", target, [("content-type", "application/x-www-form-urlencoded")], body, lambda: None)


async def _body(upstream_response: UpstreamResponse) -> bytes:
    body = b""
    async with aclosing(reads_of(upstream_response)) as reads:
        async for data in reads:
            body += data
            if len(body) > MAX_RESPONSE_BYTES:
                raise KeyUnusable("the token response is too long")
    return body


def _parse_response(status: int, body: bytes) -> _TokenResponse:
    if status != 200:
        raise KeyUnusable(f"HTTP {status}{_error_in(body)}")
    try:
        return msgspec.json.decode(body, type=_TokenResponse)
    except msgspec.MsgspecError:
        raise KeyUnusable("the token response contains no access token") from None


class _OAuthError(msgspec.Struct):
    error: str = ""
    error_description: str = ""


def _error_in(body: bytes) -> str:
    """Return the error of a failed token response (RFC 6749, section 5.2), shortened, as a suffix for messages."""
    try:
        fault = msgspec.json.decode(body, type=_OAuthError)
    except msgspec.MsgspecError:
        return ""
    return "".join(f": {part[:200]}" for part in (fault.error, fault.error_description) if part)
