"""Access tokens minted for service accounts: by a token server of this machine, over a real socket."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from google.auth import jwt

from bridge.config import load
from bridge.config.keys import GoogleAccount
from bridge.errors import KeyUnusable
from bridge.services.keys.google_oauth import EARLY_S, MAX_ACCOUNTS, PAUSE_S, SCOPE, GoogleTokens
from bridge.upstream.http import Upstream
from bridge.upstream.transport import HttpTransport
from tests.support.clock import advance, until
from tests.support.harness import connected, running
from tests.support.socket_provider import Line, Provider

MINTED = b'{"access_token":"ya29.minted-%d","expires_in":3600,"token_type":"Bearer"}'
DENIED = b'{"error":"invalid_grant","error_description":"Invalid JWT Signature."}'
TOO_LONG = b'{"access_token":"' + b"x" * 70_000 + b'"}'


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def account(key: rsa.RSAPrivateKey, token_uri: str, **more: str) -> GoogleAccount:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    credentials = {
        "type": "service_account",
        "client_email": "bridge@project.example.com",
        "private_key": key.private_bytes(*form).decode(),
        "private_key_id": "key-1",
        "token_uri": token_uri,
    }
    return GoogleAccount(json.dumps(credentials | more))


class TokenServer:
    """Answers what it is told to, once it may; counts who asks, and keeps the grants."""

    def __init__(self) -> None:
        self.answers: Iterator[tuple[int, bytes]] = ((200, MINTED % number) for number in range(1000))
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.grants: list[dict[str, list[str]]] = []
        self.url = ""

    async def __call__(self, line: Line) -> None:
        while True:
            self.grants.append(parse_qs((await line.body(await line.head())).decode(), strict_parsing=True))
            await self.may_answer.wait()
            status, body = next(self.answers)
            await line.send(b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


@asynccontextmanager
async def token_server() -> AsyncIterator[TokenServer]:
    server = TokenServer()
    async with Provider(server) as provider:
        server.url = f"http://127.0.0.1:{provider.port}/token"
        yield server


@asynccontextmanager
async def minting() -> AsyncIterator[tuple[GoogleTokens, TokenServer]]:
    tokens = GoogleTokens(lambda: Upstream(HttpTransport()))
    async with token_server() as server:
        try:
            yield tokens, server
        finally:
            await tokens.aclose()


async def test_the_grant_is_signed_with_the_accounts_key(key: rsa.RSAPrivateKey) -> None:
    """As developers.google.com/identity/protocols/oauth2/service-account wants it."""
    async with minting() as (tokens, server):
        assert await tokens.token(account(key, server.url), trusted=True) == "ya29.minted-0"
    [grant] = server.grants
    assert grant["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    [assertion] = grant["assertion"]
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(assertion, certs=public, audience=server.url)
    assert (claims["iss"], claims["scope"]) == ("bridge@project.example.com", SCOPE)
    assert claims["exp"] - claims["iat"] == 3600
    assert jwt.decode_header(assertion)["kid"] == "key-1"


async def test_a_token_is_cached_until_shortly_before_it_expires(key: rsa.RSAPrivateKey) -> None:
    async with minting() as (tokens, server):
        own = account(key, server.url)
        assert await tokens.token(own, trusted=True) == "ya29.minted-0"
        advance(3600 - EARLY_S - 5)
        assert await tokens.token(own, trusted=True) == "ya29.minted-0"
        advance(6)
        assert await tokens.token(own, trusted=True) == "ya29.minted-1"
    assert len(server.grants) == 2


async def test_concurrent_callers_share_one_grant(key: rsa.RSAPrivateKey) -> None:
    async with minting() as (tokens, server):
        server.may_answer.clear()
        own = account(key, server.url)
        waiting = [asyncio.create_task(tokens.token(own, trusted=True)) for _ in range(20)]
        await until(lambda: server.grants)
        server.may_answer.set()
        assert set(await asyncio.gather(*waiting)) == {"ya29.minted-0"}
    assert len(server.grants) == 1


async def test_a_cancelled_caller_does_not_cancel_the_grant_of_others(key: rsa.RSAPrivateKey) -> None:
    async with minting() as (tokens, server):
        server.may_answer.clear()
        own = account(key, server.url)
        first, second = (asyncio.create_task(tokens.token(own, trusted=True)) for _ in range(2))
        await until(lambda: server.grants)
        first.cancel()
        server.may_answer.set()
        assert (await second).startswith("ya29.")
        assert first.cancelled()


async def test_each_account_has_its_own_token(key: rsa.RSAPrivateKey) -> None:
    async with minting() as (tokens, server):
        accounts = [account(key, server.url, client_email=f"{name}@example.com") for name in "abab"]
        assert [await tokens.token(own, trusted=True) for own in accounts] == [f"ya29.minted-{n}" for n in (0, 1, 0, 1)]


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, DENIED, "HTTP 400: invalid_grant: Invalid JWT Signature."),
        (500, b"<html>", "HTTP 500"),
        (200, b"{}", "the token response contains no access token"),
        (200, b"nonsense", "the token response contains no access token"),
        (200, TOO_LONG, "the token response is too long"),
    ],
)
async def test_a_failed_token_request_is_reported_and_cached_for_a_moment(
    key: rsa.RSAPrivateKey, status: int, body: bytes, reason: str
) -> None:
    async with minting() as (tokens, server):
        own, minted = account(key, server.url), server.answers
        server.answers = iter([(status, body)])
        for _ in range(3):
            with pytest.raises(KeyUnusable) as caught:
                await tokens.token(own, trusted=True)
            assert str(caught.value) == f"bridge@project.example.com: access token request failed: {reason}"
        assert len(server.grants) == 1
        server.answers = minted
        advance(PAUSE_S)
        assert await tokens.token(own, trusted=True) == "ya29.minted-0"


async def test_a_valid_token_outlives_a_failed_renewal(key: rsa.RSAPrivateKey) -> None:
    async with minting() as (tokens, server):
        own = account(key, server.url)
        server.answers = iter([(200, MINTED % 0), (500, b""), (500, b"")])
        await tokens.token(own, trusted=True)
        advance(3600 - EARLY_S + 1)
        assert await tokens.token(own, trusted=True) == "ya29.minted-0"
        advance(EARLY_S)
        with pytest.raises(KeyUnusable, match="HTTP 500"):
            await tokens.token(own, trusted=True)


async def test_a_silent_token_server_runs_into_the_timeout(key: rsa.RSAPrivateKey) -> None:
    async with minting() as (tokens, server):
        server.may_answer.clear()
        asking = asyncio.create_task(tokens.token(account(key, server.url), trusted=True))
        await until(lambda: server.grants)
        advance(31)
        with pytest.raises(KeyUnusable, match="no access token within 30 s"):
            await asking


@pytest.mark.parametrize(
    "token_uri",
    [
        "http://127.0.0.1:1/token",
        "https://evil.example.com/",
        "http://oauth2.googleapis.com/token",
        "https://evil.example.com#.googleapis.com/",
        "https://evil.example.com\\.googleapis.com/",
        "https://oauth2.googleapis.com:99999/",
        "https://[oauth2.googleapis.com/",
    ],
)
async def test_a_client_supplied_account_contacts_only_google(key: rsa.RSAPrivateKey, token_uri: str) -> None:
    """Else it would be a way to have the bridge call any address."""
    async with minting() as (tokens, _):
        with pytest.raises(KeyUnusable, match=r"https://\*\.googleapis\.com"):
            await tokens.token(account(key, token_uri), trusted=False)


async def test_an_invalid_token_uri_is_reported(key: rsa.RSAPrivateKey) -> None:
    async with minting() as (tokens, _):
        with pytest.raises(KeyUnusable, match="token_uri is not a URL"):
            await tokens.token(account(key, "https://127.0.0.1:99999/"), trusted=True)


@pytest.mark.parametrize(
    ("credentials", "message"),
    [
        (GoogleAccount('{"client_email": "x"}'), "not the JSON of a service account"),
        (
            GoogleAccount('{"client_email":"x","private_key":"y","token_uri":"https://oauth2.googleapis.com/"}'),
            "in PEM",
        ),
    ],
)
async def test_an_invalid_account_is_reported(credentials: GoogleAccount, message: str) -> None:
    async with minting() as (tokens, _):
        with pytest.raises(KeyUnusable, match=message):
            await tokens.token(credentials, trusted=False)


def ec_key() -> str:
    return _pem(ec.generate_private_key(ec.SECP256R1()), serialization.NoEncryption())


def locked_key() -> str:
    return _pem(rsa.generate_private_key(65_537, 1024), serialization.BestAvailableEncryption(b"password"))


def _pem(key: PrivateKeyTypes, locked: serialization.KeySerializationEncryption) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked).decode()


@pytest.mark.parametrize(
    ("made", "message"),
    [(ec_key, "not an RSA key"), (locked_key, "not an RSA key"), (lambda: "x" * 2501, "2500 characters")],
)
async def test_a_clients_unsupported_key_is_reported_and_a_long_one_is_not_checked(
    key: rsa.RSAPrivateKey, made: Callable[[], str], message: str
) -> None:
    credentials = account(key, "https://oauth2.googleapis.com/token", private_key=made())
    async with minting() as (tokens, _):
        with pytest.raises(KeyUnusable, match=message):
            await tokens.token(credentials, trusted=False)


async def test_accounts_of_clients_use_bounded_memory() -> None:
    async with minting() as (tokens, _):
        for number in range(MAX_ACCOUNTS + 10):
            with pytest.raises(KeyUnusable):
                await tokens.token(GoogleAccount(str(number)), trusted=False)
        assert len(tokens._accounts) == MAX_ACCOUNTS


# From socket to socket.


async def test_a_stored_account_reaches_vertex_as_an_access_token(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    """One mint for all events; a failure is each event's clear error."""
    heads: list[bytes] = []

    async def vertex(line: Line) -> None:
        while True:
            heads.append(await line.request())
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with token_server() as server, Provider(vertex) as provider:
        (tmp_path / "account.json").write_text(account(key, server.url).json)
        path = tmp_path / "bridge.toml"
        path.write_text(
            f'[providers.google-vertex-ai]\nbase_url = "http://127.0.0.1:{provider.port}"\n'
            '[gateways.prod]\nstored_key_access = "full"\n[gateways.prod.tokens]\nci = "env:TOKEN"\n'
            '[gateways.prod.keys.google-vertex-ai]\ndefault = "file:account.json"\n'
        )
        server.answers = iter([(400, DENIED), (200, MINTED % 7)])
        async with (
            running(load(path, {"TOKEN": "one"}, {"port": 0})) as bridge,
            connected(bridge, "/v1/account/prod", headers={"cf-aig-authorization": "one"}) as client,
        ):
            step = {"provider": "google-vertex-ai", "endpoint": "v1/x", "query": {}}
            [failed] = await client.call({"eventId": 0, **step})
            assert (failed["error"]["code"], failed["metadata"]["status"]) == (9024, 502)
            assert "Invalid JWT Signature." in failed["error"]["message"]
            advance(PAUSE_S)
            for number in (1, 2):
                assert (await client.call({"eventId": number, **step}))[-1]["metadata"]["success"] is True
            own = base64.b64encode(account(key, server.url, client_email="guest@b").json.encode()).decode()
            brought = {**step, "headers": {"authorization": f"Bearer {own}"}}
            [refused] = await client.call({"eventId": 3, **brought})
            assert "googleapis.com" in refused["error"]["message"]
            assert own not in json.dumps(refused)
    assert [b"authorization: Bearer ya29.minted-7\r\n" in head for head in heads] == [True, True]
    assert len(server.grants) == 2
