"""Run the examples of the page on the Python client as printed, each in a process of its own."""

import asyncio
import os
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from bridge.demo.stage import text_of_tape
from bridge.tapes.transport import TapeTransport
from tests.support.commands import TAPES
from tests.support.examples import blocks
from tests.support.harness import config_of, running

PROGRAMS = blocks("python-client", "python")


@pytest.mark.parametrize(
    ("marks", "tape", "step"),
    [
        (("import asyncio",), "stream-anthropic", "0"),
        (("bridge.client.sync", "fallback"), "chain-2-mistral", "1"),
    ],
)
async def test_the_examples_print_the_answer(marks: tuple[str, ...], tape: str, step: str, tmp_path: Path) -> None:
    [program] = [program for program in PROGRAMS if all(mark in program for mark in marks)]
    async with running(config_of("", tmp_path), TapeTransport(TAPES, pace="instant")) as server:
        environment = {**os.environ, "BRIDGE_URL": f"{server.url}/v1/me/default"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, env=environment, stdout=PIPE, stderr=PIPE
        )
        output, errors = await process.communicate()
    assert errors == b""
    text, _, rest = output.decode().partition("Usage(")
    assert text.strip() == text_of_tape(TAPES / f"{tape}.jsonl").strip()
    assert rest.rstrip().endswith(f") {step}")
