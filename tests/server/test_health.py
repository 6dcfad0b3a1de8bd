"""Serve health and metrics to operators, and refuse metrics to others."""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import Mock

import orjson
import pytest
from aiohttp.test_utils import make_mocked_request

from bridge.config import ConfigError, load
from bridge.errors import BridgeError
from bridge.server.health import _check_reader
from bridge.server.server import Server
from tests.support.clock import turns, until
from tests.support.event_harness import DONE, FINISH, content, step
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import SILENCE, ScriptedProvider, streams
from tests.support.raw_client import RawResponse, connect_raw

TOKEN = "let-prometheus-in"
HASH = hashlib.sha256(TOKEN.encode()).hexdigest()
HOST = {"Host": "127.0.0.1"}


async def response_to(server: Server, path: str, method: str = "GET", **headers: str) -> RawResponse:
    async with connect_raw(server) as client:
        return await client.request(path, HOST | headers, method)


async def test_healthz_answers_while_the_process_runs(tmp_path: Path) -> None:
    async with running(config_of("", tmp_path)) as server:
        for path, body in (("/healthz", b"alive\n"), ("/readyz", b"ready\n")):
            answered = await response_to(server, path)
            assert (answered.status, answered.body) == (200, body)


async def test_health_routes_accept_head(tmp_path: Path) -> None:
    async with running(config_of("", tmp_path)) as server, connect_raw(server) as client:
        for path in ("/healthz", "/readyz"):
            await client.send(f"HEAD {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head = await client._reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")


async def test_a_draining_bridge_is_alive_but_not_ready(tmp_path: Path) -> None:
    """This also holds for new connections."""
    gate = asyncio.Event()
    provider = ScriptedProvider(streams(content("a"), gate, FINISH, DONE))
    async with running(config_of("", tmp_path), provider) as server, connected(server) as client:
        await client.create({"eventId": "a", **step()})
        await client.receive()
        stopping = asyncio.create_task(server.stop())
        await turns()
        answered = await response_to(server, "/readyz")
        assert (answered.status, answered.body) == (503, b"not ready: shutting down\n")
        assert (await response_to(server, "/healthz")).status == 200
        assert b"bridge_draining 1.0\n" in (await response_to(server, "/metrics")).body
        assert (await response_to(server, "/v1/account/gateway", Upgrade="websocket")).code == 9022
        gate.set()
        assert (await client.until_last("a"))[-1]["type"] == "universal.done"
        await stopping


async def test_a_bridge_with_max_sockets_open_is_not_ready(tmp_path: Path) -> None:
    async with running(config_of("[server]\nmax_sockets = 1\n", tmp_path)) as server:
        async with connected(server):
            assert (await response_to(server, "/readyz")).body == b"not ready: max_sockets are open\n"
        await until(lambda: not len(server.connections))
        assert (await response_to(server, "/readyz")).status == 200


async def test_a_bridge_without_free_memory_is_not_ready(tmp_path: Path) -> None:
    config = config_of("[server]\nmemory_budget_bytes = 2048\n", tmp_path)
    provider = ScriptedProvider(streams(content("a"), SILENCE))
    async with running(config, provider) as server, connected(server) as client:
        message = {"type": "universal.create", "request": {"eventId": "a", **step()}, "padding": ""}
        message["padding"] = "x" * (2048 - len(orjson.dumps(message)))
        await client.send(message)
        await client.receive()
        assert (await response_to(server, "/readyz")).body == b"not ready: memory_budget_bytes are used\n"
        await client.cancel("a")
        await client.until_last("a")
        assert (await response_to(server, "/readyz")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "192.0.2.1"},
        {"Forwarded": "for=192.0.2.1"},
        {"X-Real-IP": "192.0.2.1"},
        {"Via": "1.1 proxy"},
        {"x-forwarded-host": "bridge.example"},
        {"X-Forwarded-Proto": "https"},
        {"CF-Connecting-IP": "192.0.2.1"},
        {"CF-Ray": "1"},
        {"CF-Warp-Tag-Id": "1"},
        {"True-Client-IP": "192.0.2.1"},
        {"X-Client-IP": "192.0.2.1"},
        {"X-Amzn-Trace-Id": "Root=1"},
        {"X-Envoy-Internal": "true"},
        {"Host": "rebound.example"},
        {"Origin": "https://page.example"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_metrics_are_refused_to_clients_behind_a_proxy(tmp_path: Path, headers: Mapping[str, str]) -> None:
    async with running(config_of("", tmp_path)) as server:
        answered = await response_to(server, "/metrics", **headers)
        assert (answered.status, answered.code) == (403, 9009)
        assert (await response_to(server, "/healthz", **headers)).status == 200


@pytest.mark.parametrize(
    ("peer", "may"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False), ("::ffff:192.0.2.1", False)],
)
def test_metrics_are_served_to_this_machine(peer: str, *, may: bool) -> None:
    transport = Mock(get_extra_info=lambda name, default=None: (peer, 4711) if name == "peername" else default)
    request = make_mocked_request("GET", "/metrics", HOST, transport=transport)
    if may:
        _check_reader(request, None)
    else:
        with pytest.raises(BridgeError, match="metrics_token"):
            _check_reader(request, None)


@pytest.mark.parametrize("value", [f"sha256:{HASH}", "env:METRICS_TOKEN", "file:token"])
async def test_the_metrics_token_allows_any_client_to_read_metrics(tmp_path: Path, value: str) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    path = tmp_path / "bridge.toml"
    path.write_text(f'[server]\nmetrics_token = "{value}"\n')
    config = load(path, {"METRICS_TOKEN": TOKEN}, {"port": 0})
    async with running(config) as server:
        answered = await response_to(
            server, "/metrics", Authorization=f"Bearer {TOKEN}", Host="any.example", Via="1.1 proxy"
        )
        assert answered.status == 200
        for wrong in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": TOKEN},
            {"Authorization": f"Basic {TOKEN}"},
        ):
            answered = await response_to(server, "/metrics", **wrong)
            assert (answered.status, answered.code) == (401, 2009)
            assert TOKEN.encode() not in answered.body


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (TOKEN, "this is not a token as"),
        ("env:MISSING", "the environment variable MISSING is not set"),
        ("file:missing", "cannot be read"),
        ("sha256:abc", "64 hexadecimal digits"),
    ],
)
def test_an_invalid_metrics_token_is_reported_with_its_line_and_not_shown(
    tmp_path: Path, value: str, problem: str
) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text(f'[server]\nmetrics_token = "{value}"\n')
    with pytest.raises(ConfigError) as raised:
        load(path, {}, {})
    [found] = raised.value.problems
    assert (found.key, found.line) == ("server.metrics_token", 2)
    assert problem in found.message
    assert TOKEN not in str(raised.value)
