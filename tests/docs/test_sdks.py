"""What the README shows of SDKs is run as printed, in a process of its own."""

import asyncio
import os
import re
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.support.harness import config_of, running
from tests.support.paths import README as README_FILE
from tests.transports.aimock import HELLO
from tests.transports.sdks import SDKS

README = README_FILE.read_text()
URL = "ws://127.0.0.1:8787/v1/me/default"
KEYS = ("OPENAI", "ANTHROPIC", "GEMINI", "MISTRAL", "CO", "GROQ")

PROGRAMS = [
    program
    for program in re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    if "from bridge.transports" in program
]
PACKAGES = {sdk.package: sdk.package.replace("-", ".") for sdk in SDKS}
"""Names on the registry, and in an import."""


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
