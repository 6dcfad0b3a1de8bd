"""Run the examples of the page on HTTP as printed."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from bridge.policy.token_filter import KEY_HEADERS
from bridge.server.http.writer import MAX_BUFFERED_BYTES
from tests.support.event_harness import COMPLETE
from tests.support.examples import blocks, text_of
from tests.support.harness import config_of, running
from tests.support.provider_script import ScriptedProvider, ScriptedResponse, answers, streams

CURL, CURL_CHAIN, *_ = blocks("http", "sh")
PYTHON, PYTHON_COMPAT = blocks("http", "python")

CHAT = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]}'


async def run_example(
    folder: Path, command: list[str], example: str, *plays: ScriptedResponse
) -> tuple[str, ScriptedProvider]:
    """Run an example against a bridge on a free port; return its output and the provider."""
    provider = ScriptedProvider(*plays)
    async with running(config_of("", folder), provider) as server:
        text = example.replace("http://127.0.0.1:8787", server.url.replace("ws", "http", 1))
        environment = {**os.environ, "OPENAI_API_KEY": "openai-key", "ANTHROPIC_API_KEY": "anthropic-key"}
        process = await asyncio.create_subprocess_exec(*command, text, env=environment, stdout=PIPE, stderr=PIPE)
        output, errors = await process.communicate()
    assert process.returncode == 0, errors
    return output.decode(), provider


@pytest.mark.needs("curl")
async def test_curl_gets_the_stream_of_the_provider(tmp_path: Path) -> None:
    output, provider = await run_example(tmp_path, ["sh", "-c"], CURL, streams(*COMPLETE))
    assert output.encode() == b"".join(COMPLETE)
    assert provider.requests[0].url == "https://api.openai.com/v1/chat/completions"
    assert provider.requests[0].headers["authorization"] == "Bearer openai-key"


@pytest.mark.needs("curl")
async def test_curl_falls_back(tmp_path: Path) -> None:
    overloaded = answers(b"{}", 529, retry_after="0")
    output, provider = await run_example(tmp_path, ["sh", "-c"], CURL_CHAIN, overloaded, overloaded, answers(CHAT))
    assert output.encode() == CHAT
    assert [received.headers.get("x-api-key") for received in provider.requests] == ["anthropic-key"] * 2 + [None]
    assert provider.requests[2].headers["authorization"] == "Bearer openai-key"


@pytest.mark.parametrize(
    ("example", "url", "model"),
    [
        (PYTHON, "https://api.openai.com/v1/chat/completions", b'"gpt-4o-mini"'),
        (PYTHON_COMPAT, "https://api.anthropic.com/v1/chat/completions", b'"claude-sonnet-4-5"'),
    ],
    ids=["provider", "compat"],
)
@pytest.mark.needs("pip-openai")
async def test_the_sdk_prints_the_answer(tmp_path: Path, example: str, url: str, model: bytes) -> None:
    output, provider = await run_example(tmp_path, [sys.executable, "-c"], example, answers(CHAT))
    assert output == "Hello\n"
    assert provider.requests[0].url == url
    assert model in provider.requests[0].content


def test_the_page_names_the_bound_and_the_headers_of_the_code() -> None:
    text = text_of("http").lower()
    assert [name for name in KEY_HEADERS if name.lower() not in text] == []
    assert f"longer than {MAX_BUFFERED_BYTES >> 20} mib is not buffered" in text
