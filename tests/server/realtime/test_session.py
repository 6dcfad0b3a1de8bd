"""Answer the client's handshake after the provider's, with the provider's result."""

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.clock import advance, turns
from tests.support.harness import config_of, running
from tests.support.raw_client import UPGRADE, RawResponse, connect_raw, frame
from tests.support.realtime_harness import (
    PATH,
    AcceptingProvider,
    ProviderSide,
    connect_realtime,
    realtime_bridge,
    switching_protocols,
)
from tests.support.socket_provider import Line, Script, sends

SECRET = "sk-0123456789abcdefghij"


async def answered(script: Script, folder: Path, path: str = PATH, **headers: str) -> RawResponse:
    """Return the response to a handshake that fails."""
    async with realtime_bridge(script, folder) as server, connect_raw(server, receive_bytes=65_536) as client:
        return await client.request(path, {**UPGRADE, **headers})


def http(status: str, body: bytes = b"", *lines: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


# What a provider that does not agree is told as.


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 426, 429, 500, 503])
async def test_a_refusal_arrives_with_its_status_its_body_and_its_headers(tmp_path: Path, status: int) -> None:
    body = b'{"error":{"message":"Incorrect API key provided"}}'
    refusal = http(f"{status} No", body, "Content-Type: application/json", "x-request-id: req_1", "Set-Cookie: a=b")
    response = await answered(sends(refusal), tmp_path)
    assert (response.status, response.body) == (status, body)
    assert (response.headers["content-type"], response.headers["x-request-id"]) == ("application/json", "req_1")
    assert "set-cookie" not in response.headers


async def test_the_body_of_a_refusal_is_cut_at_64_kib(tmp_path: Path) -> None:
    response = await answered(sends(http("403 No", b"x" * 1_000_000)), tmp_path)
    assert (response.status, response.body) == (403, b"x" * 65_536)


async def test_a_refusal_whose_body_does_not_arrive_is_passed_on_without_it(tmp_path: Path) -> None:
    refusal = b"HTTP/1.1 429 Slow\r\nContent-Length: 100\r\nRetry-After: 7\r\n\r\npart"
    async with realtime_bridge(sends(refusal), tmp_path) as server, connect_raw(server) as client:
        asking = asyncio.create_task(client.request(PATH, UPGRADE))
        await turns(200)
        advance(5)
        response = await asking
    assert (response.status, response.body, response.headers["retry-after"]) == (429, b"part", "7")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (http("200 OK", b"hello"), 9019),
        (http("302 Found", b"", "Location: http://127.0.0.1:1/"), 9019),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 9019),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 9019),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 9019),
    ],
)
async def test_an_invalid_handshake_response_is_502(tmp_path: Path, answer: bytes, code: int) -> None:
    response = await answered(sends(answer), tmp_path)
    assert (response.status, response.sdk_code) == (502, code)


async def test_a_connection_that_is_lost_before_the_response_is_502(tmp_path: Path) -> None:
    async def hangs_up(line: Line) -> None:
        await line.head()
        line.reset()

    response = await answered(hangs_up, tmp_path)
    assert (response.status, response.sdk_code) == (502, 9012)


async def test_a_refused_connection_is_502(tmp_path: Path) -> None:
    config = config_of('[providers.custom-x]\nbase_url = "http://127.0.0.1:1"\n', tmp_path)
    async with running(config) as server, connect_raw(server) as client:
        response = await client.request(PATH, UPGRADE)
    assert (response.status, response.sdk_code) == (502, 9010)
    assert b"127.0.0.1:1" in response.body


async def test_a_certificate_that_is_not_trusted_is_502(tmp_path: Path) -> None:
    async with realtime_bridge(AcceptingProvider().script, tmp_path, tls=True) as server, connect_raw(server) as client:
        response = await client.request(PATH, UPGRADE)
    assert (response.status, response.sdk_code) == (502, 9011)


async def silent(line: Line) -> None:
    await line.head()


@pytest.mark.parametrize(
    ("settings", "headers", "seconds"),
    [
        ("", {}, 30),
        ("realtime_handshake_timeout = 3_000", {}, 3),
        ("", {"cf-aig-request-timeout": "2000"}, 2),
        ("realtime_handshake_timeout = 3_000", {"cf-aig-request-timeout": "20000"}, 3),
    ],
)
async def test_a_provider_that_does_not_answer_is_504(
    tmp_path: Path, settings: str, headers: Mapping[str, str], seconds: int
) -> None:
    async with realtime_bridge(silent, tmp_path, settings) as server, connect_raw(server) as client:
        asking = asyncio.create_task(client.request(PATH, {**UPGRADE, **headers}))
        await turns(200)
        advance(seconds - 0.5)
        await turns(50)
        assert not asking.done()
        advance(1)
        response = await asking
    assert (response.status, response.sdk_code) == (504, 9013)


