"""Declares the arguments of `bridge tapes`. The implementations are imported when a command runs."""

from pathlib import Path
from typing import Annotated, Final

import typer

app: Final = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, show, check and import tapes: recorded exchanges with providers.",
)

Tapes = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of tapes, or one tape.")]


@app.command("list")
def list_(tapes: Tapes) -> None:
    """List tapes, one line each."""
    from bridge.cli.tapes import show

    raise typer.Exit(show.table(tapes))


@app.command()
def show(
    tape: Annotated[Path, typer.Argument(metavar="FILE", help="One tape.")],
    body: Annotated[bool, typer.Option("--body", help="Print only the body of the answer, unchanged.")] = False,
) -> None:
    """Print the request, the response, and every chunk with its milliseconds since the request."""
    from bridge.cli.tapes import show

    raise typer.Exit(show.body(tape) if body else show.show(tape))


@app.command()
def check(tapes: Tapes) -> None:
    """Check tapes for format errors, secrets and cut recordings. The exit code is 1 if there are any."""
    from bridge.cli.tapes import show

    raise typer.Exit(show.check(tapes))


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="VCR cassettes (YAML, JSON), or HAR archives.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the tapes.")],
) -> None:
    """Convert recordings of other tools to tapes. Review these before committing them."""
    from bridge.cli.tapes import show

    raise typer.Exit(show.import_files(files, to))
