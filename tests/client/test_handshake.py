"""How a client gets in, and what it is told when it does not."""

import hashlib
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from bridge.client import CannotConnect, connect
from bridge.config import load
from tests.support.client_harness import QUERY
from tests.support.harness import config_of, running
from tests.support.paths import FIXTURES
from tests.support.provider_script import ScriptedProvider, answers

CHAT = ("openai", "chat/completions", QUERY)
CERTIFICATE = FIXTURES / "tls" / "localhost.pem"


async def test_the_token_is_sent_and_a_wrong_one_raises_the_error_of_the_bridge(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    config = config_of(f'[gateways.mine.tokens]\nci = "sha256:{digest}"', tmp_path)
    async with running(config, ScriptedProvider(answers())) as server:
        url = f"{server.url}/v1/me/mine"
        async with connect(url, "right") as bridge:
            assert (await bridge.request(*CHAT)).response == {"ok": True}
        with pytest.raises(
            CannotConnect, match=r"HTTP 401: Unauthorized: the token is not valid for gateway 'mine'"
        ) as refused:
            await connect(url, "wrong")
    assert (refused.value.status, refused.value.code, refused.value.is_final) == (401, 2009, True)


async def test_headers_of_the_handshake_are_settings_for_all_events() -> None:
    async with running(load(None, {}, {"port": 0}), ScriptedProvider(*[answers(b"{}", 503)] * 2, answers())) as server:
        settings = {"cf-aig-max-attempts": "3", "cf-aig-retry-delay": "0"}
        async with connect(f"{server.url}/v1/me/mine", headers=settings) as bridge:
            assert len((await bridge.request(*CHAT)).metadata.attempts) == 3


async def test_a_certificate_is_checked_and_a_context_of_ones_own_may_be_given() -> None:
    overrides = {"port": 0, "tls_cert": CERTIFICATE, "tls_key": CERTIFICATE.with_name("localhost-key.pem")}
    async with running(load(None, {}, overrides), ScriptedProvider(answers())) as server:
        url = f"{server.url}/v1/me/mine"
        with pytest.raises(CannotConnect, match=r"^the certificate is not trusted: self-signed certificate"):
            await connect(url)
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        async with connect(url, ssl=context) as bridge:
            assert (await bridge.request(*CHAT)).response == {"ok": True}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"ws://127.0.0.1:{unused_port()}/v1/me/default", "Connection refused"),
        ("ws://no-such-host.invalid/", "[Nn]ame"),
        ("127.0.0.1:8787", "invalid WebSocket URL"),
        ("ftp://127.0.0.1/", "invalid WebSocket URL"),
        ("", "invalid WebSocket URL"),
    ],
)
async def test_an_unreachable_bridge_is_reported_with_the_reason(url, why):
    with pytest.raises(CannotConnect, match=why):
        await connect(url)


async def test_a_server_without_tls_is_reported() -> None:
    async with running(load(None, {}, {"port": 0}), ScriptedProvider()) as server:
        with pytest.raises(CannotConnect, match=r"^TLS: .* \(does the other side speak TLS on this port\?\)$"):
            await connect(server.url.replace("ws://", "wss://") + "/v1/me/mine")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (web.Response(text="no such page", status=404), "HTTP 404: Not Found"),
        (web.Response(text='{"message": 5}', status=500), "HTTP 500: 5"),
        (web.Response(status=302, headers={"Location": "/elsewhere"}), "HTTP 302: Found"),
        (web.Response(text="hello"), "HTTP 200: OK"),
    ],
)
async def test_a_server_without_upgrade_is_refused_and_a_redirect_is_not_followed(answer, why):
    paths: list[str] = []

    async def serve(request: web.Request) -> web.Response:
        paths.append(request.path)
        return answer

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    async with TestServer(app) as server:
        with pytest.raises(CannotConnect, match=why):
            await connect(str(server.make_url("/here")), "secret")
    assert paths == ["/here"]