async def test_the_client_is_not_answered_before_the_provider_has_answered(tmp_path: Path) -> None:
    agrees, heads = asyncio.Event(), list[bytes]()

    async def script(line: Line) -> None:
        heads.append(await line.head())
        await agrees.wait()
        await line.send(switching_protocols(heads[0]))
        line.close()

    async with realtime_bridge(script, tmp_path) as server, connect_raw(server) as client:
        asking = asyncio.create_task(client.request(PATH, UPGRADE))
        await turns(200)
        assert heads
        assert not asking.done()
        agrees.set()
        assert (await asking).status == 101


async def test_a_client_that_leaves_early_cancels_the_connection_to_the_provider(tmp_path: Path) -> None:
    asked_for, gone = asyncio.Event(), asyncio.Event()

    async def script(line: Line) -> None:
        await line.head()
        asked_for.set()
        await line.gone()
        gone.set()

    async with realtime_bridge(script, tmp_path) as server:
        async with connect_raw(server) as client:
            asking = asyncio.create_task(client.request(PATH, UPGRADE))
            await asked_for.wait()
        await gone.wait()
        assert len(server.connections) == 0
        await asyncio.gather(asking, return_exceptions=True)


# Who is let in.


async def agrees_and_goes(line: Line) -> None:
    await line.send(switching_protocols(await line.head()))
    line.close()


async def nobody_there(line: Line) -> None:
    line.reset()


async def nobody(_: Line) -> None:
    raise AssertionError("no provider is to be called")


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        (PATH, {"Sec-WebSocket-Key": "short"}, 400, 9001),
        (PATH, {"Sec-WebSocket-Key": "é"}, 400, 9003),
        (PATH, {"Sec-WebSocket-Version": "12"}, 400, 9001),
        ("/v1/account/gateway/nobody/talk", {}, 400, 2008),
        ("/v1/account/gateway/custom-x", {}, 400, 9007),
        ("/v1/account/gateway/custom-x/../talk", {}, 400, 9007),
        (f"{PATH}?api_key=a%0Ab", {}, 400, 9003),
        (PATH, {"Origin": "https://evil.example"}, 403, 9009),
        (PATH, {"Host": "evil.example"}, 403, 9009),
        (PATH, {f"X-{each}": "1" for each in range(101)}, 413, 9006),
    ],
)
async def test_an_invalid_handshake_is_refused_before_the_provider_is_called(
    tmp_path: Path, path: str, headers: Mapping[str, str], status: int, code: int
) -> None:
    response = await answered(nobody, tmp_path, path, **headers)
    assert (response.status, response.sdk_code) == (status, code)


TOKENED = f'[gateways.closed.tokens]\nci = "sha256:{hashlib.sha256(b"a:token/").hexdigest()}"\n'


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"cf-aig-authorization": "wrong"}, 401),
        ({"cf-aig-authorization": "a:token/"}, 101),
        ({"cf-aig-authorization": "Bearer a:token/"}, 101),
        ({"Authorization": "Bearer a:token/"}, 101),
        ({"Sec-WebSocket-Protocol": "cf-aig-authorization.a%3Atoken%2F"}, 101),
        ({"Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.a%3Atoken%2F"}, 101),
        ({"Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.sk-of-the-provider"}, 401),
        ({"Sec-WebSocket-Protocol": "openai-insecure-api-key.sk, cf-aig-authorization.a%3Atoken%2F"}, 101),
        ({"Sec-WebSocket-Protocol": "openai-insecure-api-key.a%3Atoken%2F, cf-aig-authorization.wrong"}, 101),
    ],
)
async def test_the_gateways_token_is_required_and_not_forwarded(
    tmp_path: Path, headers: Mapping[str, str], status: int
) -> None:
    sockets = AcceptingProvider()
    async with realtime_bridge(sockets.script, tmp_path, more=TOKENED) as server, connect_raw(server) as client:
        response = await client.request("/v1/account/closed/custom-x/talk?a=1", {**UPGRADE, **headers})
        assert response.status == status
        if status == 101:
            side = await sockets.next_session()
            assert "token" not in str(side.headers)
            assert side.target == "/talk?a=1"
            side.line.drop()


