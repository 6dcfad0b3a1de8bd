"""The command line: `bridge serve`, `check`, `token`, `call`, `demo`, `replay`, `tapes`, `logs`, `help`.

What a command takes stands here. What it does stands in a module of its own, imported when it is asked for: none waits
for another's imports.
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
from bridge.cli.replay import Exhaustion, Faults, IgnoreJson, IgnoreQuery, MatchHeader, Pace, Tapes, terms
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
        if getattr(sys, name) is None:  # closed before we began: what is said goes nowhere
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open as long as the process lives
    try:
        app()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails once more, at its end
        sys.exit("bridge: the output cannot be written: no space is left where it goes")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def bridge(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which it is.")
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
        bool | None, typer.Option("--allow-open", help="Let a gateway without tokens be reached from other machines.")
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="How many processes serve.")] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leave a tape of every exchange with a provider in this folder.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Answer from the tapes of this folder, and from no provider.")
    ] = None,
    pace: Pace = 1.0,
    ignore_query: IgnoreQuery = None,
    ignore_json: IgnoreJson = None,
    match_header: MatchHeader = None,
    exhausted: Exhaustion = "repeat",
    fault: Faults = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then let the events in flight finish. A second signal ends at once."""
    gc.disable()  # until it serves: what importing makes stays, and looking it over costs a tenth of the start
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
        raise typer.BadParameter("tapes are meant: say which, with --replay DIR")
    how = terms(pace, ignore_query, ignore_json, match_header, exhausted, fault)
    raise typer.Exit(serve(config, flags, Tapes(record, replay, how)))


@app.command("check")
def check_command(config: Configuration = None) -> None:
    """Say what a configuration means, and what is wrong with it, by key and line."""
    from bridge.cli.check import check

    raise typer.Exit(check(config))


@app.command("token")
def token_command(
    hash_: Annotated[bool, typer.Option("--hash", help="Take the token from stdin, and print its line alone.")] = False,
) -> None:
    """Make a token for a gateway, and the sha256: line that stands for it in the configuration."""
    from bridge.cli.token import hash_given, make

    raise typer.Exit(hash_given() if hash_ else make())


@app.command("call")
def call_command(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="Such as openai, anthropic, custom-NAME.")],
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="The path below the provider's base URL.")],
    data: Annotated[
        str | None, typer.Option("--data", metavar="JSON|@FILE|-", help="The body: JSON, a file of it, or - for stdin.")
    ] = None,
    url: Annotated[str, typer.Option(envvar="BRIDGE_URL", help="The gateway.")] = LOCAL,
    token: Annotated[
        str | None, typer.Option(envvar="BRIDGE_TOKEN", help="The gateway's token; best by the environment.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="For the provider, not for fallbacks. Repeatable.")
    ] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'PROVIDER ENDPOINT JSON|@FILE'",
            help="What to try next; or, to give it headers, a whole step as JSON. Repeatable.",
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help="Other than POST.")] = None,
    config: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help='Settings, such as {"maxAttempts": 3}, for every step.')
    ] = None,
    frames: Annotated[bool, typer.Option("--frames", help="Print every frame as it came, one per line.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0.001, metavar="SECONDS", help="Then cancel.")] = None,
) -> None:
    """Run one event and print its text as it streams; or its JSON, when it holds no text.

    Exit code: 0 success, 1 the event failed, 2 wrong usage, 3 no connection, 130 interrupted (the event is cancelled).
    """
    from bridge.cli import call as provider_call

    step = provider_call.step(provider, endpoint, data, header or [], method)
    request = provider_call.request(step, [provider_call.fallback(each) for each in fallback or []], config)
    raise typer.Exit(provider_call.call(request, url, token, frames=frames, timeout_s=timeout))


@app.command("demo")
def demo_command(
    stay: Annotated[bool, typer.Option("--stay", help="Keep serving afterwards, and say how to connect.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 for any free one.")] = 0,
    pace: Pace = 1.0,
) -> None:
    """See the bridge work: no key, no network. Its providers are played from tape."""
    from bridge.demo import stage

    raise typer.Exit(stage.demo(stay=stay, port=port, pace=pace))


app.command()(replay_command)
app.command("help")(help_)
app.add_typer(tapes_commands, name="tapes")
app.add_typer(logs_commands, name="logs")
