"""`bridge check`: describes a configuration, or reports every error in it."""

import os
from pathlib import Path

import typer

from bridge.config import ConfigError, load
from bridge.config.describe import describe
from bridge.server.tls import server_context


def check(path: Path | None) -> int:
    """Check a configuration and return the exit code."""
    try:
        config = load(path, os.environ, {})
        server_context(config.server)
    except ConfigError as error:
        return refuse(error, path)
    for line in describe(config):
        typer.echo(line)
    return 0


def refuse(error: ConfigError, path: Path | None) -> int:
    """Print every problem to stderr as `file:line: key: message` and return the exit code."""
    for problem in error.problems:
        typer.echo(problem.render(str(path) if path else None), err=True)
    return 2