# What the client is told of a provider that agrees.


async def agreed(folder: Path, *lines: str) -> Mapping[str, str]:
    sockets = AcceptingProvider(*lines)
    async with realtime_bridge(sockets.script, folder) as server, connect_raw(server) as client:
        response = await client.request(PATH, UPGRADE)
        assert response.status == 101
        side = await sockets.next_session()
        await client.send(frame(b"hello"))
        assert await side.next_payload() == b"hello"
        side.line.drop()
    return response.headers


async def test_the_headers_of_a_101_arrive(tmp_path: Path) -> None:
    headers = await agreed(tmp_path, "X-Request-Id: req_1", "openai-model: gpt-realtime", "x-a: 1", "X-A: 2")
    assert (headers["x-request-id"], headers["openai-model"], headers["x-a"]) == ("req_1", "gpt-realtime", "1, 2")


async def test_headers_of_a_101_about_hosts_and_connections_are_not_forwarded(
    tmp_path: Path,
) -> None:
    hidden = {
        "Set-Cookie": "a=b",
        "Strict-Transport-Security": "max-age=1",
        "Alt-Svc": "h3",
        "Access-Control-Allow-Origin": "*",
        "cf-aig-log-id": "1",
        "Keep-Alive": "timeout=5",
        "Sec-WebSocket-Version": "13",
    }
    headers = await agreed(tmp_path, *(f"{name}: {value}" for name, value in hidden.items()))
    assert headers.keys().isdisjoint(name.lower() for name in hidden)


@pytest.mark.parametrize("value", ["Z\u00fcrich".encode(), b"Z\xfcrich"], ids=["UTF-8", "Latin-1"])
async def test_a_header_of_a_101_may_have_non_ascii_characters(tmp_path: Path, value: bytes) -> None:
    async def script(line: Line) -> None:
        head = await line.head()
        await line.send(switching_protocols(head)[:-2] + b"x-city: " + value + b"\r\n\r\n")

    async with realtime_bridge(script, tmp_path) as server, connect_raw(server) as client:
        response = await client.request(PATH, UPGRADE)
    assert response.status == 101
    assert response.headers["x-city"].encode("latin-1").decode() == "Z\u00fcrich"


# What the provider is told.


async def told_to_provider(
    folder: Path, path: str = PATH, headers: Mapping[str, str] = {}, *lines: str
) -> ProviderSide:
    sockets = AcceptingProvider(*lines)
    async with realtime_bridge(sockets.script, folder) as server, connect_realtime(server, path, headers):
        side = await sockets.next_session()
        side.line.drop()
        return side


async def test_the_clients_headers_are_forwarded_without_those_of_the_bridge_and_of_proxies(tmp_path: Path) -> None:
    kept = {"Authorization": f"Bearer {SECRET}", "OpenAI-Beta": "realtime=v1", "X-Own": "1", "User-Agent": "mine"}
    dropped = {
        "Cookie": "a=b",
        "Origin": "http://localhost:3000",
        "Referer": f"http://localhost:3000/?api_key={SECRET}",
        "cf-aig-metadata": "{}",
        "Sec-WebSocket-Extensions": "permessage-deflate",
        "X-Forwarded-For": "1.2.3.4",
        "Proxy-Authorization": "x",
    }
    side = await told_to_provider(tmp_path, PATH, {**kept, **dropped})
    own = {"host", "upgrade", "connection", "sec-websocket-version", "sec-websocket-key"}
    assert side.headers.keys() == own | {name.lower() for name in kept}
    assert all(side.headers[name.lower()] == value for name, value in kept.items())
    assert side.headers["host"].startswith("127.0.0.1:")
    assert side.headers["sec-websocket-key"] != UPGRADE["Sec-WebSocket-Key"]


async def test_the_bridge_adds_no_headers_of_its_own(tmp_path: Path) -> None:
    """It adds no subprotocol, beta header, extension or user agent."""
    side = await told_to_provider(tmp_path)
    assert side.headers.keys() == {"host", "upgrade", "connection", "sec-websocket-version", "sec-websocket-key"}


async def test_a_key_in_the_url_reaches_the_provider_as_a_header_and_no_url(tmp_path: Path) -> None:
    side = await told_to_provider(tmp_path, f"{PATH}?b=%2F&api_key={SECRET}&model=m")
    assert side.target == "/talk?b=%2F&model=m"
    assert side.headers["authorization"] == f"Bearer {SECRET}"


