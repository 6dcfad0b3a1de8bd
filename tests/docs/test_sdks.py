"""Run the examples of the page on SDKs as printed, each in a process of its own."""

import ast
import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from bridge.docs import pages
from bridge.transports.base import Options
from tests.support.examples import blocks
from tests.support.harness import config_of, running
from tests.transports.aimock import HELLO, serving
from tests.transports.sdks import SDKS

URL = "ws://127.0.0.1:8787/v1/me/default"
KEYS = ("OPENAI", "ANTHROPIC", "GEMINI", "MISTRAL", "CO", "GROQ")

PROGRAMS = blocks("sdks", "python")
PACKAGES = {sdk.package: sdk.package.replace("-", ".") for sdk in SDKS}
"""Names on the registry, and in an import."""


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """Yield the URL of a provider server from another project."""
    with serving() as url:
        yield url


@pytest.mark.parametrize(
    ("package", "module"),
    [pytest.param(name, module, marks=pytest.mark.needs(f"pip-{name}"), id=name) for name, module in PACKAGES.items()],
)
@pytest.mark.needs("npm-aimock")
async def test_every_sdk_answers_in_five_lines(package: str, module: str, provider: str, tmp_path: Path) -> None:
    [program] = [program for program in PROGRAMS if re.search(rf"\b(import|from)\b.*\b{re.escape(module)}\b", program)]
    assert len(program.replace("\n\n", "\n").splitlines()) == 5
    places = {sdk.slug: provider + sdk.base for sdk in SDKS}
    config = config_of("".join(f'[providers.{slug}]\nbase_url = "{url}"\n' for slug, url in places.items()), tmp_path)
    async with running(config) as server:
        environment = {**os.environ, **{f"{name}_API_KEY": "key" for name in KEYS}}
        text = program.replace(URL, f"{server.url}/v1/me/default")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", text, env=environment, stdout=PIPE, stderr=PIPE
        )
        assert await process.communicate() == (f"{HELLO}\n".encode(), b"")


def test_the_transports_take_the_options_that_are_shown() -> None:
    known = {"url", "token"} | Options.__annotations__.keys()
    calls = [node for block in PROGRAMS for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    shown = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id.endswith("BridgeTransport")]
    assert len(shown) >= 8
    assert {keyword.arg for call in shown for keyword in call.keywords} <= known
    assert [name for name in known if f"| `{name}` |" not in pages.read("sdks").markdown] == []
