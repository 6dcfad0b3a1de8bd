"""The command line: `bridge serve`, `check`, `token`, `call`, `demo`, `replay`, `tapes`, `logs`, `help`.

This module declares the arguments of the commands. Each command is implemented in its own module, which is imported
only when the command runs.
"""

import errno
import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from bridge import __version__
from bridge.cli.help import help_
from bridge.cli.logs.commands import app as logs_commands
from bridge.cli.replay import Exhaustion, Faults, IgnoreJson, IgnoreQuery, MatchHeader, Pace, Tapes, replay_options
from bridge.cli.replay import replay as replay_command
from bridge.cli.tapes.commands import app as tapes_commands

app: Final = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A WebSocket gateway to every AI provider.",
)

LOCAL: Final = "ws://127.0.0.1:8787/v1/local/default"


def main() -> None:
    """The console script."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before the start: discard the output
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open as long as the process lives
    try:
        app()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python fails again at exit
        sys.exit("bridge: cannot write the output: no space left on device")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def bridge(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A WebSocket gateway to every AI provider."""


Configuration = Annotated[
    Path | None, typer.Option("--config", envvar="BRIDGE_CONFIG", metavar="FILE", help="The configuration (TOML).")
]


@app.command("serve")
def serve_command(
    config: Configuration = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 0 for any free one.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate chain (PEM), for wss://.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key (PEM).")] = None,
    allow_open: Annotated[
        bool | None,
        typer.Option("--allow-open", help="Allow gateways without tokens on addresses other than loopback."),
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Number of worker processes.")] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Record a tape of every exchange with a provider in this folder.")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Answer from the tapes in this folder instead of calling providers."),
    ] = None,
    pace: Pace = 1.0,
    ignore_query: IgnoreQuery = None,
    ignore_json: IgnoreJson = None,
    match_header: MatchHeader = None,
    exhausted: Exhaustion = "repeat",
    fault: Faults = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain the events in flight. A second signal stops at once."""
    gc.disable()  # until it serves: imported objects stay, and scanning them takes a tenth of the startup
    from bridge.cli.serve import serve

    flags = {
        "host": host,
        "port": port,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "allow_open": allow_open,
        "workers": workers,
    }
    if replay is None and any((pace != 1.0, ignore_query, ignore_json, match_header, exhausted != "repeat", fault)):
        raise typer.BadParameter("these options need --replay DIR")
    how = replay_options(pace, ignore_query, ignore_json, match_header, exhausted, fault)
    raise typer.Exit(serve(config, flags, Tapes(record, replay, how)))


@app.command("check")
def check_command(config: Configuration = None) -> None:
    """Describe a configuration, or report its errors by key and line."""
    from bridge.cli.check import check

    raise typer.Exit(check(config))


@app.command("token")
def token_command(
    hash_: Annotated[
        bool, typer.Option("--hash", help="Read the token from stdin and print only its sha256: line.")
    ] = False,
) -> None:
    """Create a token for a gateway and its sha256: line for the configuration."""
    from bridge.cli.token import hash_input, make

    raise typer.Exit(hash_input() if hash_ else make())


@app.command("call")
def call_command(
    provider: Annotated[
        str, typer.Argument(metavar="PROVIDER", help="Slug of the provider, such as openai, anthropic or custom-NAME.")
    ],
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Path below the provider's base URL.")],
    data: Annotated[
        str | None, typer.Option("--data", metavar="JSON|@FILE|-", help="The body: JSON, a JSON file, or - for stdin.")
    ] = None,
    url: Annotated[str, typer.Option(envvar="BRIDGE_URL", help="The gateway.")] = LOCAL,
    token: Annotated[
        str | None, typer.Option(envvar="BRIDGE_TOKEN", help="The gateway's token; prefer the environment variable.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:VALUE", help="Header for the provider, not for fallbacks. Repeatable."),
    ] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'PROVIDER ENDPOINT JSON|@FILE'",
            help="Next step of the chain, or a complete step as JSON, which may have headers. Repeatable.",
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help="HTTP method; the default is POST.")] = None,
    config: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help='Settings for every step, such as {"maxAttempts": 3}.')
    ] = None,
    frames: Annotated[bool, typer.Option("--frames", help="Print every frame as received, one per line.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0.001, metavar="SECONDS", help="Cancel after this time.")] = None,
) -> None:
    """Send one event and print its text as it streams, or its JSON if it has no text.

    Exit code: 0 success, 1 the event failed, 2 wrong usage, 3 no connection, 130 interrupted (the event is cancelled).
    """
    from bridge.cli import call as provider_call

    step = provider_call.step(provider, endpoint, data, header or [], method)
    request = provider_call.request(step, [provider_call.fallback(each) for each in fallback or []], config)
    raise typer.Exit(provider_call.call(request, url, token, frames=frames, timeout_s=timeout))


@app.command("demo")
def demo_command(
    stay: Annotated[bool, typer.Option("--stay", help="Keep serving afterwards and print how to connect.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 for any free one.")] = 0,
    pace: Pace = 1.0,
) -> None:
    """Show the bridge at work without keys or network: the providers are played from tapes."""
    from bridge.demo import stage

    raise typer.Exit(stage.demo(stay=stay, port=port, pace=pace))


app.command()(replay_command)
app.command("help")(help_)
app.add_typer(tapes_commands, name="tapes")
app.add_typer(logs_commands, name="logs")
