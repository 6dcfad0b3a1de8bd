"""The command line's `bridge tapes`: what its commands take. What they do is imported when one is asked for."""

from pathlib import Path
from typing import Annotated, Final

import typer

app: Final = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at tapes: recorded exchanges with providers."
)

Tapes = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of tapes, or one tape.")]


@app.command("list")
def list_(tapes: Tapes) -> None:
    """One line for each tape."""
    from bridge.cli.tapes import show

    raise typer.Exit(show.table(tapes))


@app.command()
def show(
    tape: Annotated[Path, typer.Argument(metavar="FILE", help="One tape.")],
    body: Annotated[bool, typer.Option("--body", help="Only the answer's body, joined, as it is.")] = False,
) -> None:
    """What was asked, what was answered, and every chunk with its milliseconds since the request."""
    from bridge.cli.tapes import show

    raise typer.Exit(show.body(tape) if body else show.show(tape))


@app.command()
def check(tapes: Tapes) -> None:
    """Look for faults of the format, for secrets, and for recordings that were cut. Exit code 1 when there are any."""
    from bridge.cli.tapes import show

    raise typer.Exit(show.check(tapes))


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="VCR cassettes (YAML, JSON), or HAR.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where the tapes go.")],
) -> None:
    """Make tapes of what other tools recorded. They are for trying, not for committing."""
    from bridge.cli.tapes import show

    raise typer.Exit(show.take_in(files, to))
