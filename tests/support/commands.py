"""Run the command line in processes of its own, as a shell does."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from typer.testing import CliRunner

from bridge.cli import app
from tests.support.paths import ROOT

TAPES = ROOT / "bridge" / "demo" / "tapes"
BRIDGE = (sys.executable, "-m", "bridge")
TIMEOUT_S = 60


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without a bridge's variables, and with this tree's package on the path."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    return {**inherited, "PYTHONPATH": str(ROOT), **more}


def run(*args: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*BRIDGE, *args], input=stdin, capture_output=True, text=True, env=environment(**environ), timeout=TIMEOUT_S
    )


def run_here(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end within this process, which saves a start of Python."""
    without = {name: None for name in os.environ if name.startswith("BRIDGE_")}
    result = CliRunner().invoke(app, list(args), env={**without, **environ})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(args, result.exit_code, result.stdout, result.stderr)


@contextmanager
def started(*args: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command while the block runs, then kill it."""
    with subprocess.Popen(
        [*BRIDGE, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**environ)
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def url_in(ready: str) -> str:
    """Return the first URL of a ready line, with its placeholders filled in."""
    word, url, *_ = ready.split()
    assert word == "ready"
    return url.format(account="me", gateway="default")
