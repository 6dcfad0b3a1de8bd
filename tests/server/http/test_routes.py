"""Authorize HTTP requests by token and origin, and route them by path."""

import hashlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from bridge.server.http.routes import below_gateway
from tests.support.clock import advance, turns
from tests.support.event_harness import step
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import ScriptedProvider, answers
from tests.support.raw_http import GATEWAY, HttpClient, HttpResult, connect_http

TOKEN = "a-token-of-tests"
STORED = "sk-stored-key-of-the-gateway"
CONFIG = f"""
[gateways.tokened]
allowed_origins = ["https://app.example"]
[gateways.tokened.tokens]
ci = "sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
[gateways.stored.tokens]
ci = "sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
[gateways.stored.keys]
openai.default = "file:key"
anthropic.default = "file:key"
google-ai-studio.default = "file:key"
[gateways.open]
allowed_origins = ["https://app.example"]
"""
TOKENED = "/v1/account/tokened"
STORING = "/v1/account/stored"
OPEN = "/v1/account/open"


@asynccontextmanager
async def serving(folder: Path, calls: int = 1) -> AsyncIterator[tuple[HttpClient, ScriptedProvider]]:
    (folder / "key").write_text(STORED)
    provider = ScriptedProvider(*[answers()] * calls)
    async with running(config_of(CONFIG, folder), provider) as server, connect_http(server) as client:
        yield client, provider


async def response_to(
    folder: Path, path: str, headers: Mapping[str, str], **more: object
) -> tuple[HttpResult, ScriptedProvider]:
    async with serving(folder) as (client, provider):
        return await client(path=path, headers=headers, **more), provider


# Tokens


@pytest.mark.parametrize("path", [f"{TOKENED}/openai/v1/x", TOKENED])
@pytest.mark.parametrize(
    "headers",
    [
        {"cf-aig-authorization": f"Bearer {TOKEN}"},
        {"cf-aig-authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"Token {TOKEN}"},
        {"x-api-key": TOKEN},
        {"api-key": TOKEN},
        {"x-goog-api-key": TOKEN},
        {"xi-api-key": TOKEN},
        {"Authorization": "Bearer other", "x-api-key": TOKEN},
    ],
    ids=lambda headers: " ".join(headers) + " " + next(iter(headers.values()))[:6],
)
async def test_a_token_is_accepted_in_its_own_header_and_in_place_of_a_key(
    tmp_path: Path, path: str, headers: dict[str, str]
) -> None:
    response, provider = await response_to(tmp_path, path, headers, body=orjson.dumps(step()))
    assert response.status == 200
    assert TOKEN not in str(provider.requests[0].headers.raw)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"cf-aig-authorization": "Bearer wrong"},
        {"cf-aig-authorization": ""},
        {"cf-aig-authorization": "wrong", "Authorization": f"Bearer {TOKEN}"},
        {"Authorization": "Bearer sk-of-openai"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"x-other": TOKEN},
        {"Sec-WebSocket-Protocol": f"cf-aig-authorization.{TOKEN}"},
    ],
)
async def test_any_other_request_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    response, provider = await response_to(tmp_path, f"{TOKENED}/openai/v1/x", headers)
    assert (response.status, response.code) == (401, 2009)
    assert not provider.requests


async def test_a_refused_client_gets_no_100_continue(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, _):
        await client.send_request(path=TOKENED, body=None, headers={"Content-Length": "9", "Expect": "100-continue"})
        assert (await client.read_response()).status == 401
        await turns()
        advance(11)  # for which a body that comes all the same is read
        assert await client.raw.read_to_end() == b""


@pytest.mark.parametrize(
    ("slug", "header", "theirs"),
    [
        ("openai", "Authorization", f"Bearer {STORED}"),
        ("anthropic", "x-api-key", STORED),
        ("google-ai-studio", "x-goog-api-key", STORED),
    ],
)
async def test_the_gateways_stored_key_takes_the_place_of_the_token(
    tmp_path: Path, slug: str, header: str, theirs: str
) -> None:
    """An SDK then needs only its base URL and the token."""
    response, provider = await response_to(
        tmp_path, f"{STORING}/{slug}/v1/messages", {header: theirs.replace(STORED, TOKEN)}
    )
    assert response.status == 200
    assert provider.requests[0].headers[header] == theirs


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {TOKEN}"},
        {"x-api-key": TOKEN},
        {"x-some-auth-token": f"{TOKEN}"},
        {"cf-aig-authorization": TOKEN},
    ],
)
async def test_no_token_in_a_step_reaches_a_provider(tmp_path: Path, headers: dict[str, str]) -> None:
    """This holds over HTTP and on a socket."""
    asking = {"eventId": "a", "provider": "openai", "endpoint": "x", "headers": {**headers, "x-mine": "1"}, "query": {}}
    (tmp_path / "key").write_text(STORED)
    provider = ScriptedProvider(answers(), answers())
    async with running(config_of(CONFIG, tmp_path), provider) as server:
        own = {"cf-aig-authorization": TOKEN}
        async with connect_http(server) as client, connected(server, TOKENED, headers=own) as socket:
            assert (await client(path=TOKENED, body=orjson.dumps(asking), headers=own)).status == 200
            await socket.call(asking)
    for received in provider.requests:
        assert TOKEN not in str(received.headers.raw)
        assert received.headers["x-mine"] == "1"


