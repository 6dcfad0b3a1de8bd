"""Scopes of tokens at each entry: WebSocket, both HTTP interfaces, realtime sessions."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from tests.support.harness import config_of, connected, running
from tests.support.provider_script import ScriptedProvider, answers
from tests.support.raw_client import RawClient
from tests.support.raw_http import connect_http
from tests.support.realtime_harness import UPGRADE, AcceptingProvider, connect_raw
from tests.support.socket_provider import Provider

TOKEN = {"cf-aig-authorization": "secret"}
DIGEST = hashlib.sha256(b"secret").hexdigest()
PATH = "/v1/account/gateway"


def gateway(token: str = "", more: str = "") -> str:
    return f"""
[gateways.gateway]
{more}
[gateways.gateway.keys]
openai = {{ default = "file:key" }}
fal = {{ default = "file:key" }}
google-ai-studio = {{ default = "file:key" }}
[gateways.gateway.tokens.ci]
token = "sha256:{DIGEST}"
{token}
"""


Call = tuple[str, str, str, dict[str, object] | None]
"""Method, provider, endpoint and body of a request."""

CHAT: Call = ("POST", "openai", "v1/chat/completions", {"model": "gpt-4o-mini"})
GEMINI: Call = ("POST", "google-ai-studio", "v1beta/models/gemini-2.5-flash:generateContent", {})
MODELS: Call = ("GET", "openai", "v1/models", None)
FILES: Call = ("GET", "openai", "v1/files", None)
UPLOAD: Call = ("POST", "openai", "v1/files", {"model": "gpt-4o-mini"})
RESPONSE: Call = ("GET", "openai", "v1/responses/resp_1", None)


async def over_a_socket(folder: Path, text: str, call: Call, headers: dict[str, str]) -> tuple[int, int | None]:
    (folder / "key").write_text("stored-secret")
    method, provider, endpoint, body = call
    step = {"provider": provider, "endpoint": endpoint, "method": method, "headers": headers, "query": body}
    scripted = ScriptedProvider(answers())
    async with running(config_of(text, folder), scripted) as server, connected(server, PATH, headers=TOKEN) as client:
        [frame] = await client.call({"eventId": 0, **step})
    assert len(scripted.requests) == (frame["metadata"]["status"] == 200)
    return frame["metadata"]["status"], frame.get("error", {}).get("code")


async def over_http(folder: Path, text: str, call: Call, headers: dict[str, str]) -> tuple[int, int | None]:
    (folder / "key").write_text("stored-secret")
    method, provider, endpoint, body = call
    scripted = ScriptedProvider(answers())
    async with running(config_of(text, folder), scripted) as server, connect_http(server) as client:
        data = None if body is None else orjson.dumps(body)
        response = await client(method, f"{PATH}/{provider}/{endpoint}", data, {**TOKEN, **headers})
    assert len(scripted.requests) == (response.status == 200)
    return response.status, None if response.status == 200 else 2009 if b"2009" in response.body else 0


every_entry = pytest.mark.parametrize("ask", [over_a_socket, over_http])


@every_entry
@pytest.mark.parametrize("call", [CHAT, GEMINI, MODELS])
async def test_a_stored_key_can_call_and_list_models(tmp_path: Path, ask, call: Call) -> None:
    assert await ask(tmp_path, gateway(), call, {}) == (200, None)


@every_entry
@pytest.mark.parametrize("call", [FILES, UPLOAD, RESPONSE])
async def test_a_stored_key_cannot_reach_stored_resources_of_the_provider(tmp_path: Path, ask, call: Call) -> None:
    assert await ask(tmp_path, gateway(), call, {}) == (403, 2009)


@every_entry
async def test_a_key_of_the_client_can_call_any_endpoint(tmp_path: Path, ask) -> None:
    assert await ask(tmp_path, gateway(), FILES, {"authorization": "Bearer own"}) == (200, None)


@every_entry
@pytest.mark.parametrize(
    ("token", "more"),
    [
        ('stored_key_access = "full"', ""),
        ("", 'stored_key_access = "full"'),
        ('endpoints = ["files"]', ""),
    ],
)
async def test_a_gateway_or_a_token_may_allow_full_access(tmp_path: Path, ask, token: str, more: str) -> None:
    assert await ask(tmp_path, gateway(token, more), FILES, {}) == (200, None)


@every_entry
@pytest.mark.parametrize(
    ("token", "call", "status"),
    [
        ('models = ["gpt-4o-mini"]', CHAT, 200),
        ('models = ["gpt-4o*"]', CHAT, 200),
        ('models = ["gpt-5"]', CHAT, 403),
        ('models = ["gpt-5"]', MODELS, 200),
        ('models = ["gemini-2.5-flash"]', GEMINI, 200),
        ('models = ["gpt-4o-mini"]', GEMINI, 403),
        ('endpoints = ["v1/chat/completions"]', CHAT, 200),
        ('endpoints = ["chat"]', CHAT, 200),
        ('endpoints = ["v1/embeddings"]', CHAT, 403),
        ('methods = ["GET"]', MODELS, 200),
        ('methods = ["GET"]', CHAT, 403),
        ('methods = ["GET", "POST"]\nmodels = ["gpt-4o-mini"]\nendpoints = ["chat"]', CHAT, 200),
    ],
)
async def test_a_token_may_be_limited_to_models_endpoints_and_methods(
    tmp_path: Path, ask, token: str, call: Call, status: int
) -> None:
    assert (await ask(tmp_path, gateway(token), call, {}))[0] == status


@every_entry
async def test_a_second_model_member_in_the_body_is_refused(tmp_path: Path, ask) -> None:
    hidden: Call = ("POST", "openai", "v1/chat/completions", {"model": "gpt-4o-mini", "MODEL": "gpt-5"})
    assert await ask(tmp_path, gateway('models = ["gpt-4o-mini"]'), hidden, {}) == (403, 2009)


@pytest.mark.parametrize(
    ("url", "status"), [("https://queue.fal.run/fal-ai/flux", 200), ("https://rest.alpha.fal.ai/tokens/", 403)]
)
async def test_a_url_in_a_header_is_limited_by_the_same_scopes(tmp_path: Path, url: str, status: int) -> None:
    headers = {"x-fal-target-url": url}
    assert (await over_http(tmp_path, gateway(), ("POST", "fal", "", {}), headers))[0] == status


# Realtime sessions


@asynccontextmanager
async def realtime(folder: Path, token: str) -> AsyncIterator[tuple[RawClient, AcceptingProvider]]:
    (folder / "key").write_text("stored-secret")
    sockets = AcceptingProvider()
    async with Provider(sockets.script) as provider:
        text = f'[providers.openai]\nbase_url = "http://127.0.0.1:{provider.port}/v1"\n{gateway(token)}'
        async with running(config_of(text, folder)) as server, connect_raw(server) as client:
            yield client, sockets


@pytest.mark.parametrize(
    ("token", "endpoint"),
    [
        ("", "realtime?model=gpt-realtime"),
        ('models = ["gpt-realtime"]', "realtime?model=gpt-realtime"),
        ('endpoints = ["realtime"]\nmethods = ["GET"]', "v1/realtime?model=gpt-realtime"),
        ('stored_key_access = "full"', "realtime?call_id=rtc_1"),
    ],
)
async def test_a_realtime_session_within_the_scopes_is_opened(tmp_path: Path, token: str, endpoint: str) -> None:
    async with realtime(tmp_path, token) as (client, sockets):
        assert (await client.request(f"{PATH}/openai/{endpoint}", {**UPGRADE, **TOKEN})).status == 101
        side = await sockets.next_session()
        side.line.drop()
    assert side.headers["authorization"] == "Bearer stored-secret"


@pytest.mark.parametrize(
    ("token", "endpoint"),
    [
        ("", "v1/files"),
        ("", "v1/chat/completions"),
        ("", "realtime?call_id=rtc_1"),
        ('models = ["gpt-5"]', "realtime?model=gpt-realtime"),
        ('endpoints = ["chat"]', "realtime?model=gpt-realtime"),
        ('methods = ["POST"]', "realtime?model=gpt-realtime"),
    ],
)
async def test_a_realtime_session_beyond_the_scopes_is_refused(tmp_path: Path, token: str, endpoint: str) -> None:
    async with realtime(tmp_path, token) as (client, _):
        response = await client.request(f"{PATH}/openai/{endpoint}", {**UPGRADE, **TOKEN})
    assert response.status == 403
