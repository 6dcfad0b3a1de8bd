"""Tokens over real sockets: how clients present them, and their scopes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.redact.text import redact_text
from tests.support.commands import run
from tests.support.event_harness import step
from tests.support.harness import Client, config_of, connected, running
from tests.support.provider_script import ScriptedProvider, ScriptedResponse, answers

TOKEN, OTHER = "the-secret-of-ci", "the-secret-of-guests"
PATH = "/v1/account/prod"


def line_for(token: str) -> str:
    return run("token", "--hash", stdin=token + "\n").stdout.strip()


CONFIG = f"""
[gateways.prod.tokens]
ci = "{line_for(TOKEN)}"
[gateways.prod.tokens.guest]
token = "{line_for(OTHER)}"
providers = ["openai", "groq"]
"""


def bearer(token: str) -> dict[str, str]:
    return {"cf-aig-authorization": f"Bearer {token}"}


@asynccontextmanager
async def connected_with(
    folder: Path, *plays: ScriptedResponse, token: str = TOKEN, **handshake: Any
) -> AsyncIterator[tuple[Client, ScriptedProvider]]:
    provider = ScriptedProvider(*plays)
    async with (
        running(config_of(CONFIG, folder), provider) as server,
        connected(server, PATH, **({"headers": bearer(token)} | handshake)) as client,
    ):
        yield client, provider


# Presenting a token


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "{}", "  Bearer   {}  "])
async def test_a_token_is_accepted_in_a_header_with_or_without_its_scheme(tmp_path: Path, form: str) -> None:
    async with connected_with(tmp_path, answers(), headers={"cf-aig-authorization": form.format(TOKEN)}) as (client, _):
        assert (await client.call({"eventId": 1, **step()}))[-1]["metadata"]["success"] is True


async def test_a_token_in_a_subprotocol_is_not_echoed_if_another_is_offered(tmp_path: Path) -> None:
    offered = [f"cf-aig-authorization.{TOKEN}", "universal"]
    async with connected_with(tmp_path, headers={}, protocols=offered) as (client, _):
        assert client.socket.protocol == "universal"


@pytest.mark.parametrize("headers", [{}, bearer("nobody"), bearer(""), {"authorization": f"Bearer {TOKEN}"}])
async def test_a_handshake_without_a_valid_token_is_refused_with_2009(tmp_path: Path, headers: dict[str, str]) -> None:
    async with (
        running(config_of(CONFIG, tmp_path)) as server,
        aiohttp.ClientSession() as session,
        session.get(server.url.replace("ws", "http", 1) + PATH, headers=headers) as answer,
    ):
        assert (answer.status, (await answer.json())["error"][0]["code"]) == (401, 2009)


async def test_the_token_is_not_sent_to_the_provider(tmp_path: Path) -> None:
    async with connected_with(tmp_path, answers()) as (client, provider):
        await client.call({"eventId": 1, **step(), "headers": bearer(TOKEN)})
        assert TOKEN not in str(provider.requests[0].headers)


# Scopes of a token


@pytest.mark.parametrize("endpoint", [f"v1/{TOKEN}", f"models?page={TOKEN}", TOKEN.replace("-", "%2D")])
async def test_a_step_with_a_token_in_its_url_is_refused_with_9003(tmp_path: Path, endpoint: str) -> None:
    async with connected_with(tmp_path, answers()) as (client, provider):
        refused = (await client.call({"eventId": 1, "provider": "openai", "endpoint": endpoint, "method": "GET"}))[-1]
        assert refused["error"]["code"] == 9003
        assert TOKEN not in str(refused)
        assert not provider.requests
        allowed = {**step(), "headers": {"x-title": f"Bearer%20{TOKEN}", "x-mine": "1"}}
        assert (await client.call({"eventId": 2, **allowed}))[-1]["metadata"]["success"]
    headers = dict(provider.requests[0].headers)
    assert headers["x-mine"] == "1"
    assert "x-title" not in headers


async def test_a_token_in_a_long_header_is_not_sent_to_the_provider(tmp_path: Path) -> None:
    long = "a " * 10_000
    steps = [{**step(), "headers": headers} for headers in ({"x-token": f"{long}{TOKEN}"}, {"x-long": long})]
    async with connected_with(tmp_path, answers(status=500), answers()) as (client, provider):
        assert (await client.call({"eventId": 1, "steps": steps}))[-1]["metadata"]["step"] == "1"
    first, second = (dict(received.headers) for received in provider.requests)
    assert "x-token" not in first
    assert second["x-long"] == long


async def test_a_token_with_providers_may_call_no_other(tmp_path: Path) -> None:
    """The event fails before any step is called, and the error names the step and the token."""
    async with connected_with(tmp_path, answers(), token=OTHER) as (client, provider):
        [refused] = await client.call({"eventId": 1, "steps": [step(), {**step(), "provider": "anthropic"}]})
        assert (refused["error"]["code"], refused["metadata"]["status"]) == (2009, 403)
        assert all(name in refused["error"]["message"] for name in ("step 1", "'guest'", "anthropic"))
        assert provider.requests == []
        assert (await client.call({"eventId": 2, **step()}))[-1]["metadata"]["success"] is True


async def test_a_token_without_scopes_may_call_any_provider(tmp_path: Path) -> None:
    async with connected_with(tmp_path, answers()) as (client, _):
        anthropic = {**step(), "provider": "anthropic", "endpoint": "v1/messages"}
        assert (await client.call({"eventId": 1, **anthropic}))[-1]["metadata"]["success"] is True


# bridge token


def test_bridge_token_prints_a_token_and_its_configuration_line(tmp_path: Path) -> None:
    made = run("token")
    token, line = made.stdout.split()
    assert (made.returncode, token[:4], len(token)) == (0, "ubt_", 47)
    assert line == line_for(token)
    assert "[gateways.NAME.tokens]" in made.stderr
    assert run("token").stdout.split()[0] != token
    config_of(f'[gateways.prod.tokens]\nci = "{line}"', tmp_path)


def test_a_token_in_a_text_is_redacted() -> None:
    token = run("token").stdout.split()[0]
    assert redact_text(f"they sent {token} along") == "they sent ubt_[redacted] along"


def test_bridge_token_refuses_to_hash_an_empty_line() -> None:
    refused = run("token", "--hash", stdin="\n")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no token" in refused.stderr