async def test_a_token_in_the_url_is_refused_for_it_would_reach_the_provider(tmp_path: Path) -> None:
    path = f"{TOKENED}/google-ai-studio/v1beta/models?a=b&key={TOKEN}"
    response, provider = await response_to(tmp_path, path, {"cf-aig-authorization": TOKEN})
    assert (response.status, response.code) == (400, 9003)
    assert TOKEN.encode() not in response.body
    assert not provider.requests


async def test_the_clients_own_key_is_forwarded_without_the_token(tmp_path: Path) -> None:
    headers = {"cf-aig-authorization": TOKEN, "Authorization": "Bearer sk-mine"}
    _, provider = await response_to(tmp_path, f"{STORING}/openai/v1/x", headers)
    assert provider.requests[0].headers["authorization"] == "Bearer sk-mine"


async def test_no_token_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for header in ("Authorization", "x-api-key", "cf-aig-authorization"):
        await response_to(tmp_path, f"{TOKENED}/openai/v1/x", {header: f"Bearer {TOKEN}"})
    assert TOKEN not in caplog.text


# Pages


@pytest.mark.parametrize(
    ("gateway", "origin", "headers"),
    [
        (TOKENED, "https://app.example", {"cf-aig-authorization": TOKEN}),
        (OPEN, "https://app.example", {}),
        (OPEN, "http://localhost:3000", {}),
    ],
)
async def test_a_page_of_an_allowed_origin_may_read_the_response(
    tmp_path: Path, gateway: str, origin: str, headers: dict[str, str]
) -> None:
    async with serving(tmp_path) as (client, _):
        asking = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-api-key",
        }
        for path in (gateway, f"{gateway}/openai/v1/x"):
            response = await client("OPTIONS", path, None, {"Origin": origin, **asking})
            assert response.status == 204
            assert response.headers["access-control-allow-origin"] == origin
            assert response.headers["access-control-allow-methods"] == "POST"
            assert response.headers["access-control-allow-headers"] == "x-api-key"
            assert "access-control-allow-credentials" not in response.headers
        response = await client(path=f"{gateway}/openai/v1/x", headers={"Origin": origin, **headers})
        assert response.status == 200
        assert response.headers["access-control-allow-origin"] == origin
        assert response.headers["access-control-expose-headers"] == "*"
        assert response.headers["vary"] == "origin"


async def test_a_page_of_an_allowed_origin_may_read_a_refusal(tmp_path: Path) -> None:
    response, _ = await response_to(tmp_path, f"{TOKENED}/openai/v1/x", {"Origin": "https://app.example"})
    assert (response.status, response.headers["access-control-allow-origin"]) == (401, "https://app.example")


async def test_a_page_of_another_origin_may_not_read_the_response(tmp_path: Path) -> None:
    headers = {"Origin": "https://evil.example", "cf-aig-authorization": TOKEN}
    response, _ = await response_to(tmp_path, f"{TOKENED}/openai/v1/x", headers)
    assert response.status == 200
    assert not any(name.startswith("access-control-") for name in response.headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "OPTIONS", "GET"])
async def test_an_open_gateway_refuses_foreign_pages_and_rebound_names(
    tmp_path: Path, headers: dict[str, str], method: str
) -> None:
    response, provider = await response_to(tmp_path, f"{OPEN}/openai/v1/x", headers, method=method)
    assert (response.status, response.code) == (403, 9009)
    assert not provider.requests


async def test_an_address_typed_into_a_browser_is_served(tmp_path: Path) -> None:
    response, _ = await response_to(
        tmp_path, f"{OPEN}/openai/v1/x", {"Sec-Fetch-Site": "none"}, method="GET", body=None
    )
    assert response.status == 200


async def test_an_options_request_without_origin_reaches_the_provider(tmp_path: Path) -> None:
    response, provider = await response_to(tmp_path, f"{OPEN}/openai/v1/x", {}, method="OPTIONS")
    assert (response.status, len(provider.requests)) == (200, 1)


