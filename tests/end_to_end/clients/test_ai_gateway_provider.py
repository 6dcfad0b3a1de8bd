"""Cloudflare's npm client `ai-gateway-provider` with a redirected base URL, `ai` and two packages of `@ai-sdk`."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import config_of, running
from tests.transports.aimock import HELLO, serving

pytestmark = [pytest.mark.needs("npm-aimock"), pytest.mark.needs("npm-ai-gateway-provider")]

SCRIPT = Path(__file__).parent / "ai_gateway.mjs"
TOKEN = "a-token-of-the-gateway"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with serving() as url:
        yield url


async def run_asks(provider: str, folder: Path, *asks: dict[str, Any], broken: str = "") -> list[dict[str, Any]]:
    """Return the result of each request; `broken` is the slug of an unreachable provider."""
    urls = {"openai": f"{provider}/v1", "anthropic": provider, **({broken: "http://127.0.0.1:9"} if broken else {})}
    config = f"""
[gateways.gateway.tokens]
ci = "sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
""" + "".join(f'[providers.{slug}]\nbase_url = "{url}"\n' for slug, url in urls.items())
    async with running(config_of(config, folder)) as server:
        arguments = {"url": server.url.replace("ws", "http", 1), "token": TOKEN, "asks": asks}
        node = await asyncio.create_subprocess_exec(
            "node", str(SCRIPT), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(60):
            output, _ = await node.communicate(json.dumps(arguments).encode())
    assert node.returncode == 0
    answers: list[dict[str, Any]] = json.loads(output)
    return answers


def ask(*models: str, how: str = "generate", prompt: str = "hello", **more: object) -> dict[str, Any]:
    return {"models": models, "how": how, "prompt": prompt, **more}


async def test_every_model_answers_and_streams(provider: str, tmp_path: Path) -> None:
    names = ("openai", "responses", "anthropic", "unified")
    answers = await run_asks(
        provider, tmp_path, *(ask(name, how=how) for name in names for how in ("generate", "stream"))
    )
    assert [answer.get("text") for answer in answers] == [HELLO] * 8, answers
    assert all(answer["pieces"] > 3 for answer in answers[1::2])
    assert {answer["headers"]["cf-aig-step"] for answer in answers} == {"0"}


@pytest.mark.parametrize("how", ["generate", "stream"])
async def test_a_fallback_reports_the_step_that_answered(provider: str, tmp_path: Path, how: str) -> None:
    [answer] = await run_asks(provider, tmp_path, ask("anthropic", "openai", how=how), broken="anthropic")
    assert answer["text"] == HELLO
    assert answer["headers"]["cf-aig-step"] == "1"


async def test_options_of_the_client_become_settings_of_the_event(provider: str, tmp_path: Path) -> None:
    options = {"eventId": "mine", "cacheTtl": 60, "metadata": {"user": 7}, "retries": {"maxAttempts": 2}}
    [answer] = await run_asks(provider, tmp_path, ask("openai", options=options))
    assert (answer["text"], answer["headers"]["cf-aig-event-id"]) == (HELLO, "mine")


async def test_the_client_recognises_errors_of_the_bridge_and_of_providers(provider: str, tmp_path: Path) -> None:
    unauthorised, unknown, wrong = await run_asks(
        provider,
        tmp_path,
        ask("openai", key="wrong"),
        ask("openai", gateway="nobody"),
        ask("openai", prompt="wrong"),
    )
    assert "authentication" in unauthorised["message"]
    assert unknown["message"] == "This AI gateway does not exist"
    assert (wrong["status"], wrong["message"]) == (400, "No such model")
