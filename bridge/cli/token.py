"""`bridge token`: a token for a gateway, and the line that stands for it in the configuration."""

import secrets
import sys
from typing import Final

import typer

from bridge.config.gateways import digest_of

PREFIX: Final = "ubt_"
"""By which one that has strayed into a log or a repository is known: `redact` masks it, and scanners can."""
RANDOM_BYTES: Final = 32


def make() -> int:
    """A new token on the first line, its line for the configuration on the second. The exit code."""
    token = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    typer.echo(token)
    typer.echo(line_for(token))
    typer.echo("The first line is the client's; the second stands under [gateways.NAME.tokens].", err=True)
    return 0


def hash_given() -> int:
    """The line for a token that is asked for on a terminal, without showing it, and else read from stdin."""
    given = typer.prompt("Token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    token = given.removeprefix("\ufeff").strip()  # a byte order mark, of a file from Windows
    if not token:
        typer.echo("bridge: no token came on stdin", err=True)
        return 2
    typer.echo(line_for(token))
    return 0


def line_for(token: str) -> str:
    return f"sha256:{digest_of(token).hex()}"