async def test_a_key_in_a_header_overrides_a_key_in_the_url(tmp_path: Path) -> None:
    side = await told_to_provider(tmp_path, f"{PATH}?api_key={SECRET}", {"Authorization": "Bearer mine"})
    assert side.headers["authorization"] == "Bearer mine"


@pytest.mark.parametrize(
    ("offered", "picked", "forwarded", "one"),
    [
        ("realtime, openai-insecure-api-key.k", None, "realtime", "realtime"),
        ("chat, superchat", "superchat", "chat,superchat", "superchat"),
        ("chat, superchat", None, "chat,superchat", "chat"),
        ("xi-api-key.k", None, None, "xi-api-key.k"),
        ("token, k", None, None, "token"),
    ],
)
async def test_one_subprotocol_is_echoed_and_no_credential_is_forwarded(
    tmp_path: Path, offered: str, picked: str | None, forwarded: str | None, one: str
) -> None:
    sockets = AcceptingProvider(*([f"Sec-WebSocket-Protocol: {picked}"] if picked else []))
    async with realtime_bridge(sockets.script, tmp_path) as server, connect_raw(server) as client:
        response = await client.request(PATH, {**UPGRADE, "Sec-WebSocket-Protocol": offered})
        side = await sockets.next_session()
        side.line.drop()
    assert response.headers["sec-websocket-protocol"] == one
    assert side.headers.get("sec-websocket-protocol") == forwarded
    assert "sec-websocket-extensions" not in response.headers


async def test_subprotocols_may_be_offered_in_several_headers(tmp_path: Path) -> None:
    sockets = AcceptingProvider("Sec-WebSocket-Protocol: realtime")
    offering = {"Sec-WebSocket-Protocol": "openai-insecure-api-key.k", "sec-websocket-protocol": "realtime"}
    async with realtime_bridge(sockets.script, tmp_path) as server, connect_raw(server) as client:
        response = await client.request(PATH, {**UPGRADE, **offering})
        side = await sockets.next_session()
        side.line.drop()
    assert (response.status, response.headers["sec-websocket-protocol"]) == (101, "realtime")
    assert side.headers["sec-websocket-protocol"] == "realtime"


@pytest.mark.parametrize("script", [agrees_and_goes, sends(http("401 No")), sends(http("200 OK")), nobody_there])
async def test_no_key_reaches_a_log_or_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, script: Script
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = {"Sec-WebSocket-Protocol": f"realtime, openai-insecure-api-key.{SECRET}1"}
    async with realtime_bridge(script, tmp_path) as server, connect_raw(server) as client:
        response = await client.request(f"{PATH}?api_key={SECRET}2", {**UPGRADE, **headers, "xi-api-key": f"{SECRET}3"})
    written = "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "realtime session" in written
    assert SECRET not in written
    assert SECRET not in response.body.decode() + str(response.headers)


# Tokens of the gateway.

TOKEN = "a-token-of-the-gateway"
TOKENS = f'[gateways.gateway.tokens]\nci = "sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"\n'
PRESENTED = {"cf-aig-authorization": f"Bearer {TOKEN}"}


async def test_no_header_and_no_subprotocol_with_a_token_reaches_the_provider(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def script(line: Line) -> None:
        heads.append(await line.head())
        await line.send(switching_protocols(heads[0]))
        await line.gone()

    headers = {
        **PRESENTED,
        "x-title": f"Bearer%20{TOKEN}",
        "x-mine": "1",
        "sec-websocket-protocol": f"{TOKEN}, x.{TOKEN}, cf-aig-authorization.{TOKEN}",
    }
    async with realtime_bridge(script, tmp_path, more=TOKENS) as server, connect_realtime(server, PATH, headers):
        [head] = heads
    assert TOKEN.encode() not in head
    assert b"x-mine: 1" in head.lower()


@pytest.mark.parametrize("url", [f"{PATH}/{TOKEN}", f"{PATH}?other={TOKEN}", f"{PATH}?a=b%26{TOKEN}"])
async def test_a_handshake_with_a_token_in_its_url_is_refused(tmp_path: Path, url: str) -> None:
    async with realtime_bridge(silent, tmp_path, more=TOKENS) as server, connect_raw(server) as client:
        response = await client.request(url, {**UPGRADE, **PRESENTED})
    assert (response.status, response.sdk_code) == (400, 9003)
    assert TOKEN.encode() not in response.body
