"""Accept or refuse handshakes, and report errors before a socket is open."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from bridge.server.server import Server
from bridge.upstream.http import Upstream
from bridge.upstream.transport import HttpTransport
from tests.support.clock import advance, turns
from tests.support.event_harness import COMPLETE, step
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import ScriptedProvider, streams
from tests.support.raw_client import PATH, UPGRADE, connect_raw, open_websocket

TOKEN = "a-token-of-tests"
CONFIG = f"""
[gateways.tokened.tokens]
ci = "sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
[gateways.open]
allowed_origins = ["https://app.example"]
allowed_hosts = ["bridge.example"]
[gateways.compatible]
compat = true
[gateways.hasty]
request_timeout = 30
"""
TOKENED = "/v1/account/tokened"
OPEN = "/v1/account/open"
UNKNOWN_CREATE = {"type": "universal.create", "request": {"eventId": "a", "provider": "nobody", "endpoint": ""}}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(config_of(CONFIG, tmp_path), ScriptedProvider()) as opened:
        yield opened


# Who is let in


@pytest.mark.parametrize("path", ["/v1/account/open", "/v1/account/open/", "/v1/any%20account/open?x=y"])
async def test_the_path_is_accepted_with_and_without_a_slash(server: Server, path: str) -> None:
    async with connected(server, path) as client:
        await client.send(UNKNOWN_CREATE)
        assert (await client.receive())["metadata"]["eventId"] == "a"


@pytest.mark.parametrize(
    "headers",
    [
        {"cf-aig-authorization": f"Bearer {TOKEN}"},
        {"cf-aig-authorization": f"bearer  {TOKEN} "},
        {"CF-AIG-Authorization": TOKEN},
        {"Sec-WebSocket-Protocol": f"cf-aig-authorization.{TOKEN}"},
        {"Sec-WebSocket-Protocol": f"openai-insecure-api-key.sk-1, cf-aig-authorization.{TOKEN}, realtime"},
        {"cf-aig-authorization": f"Bearer {TOKEN}", "Sec-WebSocket-Protocol": "cf-aig-authorization.other"},
        {"cf-aig-authorization": TOKEN, "Host": "anything.example", "Origin": "https://anything.example"},
    ],
)
async def test_a_valid_token_opens_a_socket(server: Server, headers: dict[str, str]) -> None:
    async with connect_raw(server) as client:
        assert (await client.request(TOKENED, {**UPGRADE, **headers})).status == 101


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"cf-aig-authorization": "Bearer wrong"},
        {"cf-aig-authorization": "Bearer"},
        {"cf-aig-authorization": ""},
        {"cf-aig-authorization": f"Basic {TOKEN}"},
        {"cf-aig-authorization": f"{TOKEN}x"},
        {"cf-aig-authorization": "café"},
        {"Authorization": f"Bearer {TOKEN}"},
        {"Sec-WebSocket-Protocol": "cf-aig-authorization.wrong"},
        {"Sec-WebSocket-Protocol": f"cf-aig-authorization {TOKEN}"},
        {"cf-aig-authorization": "wrong", "Sec-WebSocket-Protocol": f"cf-aig-authorization.{TOKEN}"},
    ],
)
async def test_an_invalid_token_is_refused_before_the_upgrade(server: Server, headers: dict[str, str]) -> None:
    async with connect_raw(server) as client:
        answered = await client.request(TOKENED, {**UPGRADE, **headers})
        assert (answered.status, answered.code) == (401, 2009)
        assert TOKEN.encode() not in answered.body


@pytest.mark.parametrize(
    ("offered", "echoed"),
    [
        ("chat", "chat"),
        ("a, b", "a"),
        ("cf-aig-authorization.x, realtime", "realtime"),
        ("openai-insecure-api-key.sk, cf-aig-authorization.x , openai-beta.v1", "openai-beta.v1"),
        ("cf-aig-authorization.x", "cf-aig-authorization.x"),
        (" , ,chat", "chat"),
        ("", None),
        (None, None),
    ],
)
async def test_an_offered_subprotocol_is_echoed_preferably_without_a_credential(
    server: Server, offered: str | None, echoed: str | None
) -> None:
    offering = {} if offered is None else {"Sec-WebSocket-Protocol": offered}
    async with connect_raw(server) as client:
        answered = await client.request(OPEN, {**UPGRADE, **offering})
        assert answered.status == 101
        assert answered.headers.get("sec-websocket-protocol") == echoed


@pytest.mark.parametrize(
    ("first", "second"), [("chat", f"cf-aig-authorization.{TOKEN}"), (f"cf-aig-authorization.{TOKEN}", "chat")]
)
async def test_subprotocols_may_be_offered_in_several_headers(server: Server, first: str, second: str) -> None:
    """Several headers form one list (RFC 6455, section 11.3.4)."""
    offering = {"Sec-WebSocket-Protocol": first, "sec-websocket-protocol": second}
    async with connect_raw(server) as client:
        answered = await client.request(TOKENED, {**UPGRADE, **offering})
        assert (answered.status, answered.headers["sec-websocket-protocol"]) == (101, "chat")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:8787"},
        {"Host": "[::1]:8787"},
        {"Host": "bridge.example"},
        {"Host": "BRIDGE.example:443"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "http://localhost"},
        {"Origin": "https://app.example"},
    ],
)
async def test_an_open_gateway_serves_loopback_and_listed_hosts(server: Server, headers: dict[str, str]) -> None:
    async with connect_raw(server) as client:
        assert (await client.request(OPEN, {**UPGRADE, **headers})).status == 101


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "https://app.example.evil.example"},
        {"Origin": "http://app.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8787"},
        {"Host": "["},
    ],
)
async def test_an_open_gateway_refuses_foreign_pages_and_rebound_names(server: Server, headers: dict[str, str]) -> None:
    async with connect_raw(server) as client:
        answered = await client.request(OPEN, {**UPGRADE, **headers})
        assert (answered.status, answered.code) == (403, 9009)


async def test_an_unknown_gateway_is_reported(server: Server) -> None:
    async with connect_raw(server) as client:
        answered = await client.request("/v1/account/nobody", UPGRADE)
        assert (answered.status, answered.code) == (400, 2001)


# What is no handshake


@pytest.mark.parametrize(
    ("method", "path", "changed", "status"),
    [
        ("GET", OPEN, {"Upgrade": "h2c"}, 426),
        ("GET", OPEN, {"Upgrade": ""}, 426),
        ("PUT", OPEN, {"Content-Length": "0"}, 426),
        ("GET", OPEN, {"Connection": "keep-alive"}, 400),
        ("GET", OPEN, {"Sec-WebSocket-Version": "12"}, 400),
        ("GET", OPEN, {"Sec-WebSocket-Key": "short"}, 400),
        ("GET", OPEN, {"Sec-WebSocket-Key": "\u00e9"}, 400),
        ("GET", "/", {}, 404),
        ("GET", "/v1/account", {}, 404),
        ("GET", OPEN, {"Content-Length": "x"}, 400),
        ("GET", OPEN, {"A b": "c"}, 400),
        ("GET", OPEN, {"X-Long": "x" * 40_000}, 400),
    ],
)
async def test_an_invalid_handshake_gets_the_bridges_error_body(
    server: Server, method: str, path: str, changed: dict[str, str], status: int
) -> None:
    async with connect_raw(server) as client:
        answered = await client.request(path, {**UPGRADE, **changed}, method)
        assert (answered.status, answered.code) == (status, 9001)


async def test_malformed_http_gets_an_error_and_is_closed(server: Server) -> None:
    async with connect_raw(server) as client:
        await client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        answered = await client.read_response()
        assert (answered.status, answered.code) == (400, 9001)
        assert await client.read_to_end() == b""


async def test_a_426_names_the_protocol_of_the_upgrade(server: Server) -> None:
    async with connect_raw(server) as client:
        answered = await client.request(OPEN, {"Host": "localhost"})
        assert answered.status == 426
        assert (answered.headers["upgrade"], answered.headers["connection"]) == ("websocket", "upgrade")


@pytest.mark.parametrize("query", ["compat=openai", "heartbeat=0", "heartbeat=soon", "heartbeat=nan", "heartbeat=1e9"])
async def test_an_invalid_query_is_reported(server: Server, query: str) -> None:
    async with connect_raw(server) as client:
        answered = await client.request(f"{OPEN}?{query}", UPGRADE)
        assert (answered.status, answered.code) == (400, 9003)


async def test_an_invalid_setting_of_the_handshake_is_reported(server: Server) -> None:
    async with connect_raw(server) as client:
        answered = await client.request(OPEN, {**UPGRADE, "cf-aig-max-attempts": "many"})
        assert (answered.status, answered.code) == (400, 9003)


# On which terms


@pytest.mark.parametrize(
    ("path", "last"),
    [
        (OPEN, "universal.error"),
        (f"{OPEN}?compat=cloudflare", "universal.done"),
        ("/v1/a/compatible", "universal.done"),
    ],
)
async def test_a_broken_event_ends_with_done_under_compat(tmp_path: Path, path: str, last: str) -> None:
    broken = ScriptedProvider(streams(*COMPLETE[:2]))
    async with running(config_of(CONFIG, tmp_path), broken) as server, connected(server, path) as client:
        frame = (await client.call({"eventId": "a", **step()}))[-1]
        assert frame["type"] == last
        assert frame["metadata"]["success"] is False
        assert frame["error"]["code"] == 9016


async def test_settings_of_the_handshake_apply_to_its_events(tmp_path: Path) -> None:
    headers = {"cf-aig-request-timeout": "50"}
    silent = ScriptedProvider(streams(asyncio.Event()))
    async with (
        running(config_of(CONFIG, tmp_path), silent) as server,
        connected(server, OPEN, headers=headers) as client,
    ):
        [frame] = await client.call({"eventId": "a", **step()})
        assert frame["error"]["code"] == 9013


@pytest.mark.parametrize(
    ("handshake", "members", "expected"),
    [
        (None, {}, "within 30 ms"),
        ("31", {}, "within 31 ms"),
        ("31", {"headers": {"cf-aig-request-timeout": "32"}}, "within 32 ms"),
        ("31", {"config": {"requestTimeout": 33}}, "within 33 ms"),
    ],
    ids=["the gateway's", "the handshake's", "the step's headers'", "the step's config's"],
)
async def test_settings_of_a_step_override_the_handshake_and_those_override_the_gateway(
    tmp_path: Path, handshake: str | None, members: dict[str, object], expected: str
) -> None:
    headers = {"cf-aig-request-timeout": handshake} if handshake else {}
    silent = ScriptedProvider(streams(asyncio.Event()))
    async with (
        running(config_of(CONFIG, tmp_path), silent) as server,
        connected(server, "/v1/account/hasty", headers=headers) as client,
    ):
        [frame] = await client.call({"eventId": "a", **step(), **members})
        assert expected in frame["error"]["message"]


async def test_no_header_of_the_handshake_is_forwarded(tmp_path: Path) -> None:
    headers = {
        "cf-aig-authorization": f"Bearer {TOKEN}",
        "cf-aig-max-attempts": "2",
        "Authorization": "Bearer of-the-handshake",
        "Cookie": "a=b",
        "User-Agent": "a browser",
        "X-Mine": "1",
    }
    provider = ScriptedProvider(streams(*COMPLETE))
    async with (
        running(config_of(CONFIG, tmp_path), provider) as server,
        connected(server, TOKENED, headers=headers) as client,
    ):
        await client.call({"eventId": "a", **step()})
    assert dict(provider.requests[0].headers) == {
        "authorization": "Bearer none",
        "content-type": "application/json",
        "accept-encoding": "identity",
    }


# Bounds


async def test_sockets_beyond_the_maximum_are_refused_until_one_closes(tmp_path: Path) -> None:
    async with (
        running(config_of("[server]\nmax_sockets = 2\n", tmp_path), ScriptedProvider()) as server,
        open_websocket(server),
        open_websocket(server) as second,
        connect_raw(server) as third,
    ):
        answered = await third.request(PATH, UPGRADE)
        assert (answered.status, answered.code) == (503, 9008)
        second.abort()
        while (answered := await third.request(PATH, UPGRADE)).status == 503:
            await turns()
        assert answered.status == 101


@pytest.mark.parametrize("expected", [b"", b"GET /v1/account/open HTTP/1.1\r\nHost: loc"])
async def test_a_connection_without_a_handshake_in_time_is_dropped(server: Server, expected: bytes) -> None:
    async with connect_raw(server) as client, open_websocket(server, OPEN) as other:
        await client.send(expected)
        await turns()
        advance(9)
        await other.send_json(UNKNOWN_CREATE)
        await other.receive_json()
        await client.send(expected and b"alhost\r\n")
        advance(1.1)
        assert await client.read_to_end() == b""
        await other.send_json(UNKNOWN_CREATE)
        assert (await other.receive_json())["metadata"]["eventId"] == "a"


async def test_a_refused_connection_that_stays_open_is_dropped(server: Server) -> None:
    async with connect_raw(server) as client:
        await client.request("/nowhere", {"Host": "localhost"})
        advance(10.1)
        assert await client.read_to_end() == b""


# What the log may know


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-WebSocket-Protocol": f"cf-aig-authorization.{TOKEN}"},
        {"Sec-WebSocket-Protocol": f"a, cf-aig-authorization.{TOKEN}"},
        {"Sec-WebSocket-Protocol": "", "sec-websocket-protocol": f"cf-aig-authorization.{TOKEN}"},
        {"cf-aig-authorization": TOKEN, "Sec-WebSocket-Key": TOKEN},
        {"cf-aig-authorization": f"{TOKEN}\x00"},
        {f"bad name {TOKEN}": "x"},
    ],
)
async def test_no_token_is_logged(server: Server, headers: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with connect_raw(server) as client:
        await client.request(TOKENED, {**UPGRADE, **headers})
        await turns()
    assert TOKEN not in caplog.text


# Beginnings and ends


async def test_an_address_in_use_leaves_nothing_open(server: Server, tmp_path: Path) -> None:
    port = int(server.url.rpartition(":")[2])
    transport = HttpTransport()
    tasks = asyncio.all_tasks()
    second = Server(config_of(CONFIG, tmp_path, port=port), Upstream(transport))
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    assert asyncio.all_tasks() == tasks
    await second.stop()


async def test_an_exception_in_a_handler_reveals_no_details(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("nobody expected this")

    monkeypatch.setattr("bridge.server.app.check_origin", fail)
    async with connect_raw(server) as client:
        answered = await client.request(OPEN, UPGRADE)
        assert (answered.status, answered.code) == (500, 9099)
        assert b"nobody expected" not in answered.body
    assert "nobody expected this" in caplog.text


async def test_a_client_of_the_wrong_protocol_gets_an_error(server: Server) -> None:
    async with aiohttp.ClientSession() as session, session.get(server.url.replace("ws:", "http:") + OPEN) as answer:
        assert answer.status == 426
        assert "ws://" in (await answer.json())["message"]
