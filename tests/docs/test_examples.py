"""Every example of the README and of the manual is valid: JSON, TOML, Python, shell commands.

Tests of single pages also run theirs.
"""

import ast
import configparser
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
import typer.main

from bridge.cli import app
from bridge.client.frames import Frame, Metadata
from bridge.config import load
from bridge.docs import pages
from bridge.errors import all_errors
from bridge.protocol.messages import Cancel, Create, MessageLimits, parse
from bridge.settings.step import StepSettings
from tests.support.examples import all_blocks
from tests.support.paths import README

DOCUMENTS = {"README": README.read_text(), **{topic: pages.read(topic).markdown for topic in pages.topics()}}
BLOCKS = [(name, *block) for name, text in DOCUMENTS.items() for block in all_blocks(text)]
CLIENT_MESSAGES = {"universal.create", "universal.cancel"}
FRAMES = {"universal.created", "universal.stream", "universal.done", "universal.error", "universal.heartbeat"}
METADATA = {field.encode_name for field in msgspec.structs.fields(Metadata)}
ERRORS = {error.code: error for error in all_errors()}


def of(*languages: str) -> pytest.MarkDecorator:
    found = [(topic, text) for topic, language, text in BLOCKS if language in languages]
    return pytest.mark.parametrize(("topic", "text"), found, ids=[f"{topic}-{i}" for i, (topic, _) in enumerate(found)])


@pytest.mark.parametrize("topic", DOCUMENTS)
def test_every_block_names_its_language(topic: str) -> None:
    markdown = DOCUMENTS[topic]
    assert len(re.findall("^```", markdown, re.MULTILINE)) == 2 * len(all_blocks(markdown))
    assert [text for language, text in all_blocks(markdown) if not language] == []


@of("json")
def test_json_is_a_message_a_frame_or_a_part_of_one(topic: str, text: str) -> None:
    value = orjson.loads(text)
    assert isinstance(value, dict)
    kind = value.get("type", "")
    if kind in CLIENT_MESSAGES:
        message = parse(text.encode(), StepSettings(), MessageLimits())
        assert isinstance(message, Create | Cancel)
        assert isinstance(message, Cancel) or message.warnings == []
    elif kind.startswith("universal."):
        assert kind in FRAMES
        Frame.of(text.encode())
        assert value.get("metadata", {}).keys() <= METADATA
    if isinstance(error := value.get("error"), dict) and error.get("code") in ERRORS and "source" in error:
        known = ERRORS[error["code"]]
        assert (error["source"], error["retryable"]) == (known.source, known.retryable)


@of("toml")
def test_configurations_load(topic: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text(text)
    for secret in re.findall(r'"file:([^"]+)"', text):
        (tmp_path / secret).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / secret).write_text("a secret")
    load(path, dict.fromkeys(re.findall(r'"env:(\w+)"', text), "a secret"), {})


@of("python")
def test_python_can_be_compiled(topic: str, text: str) -> None:
    ast.parse(text)


@of("sh", "console")
def test_shell_commands_are_understood(topic: str, text: str) -> None:
    script = text
    if re.search(r"^\$ ", text, re.MULTILINE):
        script = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    subprocess.run(["sh", "-n", "-c", script], check=True, timeout=60)
    for words in bridge_commands(script):
        check_options(words)


@of("ini")
def test_service_files_start_a_command_that_exists(topic: str, text: str) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names of systemd are case-sensitive
    unit.read_string(text.replace("\\\n", ""))
    [start] = bridge_commands(unit["Service"]["ExecStart"] + "\n")
    assert start[0] == "serve"
    check_options(start)


def bridge_commands(script: str) -> Iterator[list[str]]:
    """Yield the words of each command of a script that runs `bridge`."""
    script = re.sub(r"\\\n", " ", re.sub(r"\s#\s.*$", "", script, flags=re.MULTILINE))
    lexer = shlex.shlex(script, posix=True, punctuation_chars=";&|<>\n")
    lexer.whitespace, lexer.commenters = " \t", ""
    words: list[str] = []
    for word in [*lexer, "\n"]:
        if not set(word) <= set(";&|<>\n"):
            words.append(word)
            continue
        if words and words[0].rpartition("/")[2] == "bridge":
            yield words[1:]
        words = []


def check_options(words: list[str]) -> None:
    """Fail for a command or an option that `bridge` does not have."""
    command: Any = typer.main.get_command(app)
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    if words and not words[0].startswith("-"):
        assert not hasattr(command, "commands") or command.invoke_without_command, words
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if re.match(r"-\w|--\w", word)}
    assert used <= known | {"--help"}, words
