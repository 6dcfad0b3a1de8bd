"""The README's examples are run, or are those of a page whose tests run them; its links and figures are true."""

import asyncio
import hashlib
import json
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from aiohttp import web

from bridge.config import load
from bridge.docs import pages
from bridge.providers import REGISTRY
from bridge.tapes.transport import TapeTransport
from tests.end_to_end.clients.chromium import open_page
from tests.support import examples
from tests.support.commands import TAPES
from tests.support.event_harness import COMPLETE
from tests.support.harness import config_of, running
from tests.support.paths import README as README_FILE
from tests.support.paths import ROOT
from tests.support.provider_script import ScriptedProvider, streams

README = README_FILE.read_text()
BROWSER_URL = "ws://127.0.0.1:8787/v1/me/my-gateway"


def blocks(language: str) -> list[str]:
    return [text for found, text in examples.all_blocks(README) if found == language]


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 300


def test_its_two_commands_are_those_of_ci() -> None:
    ci = (ROOT / ".ci" / "run").read_text().replace('"', "'")
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/bridge demo\n" in README
    assert ".venv/bin/pip install '.[test]' && .venv/bin/pytest\n" in README
    assert "pip install '.[test]'" in ci


@pytest.mark.parametrize(
    "text", [README, *(pages.read(topic).markdown for topic in pages.topics())], ids=["README", *pages.topics()]
)
def test_no_command_installs_the_package_from_an_index(text: str) -> None:
    assert re.findall(r"pip install '?universal-bridge", text) == []


def test_every_link_leads_to_a_file_and_every_page_is_linked() -> None:
    links = set(re.findall(r"\]\(([^)]+)\)", README))
    assert {link for link in links if not (ROOT / link).exists()} == set()
    assert {f"bridge/docs/{topic}.md" for topic in pages.topics()} <= links


def test_the_number_of_providers_is_that_of_the_registry() -> None:
    assert f"{len(REGISTRY)} built-in providers" in README


def test_its_configuration_loads(tmp_path: Path) -> None:
    [text] = blocks("toml")
    path = tmp_path / "bridge.toml"
    path.write_text(text)
    assert load(path, {"OPENAI_API_KEY": "a secret"}, {}).gateway("my-gateway") is not None


def test_its_examples_of_http_are_those_of_the_page() -> None:
    """`test_http.py` runs them."""
    [sdk] = [text for text in blocks("python") if "openai" in text]
    [chain] = [text for text in blocks("sh") if text.startswith("curl")]
    for example in (sdk, chain):
        assert example in pages.read("http").markdown


@pytest.mark.parametrize(
    ("programs", "library", "end"),
    [
        (blocks("python"), "bridge.client", "Usage("),
        (examples.blocks("protocol", "python"), "websockets", "{'eventId'"),
    ],
    ids=["README", "protocol"],
)
async def test_the_python_example_prints_the_answer(
    programs: list[str], library: str, end: str, tmp_path: Path
) -> None:
    [program] = [text for text in programs if library in text]
    async with running(config_of("", tmp_path), TapeTransport(TAPES, pace="instant")) as server:
        environment = {**os.environ, "BRIDGE_URL": f"{server.url}/v1/me/default"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, env=environment, stdout=PIPE, stderr=PIPE
        )
        printed, complaints = await process.communicate()
    assert complaints == b""
    text, _, last = printed.decode().rpartition("\n ")
    assert "bridge" in text
    assert last.startswith(end)
    assert "'success': False" not in last


@pytest.mark.needs("chromium")
async def test_the_browser_example_prints_the_answer(tmp_path: Path) -> None:
    """Run in a page whose console is read."""
    [script] = blocks("javascript")
    assert BROWSER_URL in script
    (tmp_path / "key").write_text("stored-key")
    gateway = f"""
        [gateways.my-gateway.tokens]
        page = "sha256:{hashlib.sha256(b"TOKEN").hexdigest()}"
        [gateways.my-gateway.keys.openai]
        default = "file:key"
    """
    provider = ScriptedProvider(streams(*COMPLETE))
    async with running(config_of(gateway, tmp_path), provider) as server:
        script = script.replace(BROWSER_URL, f"{server.url}/v1/me/my-gateway")
        assert "Hello" in await console(script, tmp_path / "profile")
    assert provider.requests[0].headers["authorization"] == "Bearer stored-key"


async def console(script: str, profile: Path) -> list[str]:
    """Return what a script writes to the console until its socket closes."""
    lines: list[str] = []
    closed = asyncio.Event()

    async def page(_: web.Request) -> web.Response:
        post = """
            let posted = Promise.resolve();
            const post = (path, body) => (posted = posted.then(() => fetch(path, { method: "POST", body })));
            console.log = (text) => post("/line", JSON.stringify(text));
        """
        end = 'socket.onclose = () => post("/closed");'
        return web.Response(text=f"<script>{post}\n{script}\n{end}</script>", content_type="text/html")

    async def line(request: web.Request) -> web.Response:
        lines.append(json.loads(await request.text()))
        return web.Response()

    async def close(_: web.Request) -> web.Response:
        closed.set()
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/", page), web.post("/line", line), web.post("/closed", close)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        async with asyncio.timeout(90), open_page(f"http://127.0.0.1:{port}/", profile):
            await closed.wait()
    finally:
        await runner.cleanup()
    return lines
