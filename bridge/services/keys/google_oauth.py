"""Access tokens for Google's service accounts, minted and kept until shortly before they expire.

RFC 7523, as developers.google.com/identity/protocols/oauth2/service-account has it. google-auth (the extra `gcp`)
signs; the request goes over an upstream of our own, of which no tape is left.
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
from bridge.upstream.answer import UpstreamResponse
from bridge.upstream.http import Call, Upstream

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_S: Final = 3600
EARLY_S: Final = 300.0
"""So long before it expires a token is replaced; it is still good if that fails."""
PAUSE_S: Final = 1.0
"""So long a failure is told to whoever asks, before Google is asked again."""
PATIENCE_S: Final = 30.0
MAX_ANSWER_BYTES: Final = 65_536
MAX_ACCOUNTS: Final = 1024
MAX_KEY_CHARS: Final = 2500
"""Of a client's private key: RSA of 3072 bits, where Google's own have 2048. To check one takes some tenths of a second
there, and eight whole ones at 8192 bits.
"""
_GOOGLES: Final = re.compile(r"https://(?:[a-z0-9-]+\.)+googleapis\.com/[!-~]*")


class _Account(msgspec.Struct):
    client_email: str
    private_key: str
    token_uri: str
    private_key_id: str | None = None


class _Minted(msgspec.Struct):
    access_token: str
    expires_in: float = 3600.0


@dataclass(slots=True)
class _CachedToken:
    """What is known of one account's token. Whoever holds the lock mints; the others find what came of it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    token: str = field(default="", repr=False)
    expires_at: float = 0.0
    failed_at: float = float("-inf")
    why: str = ""


class GoogleTokens:
    """Owns `upstream`. Times are the loop's."""

    def __init__(self, upstream: Callable[[], Upstream]) -> None:
        """`upstream` is called once, when the first token is wanted."""
        self._make_upstream = upstream
        self._upstream: Upstream | None = None
        self._accounts: OrderedDict[bytes, _CachedToken] = OrderedDict()
        self._checking = asyncio.Lock()
        """Held while a client's key is checked: the threads are everybody's."""

    async def token(self, account: GoogleAccount, *, trusted: bool) -> str:
        """A good one. Of an account that is not `trusted`, as a client's own, the token is asked of Google alone.

        Raises KeyUnusable.
        """
        kept = self._kept(hashlib.sha256(account.json.encode()).digest())
        now = asyncio.get_running_loop().time
        if now() >= kept.expires_at - EARLY_S:
            async with kept.lock:
                if now() >= max(kept.expires_at - EARLY_S, kept.failed_at + PAUSE_S):
                    await self._renew(kept, account, trusted)
        if now() >= kept.expires_at:
            raise KeyUnusable(kept.why)
        return kept.token

    async def aclose(self) -> None:
        if self._upstream is not None:
            await self._upstream.aclose()

    def _kept(self, digest: bytes) -> _CachedToken:
        """The one used least recently gives way, for clients may bring any number."""
        kept = self._accounts.setdefault(digest, _CachedToken())
        self._accounts.move_to_end(digest)
        if len(self._accounts) > MAX_ACCOUNTS:
            self._accounts.popitem(last=False)
        return kept

    async def _renew(self, kept: _CachedToken, account: GoogleAccount, trusted: bool) -> None:
        now = asyncio.get_running_loop().time
        try:
            read = _read(account, trusted)
            async with nullcontext() if trusted else self._checking:
                assertion = await asyncio.to_thread(_assertion, read, int(time.time()))
            minted = await self._minted(read, assertion)
        except KeyUnusable as error:
            kept.failed_at, kept.why = now(), str(error)
        else:
            kept.token, kept.expires_at = minted.access_token, now() + minted.expires_in

    async def _minted(self, account: _Account, assertion: str) -> _Minted:
        self._upstream = self._upstream or self._make_upstream()
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._upstream.open(_call(account.token_uri, assertion))
                async with aclosing(answer):
                    return _read_answer(answer.status, await _body(answer))
        except TimeoutError:
            raise KeyUnusable(f"{account.client_email}: no access token within {PATIENCE_S:.0f} s") from None
        except BridgeError as error:
            raise KeyUnusable(f"{account.client_email}: no access token was to be had: {error}") from None


def _read(account: GoogleAccount, trusted: bool) -> _Account:
    try:
        read = msgspec.json.decode(account.json, type=_Account)
    except msgspec.MsgspecError:
        raise KeyUnusable("what came in base64 is no service account's JSON") from None
    if not trusted and not _GOOGLES.fullmatch(read.token_uri):
        raise KeyUnusable("the service account's token_uri must be one of https://*.googleapis.com")
    if not trusted and len(read.private_key) > MAX_KEY_CHARS:
        raise KeyUnusable(f"the service account's private_key has more than {MAX_KEY_CHARS} characters")
    return read


def _assertion(account: _Account, now_s: int) -> str:
    try:
        from google.auth import crypt, jwt
    except ImportError:
        raise KeyUnusable("service accounts sign with google-auth: pip install 'universal-bridge[gcp]'") from None
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
    except (ValueError, TypeError):  # the latter for a key of another sort, or one that wants a password
        raise KeyUnusable(f"{account.client_email}: private_key is no RSA key in PEM") from None
    return assertion.decode()


def _call(token_uri: str, assertion: str) -> Call:
    try:
        parts = urlsplit(token_uri)
        port = parts.port
    except ValueError:
        raise KeyUnusable("the service account's token_uri is no URL") from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme, parts.hostname or "", port, path.encode(), token_uri)
    body = urlencode({"grant_type": GRANT, "assertion": assertion}).encode()
    return Call("POST", target, [("content-type", "application/x-www-form-urlencoded")], body, lambda: None)


async def _body(answer: UpstreamResponse) -> bytes:
    body = b""
    while data := await answer.read():
        body += data
        if len(body) > MAX_ANSWER_BYTES:
            raise KeyUnusable("the answer is too long to be a token")
    return body


def _read_answer(status: int, body: bytes) -> _Minted:
    if status != 200:
        raise KeyUnusable(f"HTTP {status}{_error_in(body)}")
    try:
        return msgspec.json.decode(body, type=_Minted)
    except msgspec.MsgspecError:
        raise KeyUnusable("the answer holds no access token") from None


class _OAuthError(msgspec.Struct):
    error: str = ""
    error_description: str = ""


def _error_in(body: bytes) -> str:
    """Why, in Google's words (RFC 6749, section 5.2), as far as they can be shown."""
    try:
        fault = msgspec.json.decode(body, type=_OAuthError)
    except msgspec.MsgspecError:
        return ""
    return "".join(f": {part[:200]}" for part in (fault.error, fault.error_description) if part)
