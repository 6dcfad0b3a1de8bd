"""The page `cli` describes every command and every option."""

import re
from collections.abc import Iterator

import pytest
import typer.main

from bridge.cli import app
from bridge.docs import pages

PAGE = pages.read("cli").text
SECTIONS = dict(re.findall(r"^## `bridge (\w+)[^\n]*\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
"""The text below each command's heading."""


def options(command: object) -> Iterator[str]:
    """The long options of a command and of the commands below it."""
    for child in getattr(command, "commands", {}).values():
        yield from options(child)
    for parameter in getattr(command, "params", ()):
        yield from (name for name in parameter.opts if name.startswith("--") and name != "--help")


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group


def test_every_command_has_a_section_and_a_row() -> None:
    assert SECTIONS.keys() == COMMANDS.keys()
    assert set(re.findall(r"^\| `bridge (\w+)", PAGE, re.MULTILINE)) == COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_in_its_section(command: str) -> None:
    missing = [
        option for option in options(COMMANDS[command]) if not re.search(rf"{option}(?![\w-])", SECTIONS[command])
    ]
    assert not missing
