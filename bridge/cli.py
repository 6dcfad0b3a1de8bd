"""The command line: `bridge serve`, `check`, `call`, `demo`."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Final

import typer

from bridge import loglines
from bridge.config import Config, ConfigError, load

app: Final = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="A WebSocket gateway to every AI provider."
)


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="The configuration file (TOML).")] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 0 for any free one.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM), to serve wss://.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    allow_open: Annotated[
        bool | None, typer.Option("--allow-open", help="Let an open gateway be reached from other machines.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Answer from the tapes of this folder instead of from providers.")
    ] = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then drain."""
    overrides = {"host": host, "port": port, "tls_cert": tls_cert, "tls_key": tls_key, "allow_open": allow_open}
    settings = _load(config, overrides)
    loglines.setup(sys.stderr, settings.server.log_format, settings.server.log_level)
    run(_serve(settings, replay))


async def _serve(config: Config, replay: Path | None) -> None:
    from bridge.server import Server
    from bridge.upstream.http import Upstream
    from bridge.upstream.transport import AiohttpTransport

    transport = AiohttpTransport()
    server = Server(config, Upstream(transport))
    await server.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    print(f"ready {server.url}", flush=True)  # noqa: T201
    gc.collect()
    gc.freeze()
    await stop.wait()
    await server.stop()


def run(main: Coroutine[object, object, None]) -> None:
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def _load(path, overrides):
    try:
        return load(path, os.environ, overrides)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        raise typer.Exit(2) from None


@app.command()
def check() -> None:
    pass


def main() -> None:
    app()