# Paths


@pytest.mark.parametrize(
    ("path", "provider", "endpoint"),
    [
        ("/v1/a/g/openai", "openai", ""),
        ("/v1/a/g/openai/", "openai", ""),
        ("/v1/a/g/openai?x=/y", "openai", "?x=/y"),
        ("/v1/a/g/openai/v1/x", "openai", "v1/x"),
        ("/v1/a/g/openai//v1/x", "openai", "/v1/x"),
        ("/v1/a%2Fb/g/custom-own/a%2Fb?c=%2F&d", "custom-own", "a%2Fb?c=%2F&d"),
        ("http://127.0.0.1:8787/v1/a/g/openai/v1/x?y", "openai", "v1/x?y"),
    ],
)
def test_provider_and_endpoint_are_read_from_the_path(path: str, provider: str, endpoint: str) -> None:
    assert below_gateway(path) == (provider, endpoint)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/account/nobody/openai/x", 400, 2001),
        ("POST", "/v1/account/nobody", 400, 2001),
        ("POST", f"{OPEN}/nobody/x", 400, 2008),
        ("POST", f"{OPEN}/openai/../x", 400, 9007),
        ("POST", f"{OPEN}/openai/%2e%2e/x", 400, 9007),
        ("TRACE", f"{OPEN}/openai/x", 400, 9003),
        ("POST", "/v1/account", 404, 9001),
        ("POST", "/v2/account/open/openai/x", 404, 9001),
        ("PUT", OPEN, 426, 9001),
        ("HEAD", OPEN, 426, None),
        ("POST", f"{OPEN}/compat/embeddings", 400, 9003),
    ],
)
async def test_other_requests_get_an_error(
    tmp_path: Path, method: str, path: str, status: int, code: int | None
) -> None:
    response, provider = await response_to(tmp_path, path, {}, method=method)
    assert response.status == status
    assert code is None or response.code == code
    assert not provider.requests


@pytest.mark.parametrize("headers", [{"X-Long": "x" * 40_000}, {f"X-{n}": "1" for n in range(101)}])
async def test_more_headers_than_a_step_may_have_are_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    response, _ = await response_to(tmp_path, f"{OPEN}/openai/x", headers)
    assert response.status in {400, 413}


async def test_long_headers_and_queries_are_accepted(tmp_path: Path) -> None:
    """Access tokens and queries may have several KB."""
    path = f"{OPEN}/openai/x?q={'y' * 30_000}"
    response, provider = await response_to(tmp_path, path, {"Authorization": "Bearer " + "x" * 20_000})
    assert response.status == 200
    assert len(provider.requests[0].headers["authorization"]) == 20_007


async def test_a_header_of_unknown_encoding_is_refused(tmp_path: Path) -> None:
    response, _ = await response_to(tmp_path, f"{OPEN}/openai/x", {"X-Name": "caf\u00e9"})
    assert (response.status, response.code) == (400, 9003)


# The OpenAI-shaped front


@pytest.mark.parametrize(
    ("model", "url", "sent"),
    [
        ("openai/gpt-4o", "https://api.openai.com/v1/chat/completions", "gpt-4o"),
        ("anthropic/claude", "https://api.anthropic.com/v1/chat/completions", "claude"),
        (
            "google-ai-studio/gemini",
            "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
            "gemini",
        ),
        ("perplexity/sonar", "https://api.perplexity.ai/chat/completions", "sonar"),
        ("openrouter/meta/llama", "https://openrouter.ai/api/v1/chat/completions", "meta/llama"),
    ],
)
@pytest.mark.parametrize("endpoint", ["chat/completions", "v1/chat/completions"])
async def test_the_name_of_the_model_selects_the_provider(
    tmp_path: Path, model: str, url: str, sent: str, endpoint: str
) -> None:
    body = b'{ "messages": [], "model": "%s", "n" : 1.0 }'
    response, provider = await response_to(
        tmp_path, f"{GATEWAY.replace('gateway', 'open')}/compat/{endpoint}", {}, body=body % model.encode()
    )
    assert response.status == 200
    assert provider.requests[0].url == url
    assert provider.requests[0].content == body % sent.encode()


async def test_the_front_may_be_a_step_among_others(tmp_path: Path) -> None:
    chat = {"provider": "compat", "endpoint": "chat/completions", "query": {"model": "groq/llama"}}
    _, provider = await response_to(tmp_path, OPEN, {}, body=orjson.dumps([chat]))
    assert provider.requests[0].url == "https://api.groq.com/openai/v1/chat/completions"
    assert provider.requests[0].content == b'{"model":"llama"}'
