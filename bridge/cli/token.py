"""`bridge token`: creates a token for a gateway and its line for the configuration."""

import secrets
import sys
from typing import Final

import typer

from bridge.config.gateways import digest_of

PREFIX: Final = "ubt_"
"""Prefix that identifies leaked tokens: `redact` masks them, and secret scanners find them."""
RANDOM_BYTES: Final = 32


def make() -> int:
    """Print a new token and its configuration line, and return the exit code."""
    token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    typer.echo(token)
    typer.echo(line_for(token))
    typer.echo("The first line is for the client; the second belongs under [gateways.NAME.tokens].", err=True)
    return 0


def hash_input() -> int:
    """Print the line of a token from stdin; on a terminal, prompt for it without echo."""
    line = typer.prompt("Token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    token = line.removeprefix("\ufeff").strip()  # byte order mark of Windows files
    if not token:
        typer.echo("bridge: no token on stdin", err=True)
        return 2
    typer.echo(line_for(token))
    return 0


def line_for(token: str) -> str:
    return f"sha256:{digest_of(token).hex()}"
