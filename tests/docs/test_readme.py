"""Everything in the README is run, or checked against the tables that the code itself uses."""

import ast
import asyncio
import os
import re
import sys
import tomllib
from collections.abc import Iterator

import orjson
import pytest

from bridge.config import GATEWAY, PROVIDER, load
from bridge.errors import all_errors
from bridge.providers import ALIASES, REGISTRY
from bridge.settings.server import SERVER
from bridge.settings.step import SETTINGS
from bridge.tapes.transport import TapeTransport
from tests.support.harness import config_of, running
from tests.support.paths import README as README_FILE
from tests.support.paths import ROOT

README = README_FILE.read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def rows_of_settings() -> Iterator[str]:
    for row in SETTINGS:
        header = f"`{row.header}`" if row.header else ""
        gateway = f"`{row.name}`" if row.of_gateway else ""
        default = "" if row.default in (None, "") else f"`{str(row.default).lower()}`"
        yield f"| `{row.wire}` | {gateway} | {header} | {default} | {row.help} |"


def rows_of_server() -> Iterator[str]:
    for row in SERVER:
        default = "" if row.default is None else f"`{str(row.default).lower()}`"
        yield f"| `{row.name}` | {default} | {row.help} |"


def rows_of_errors() -> Iterator[str]:
    for error in all_errors():
        assert error.__doc__
        yield f"| {error.code} | {error.status} | {' '.join(error.__doc__.split())} |"


def rows_of_providers() -> Iterator[str]:
    for provider in REGISTRY.values():
        yield f"| `{provider.slug}` | `{provider.base_url}` |"


@pytest.mark.parametrize(
    "rows", [rows_of_settings, rows_of_server, rows_of_errors, rows_of_providers], ids=lambda rows: rows.__name__
)
def test_the_tables_are_those_of_the_code(rows):
    """A setting, an error code or a provider that the README does not tell of, or tells wrongly, fails here."""
    table = "\n".join(rows())
    assert f"\n{table}\n\n" in README, f"README.md should hold exactly:\n{table}"


def test_every_key_of_the_configuration_is_told():
    for key in (*GATEWAY, *PROVIDER, "tokens"):
        assert f"`{key}`" in README, key


def test_every_alias_of_a_provider_is_told():
    for alias, slug in ALIASES.items():
        assert f"`{alias}`" in README
        assert f"`{slug}`" in README


@pytest.mark.parametrize("block", blocks("toml"))
def test_the_configurations_load(block, tmp_path):
    path = tmp_path / "bridge.toml"
    path.write_text(block)
    for secret in re.findall(r'"file:([^"]+)"', block):
        (tmp_path / secret).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / secret).write_text("a secret")
    config = load(path, dict.fromkeys(re.findall(r'"env:(\w+)"', block), "a secret"), {})
    assert tomllib.loads(block).keys() <= {"server", "gateways", "providers"}
    assert config.server.port == 8787


@pytest.mark.parametrize("block", blocks("json"))
def test_the_messages_are_json(block):
    assert isinstance(orjson.loads(block), dict)


async def test_the_python_example_prints_the_answer(tmp_path):
    """Run as printed, in a process of its own, against providers played from tape."""
    example, *_ = blocks("python")  # the others have tests of their own, beside what they show
    script = tmp_path / "example.py"
    script.write_text(example)
    tapes = TapeTransport(ROOT / "bridge" / "demo" / "tapes", pace="instant")
    async with running(config_of("", tmp_path), tapes) as server:
        environment = {**os.environ, "BRIDGE_URL": f"{server.url}/v1/me/default"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(script), env=environment, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
    assert process.returncode == 0
    text, _, metadata = printed.decode().rpartition("\n {")
    assert "bridge" in text
    assert "'success': True" in metadata


def test_the_commands_are_those_of_the_command_line():
    from bridge.cli import app

    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    commands |= {group.name for group in app.registered_groups if group.name}
    assert commands == set(re.findall(r"^\| `bridge (\w+)", README, re.MULTILINE))


def test_the_two_commands_are_what_ci_runs():
    ci = (ROOT / ".ci" / "run").read_text()
    assert ".venv/bin/pip install '.[test]' && .venv/bin/pytest" in README
    assert "pip install '.[test]'" in ci.replace('"', "'")


def test_the_transports_take_what_is_shown():
    from bridge.transports.base import Options

    known = {"url", "token"} | Options.__annotations__.keys()
    calls = [node for block in blocks("python") for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    shown = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id.endswith("BridgeTransport")]
    assert len(shown) >= 8
    assert {keyword.arg for call in shown for keyword in call.keywords} <= known
