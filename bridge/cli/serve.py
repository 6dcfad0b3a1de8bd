"""`bridge serve`: reads the configuration and serves with one or several processes."""

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import typer

from bridge.cli.check import refuse
from bridge.cli.replay import Tapes
from bridge.cli.startup import CannotServe
from bridge.config import ConfigError, load
from bridge.logs import format as loglines
from bridge.process.worker import this_worker


def serve(path: Path | None, flags: Mapping[str, object], tapes: Tapes) -> int:
    """Serve until a signal and return the exit code; return at once if it cannot start."""
    try:
        config = load(path, os.environ, flags)
        loglines.setup(sys.stderr, config.server.log_format, config.server.log_level)
        worker = this_worker(os.environ)
        if worker is None and config.server.workers > 1:
            from bridge.cli.serve_workers import serve_by_workers

            return serve_by_workers(config, tapes.replay)
        # Imported late: a supervisor does not need it, and it is most of the imports.
        from bridge.cli.serve_process import run

        run(config, partial(load, path, os.environ, flags), tapes, worker)
    except ConfigError as error:
        return refuse(error, path)
    except CannotServe as error:
        typer.echo(f"bridge: {error}", err=True)
        return 1
    return 0
