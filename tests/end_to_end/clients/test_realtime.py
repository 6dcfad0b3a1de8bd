"""Run the examples of the page on realtime sessions as printed; the providers check what they receive."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.docs import pages
from bridge.server.server import Server
from tests.support.examples import all_blocks
from tests.support.harness import config_of, running

SNIPPETS = {
    heading: {language: code for language, code in all_blocks(text) if language != "toml"}
    for heading, _, text in (part.partition("\n") for part in pages.read("realtime").markdown.split("\n## ")[1:])
    if "```javascript" in text
}

ACCOUNT = "0123456789abcdef0123456789abcdef"
AUDIO = bytes(640)
LIVE = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"


@dataclass(frozen=True)
class Expected:
    slug: str
    base: str
    target: str
    header: str
    value: str
    """Value of the header; the key is the name of the variable that holds it."""
    member: str
    """Member that the snippet's message must have."""
    answer: bytes | str = '{"type":"hello"}'


EXPECTED = {
    "OpenAI": Expected(
        "openai", "/v1", "/v1/realtime?model=gpt-realtime", "authorization", "Bearer OPENAI_API_KEY", "response"
    ),
    "Google AI Studio": Expected(
        "google-ai-studio", "", LIVE, "x-goog-api-key", "GEMINI_API_KEY", "setup", b'{"setupComplete":{}}'
    ),
    "Cartesia": Expected(
        "cartesia", "", "/tts/websocket?cartesia_version=2024-06-10", "x-api-key", "CARTESIA_API_KEY", "transcript"
    ),
    "ElevenLabs": Expected(
        "elevenlabs", "", "/v1/convai/conversation?agent_id=AGENT", "xi-api-key", "ELEVENLABS_API_KEY", "text"
    ),
    "Fal AI": Expected("fal", "", "/fal-ai/fast-lcm-diffusion", "authorization", "Key FAL:KEY", "prompt"),
    "Deepgram on Workers AI": Expected(
        "workers-ai",
        "/accounts/{account_id}/ai",
        f"/accounts/{ACCOUNT}/ai/run/@cf/deepgram/aura-1",
        "authorization",
        "Bearer CLOUDFLARE_API_TOKEN",
        "text",
        AUDIO,
    ),
    "Deepgram": Expected(
        "deepgram", "", "/v1/speak?model=aura-2-thalia-en", "authorization", "Token DEEPGRAM_API_KEY", "text", AUDIO
    ),
}
KEYS = {name: name for name in re.findall(r"[A-Z]+_[A-Z_]+", str(EXPECTED))} | {"FAL_KEY": "FAL:KEY"}


@dataclass
class Provider:
    answer: bytes | str
    seen: list[tuple[str, dict[str, str], object]] = field(default_factory=list)
    closed: list[int | None] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        message = await socket.receive()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.raw_path, headers, orjson.loads(message.data)))
        await (socket.send_str if isinstance(self.answer, str) else socket.send_bytes)(self.answer)
        while (await socket.receive()).type is not aiohttp.WSMsgType.CLOSE:
            pass
        self.closed.append(socket.close_code)
        return socket


@asynccontextmanager
async def bridged(folder: Path, expected: Expected, provider: Provider) -> AsyncIterator[Server]:
    app = web.Application()
    app.router.add_get("/{path:.*}", provider.handle)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/") + expected.base
        async with running(config_of(f'[providers.{expected.slug}]\nbase_url = "{url}"\n', folder)) as bridge:
            yield bridge


async def printed(folder: Path, heading: str, language: str, *command: str) -> str:
    """Run a snippet and return its output; check the messages that the provider received."""
    expected = EXPECTED[heading]
    provider = Provider(expected.answer)
    async with bridged(folder, expected, provider) as server:
        code = SNIPPETS[heading][language].replace("ws://127.0.0.1:8787", server.url).replace("ACCOUNT", ACCOUNT)
        script = folder / ("snippet.mjs" if language == "javascript" else "snippet.py")
        script.write_text(code)
        process = await asyncio.create_subprocess_exec(
            *command, str(script), env={**os.environ, **KEYS}, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    assert process.returncode == 0
    [(target, headers, message)] = provider.seen
    assert (target, headers[expected.header]) == (expected.target, expected.value)
    assert isinstance(message, dict)
    assert expected.member in message
    assert provider.closed in ([1000], [1005])
    return output.decode()


def test_every_provider_has_a_snippet_in_each_language() -> None:
    assert {heading: set(snippets) for heading, snippets in SNIPPETS.items()} == {
        head: {"javascript", "python"} for head in EXPECTED
    }


@pytest.mark.parametrize("heading", EXPECTED)
async def test_the_python_snippet_completes_a_session_with_its_provider(tmp_path: Path, heading: str) -> None:
    answer = EXPECTED[heading].answer
    assert await printed(tmp_path, heading, "python", sys.executable) == f"{answer!s}\n"


@pytest.mark.needs("npm-ws")
@pytest.mark.parametrize("heading", EXPECTED)
async def test_the_javascript_snippet_completes_a_session_with_its_provider(tmp_path: Path, heading: str) -> None:
    answer = EXPECTED[heading].answer
    (tmp_path / "node_modules").symlink_to(os.environ["NODE_PATH"])  # import ignores NODE_PATH
    output = await printed(tmp_path, heading, "javascript", "node")
    assert output == (f"{answer}\n" if isinstance(answer, str) else f"{len(answer)}\n")
