"""Serve TLS with a valid certificate, and report an invalid one in one line before listening."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from bridge.config import ConfigError
from bridge.server.server import Server
from bridge.server.tls import server_context
from bridge.settings.server import ServerSettings
from tests.support.clock import advance, turns, until
from tests.support.event_harness import DONE, FINISH, content, step
from tests.support.harness import Client, config_of, connected, running
from tests.support.paths import FIXTURES
from tests.support.provider_script import SILENCE, ScriptedProvider, ScriptedResponse, streams
from tests.support.raw_client import UPGRADE, RawClient, connect_raw
from tests.support.socket_provider import client_context

FOLDER = FIXTURES / "tls"
CERTIFICATE, KEY = FOLDER / "localhost.pem", FOLDER / "localhost-key.pem"


def test_without_a_certificate_there_is_no_tls():
    assert server_context(ServerSettings()) is None


def test_a_certificate_and_its_key_make_a_context():
    assert server_context(ServerSettings(tls_cert=CERTIFICATE, tls_key=KEY)) is not None


@pytest.mark.parametrize(
    ("certificate", "key", "why"),
    [
        (KEY, KEY, "both in PEM"),
        (CERTIFICATE, CERTIFICATE, "both in PEM"),
        (FOLDER / "none.pem", KEY, "No such file or directory"),
    ],
)
def test_an_unusable_pair_is_reported_in_one_line(certificate, key, why):
    with pytest.raises(ConfigError) as refused:
        server_context(ServerSettings(tls_cert=certificate, tls_key=key))
    [problem] = refused.value.problems
    assert problem.key == "tls_cert, tls_key"
    assert f"{certificate} and {key} cannot be used: " in problem.message
    assert problem.message.endswith(why)


# A served certificate, from end to end


TOKEN = "a-token-of-tests"
PATH = "/v1/account/tokened"
CREATE = {"type": "universal.create", "request": {"eventId": "a", **step()}}
CONFIG = f"""
[server]
tls_cert = "{CERTIFICATE}"
tls_key = "{KEY}"
[gateways.tokened.tokens]
ci = "sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
"""


@asynccontextmanager
async def serving(folder: Path, *plays: ScriptedResponse) -> AsyncIterator[tuple[Server, ScriptedProvider]]:
    provider = ScriptedProvider(*plays)
    async with running(config_of(CONFIG, folder), provider) as server:
        yield server, provider


@asynccontextmanager
async def secured(server: Server, token: str = TOKEN) -> AsyncIterator[Client]:
    headers = {"cf-aig-authorization": f"Bearer {token}"}
    async with connected(server, PATH, headers=headers, ssl=client_context()) as client:
        yield client


async def test_a_client_with_a_token_gets_a_stream_over_wss(tmp_path: Path) -> None:
    whole = streams(*[content("x" * 10_000)] * 300, FINISH, DONE)
    async with serving(tmp_path, whole) as (server, _), secured(server) as client:
        assert server.url.startswith("wss://")
        frames = await client.call({"eventId": "a", **step()})
        assert (len(frames), frames[-1]["type"]) == (303, "universal.done")


async def test_a_wrong_token_is_refused_over_https(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with secured(server, "wrong"):
                pass
        assert refused.value.status == 401


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_connection_without_a_tls_handshake_in_time_is_dropped(tmp_path: Path, hello: bytes) -> None:
    async with serving(tmp_path) as (server, _), connect_raw(server) as client:
        await client.send(hello)
        await turns()
        advance(10.1)
        assert await client.read_to_end() == b""


async def test_a_connection_without_tls_is_dropped_without_effect_on_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    whole = streams(content("a"), FINISH, DONE)
    async with serving(tmp_path, whole) as (server, _), secured(server) as client, connect_raw(server) as plain:
        await plain.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await plain.read_to_end()
        assert (await client.call({"eventId": "a", **step()}))[-1]["type"] == "universal.done"


@asynccontextmanager
async def raw(server: Server) -> AsyncIterator[RawClient]:
    async with connect_raw(server, tls=client_context()) as client:
        answered = await client.request(PATH, {**UPGRADE, "cf-aig-authorization": TOKEN})
        assert answered.status == 101
        yield client


async def test_dropping_the_connection_cancels_its_events(tmp_path: Path) -> None:
    async with serving(tmp_path, streams(content("a"), SILENCE)) as (server, provider):
        async with raw(server) as client:
            await client.send_json(CREATE)
            await client.receive_json()
        await until(lambda: not provider.open_streams)


async def test_a_client_that_reads_nothing_is_dropped(tmp_path: Path) -> None:
    """An orderly end of TLS would wait for the client."""
    endless = streams(*[content("x" * 10_000)] * 5000)
    async with serving(tmp_path, endless) as (server, provider), raw(server) as client:
        await client.send_json(CREATE)
        await until(lambda: provider.requests and provider.requests[0].reads > 100)
        stopping = asyncio.create_task(server.stop())
        for _ in range(60):
            advance(1)
            await turns(20)
        await stopping
        assert not provider.open_streams
