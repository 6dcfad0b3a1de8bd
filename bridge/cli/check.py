"""`bridge check`: what a configuration means, or every reason why it cannot be used."""

import os
from pathlib import Path

import typer

from bridge.config import ConfigError, load
from bridge.config.describe import describe
from bridge.server.tls import server_context


def check(path: Path | None) -> int:
    """The exit code."""
    try:
        config = load(path, os.environ, {})
        server_context(config.server)
    except ConfigError as error:
        return refuse(error, path)
    for line in describe(config):
        typer.echo(line)
    return 0


def refuse(error: ConfigError, path: Path | None) -> int:
    """Every problem on a line of stderr, as `file:line: key: message`; and the exit code for it."""
    for problem in error.problems:
        typer.echo(problem.render(str(path) if path else None), err=True)
    return 2
