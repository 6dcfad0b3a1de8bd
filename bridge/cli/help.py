"""`bridge help`: list the pages of the manual, or print one."""

import sys
from typing import Annotated, Final

import typer

from bridge.docs import pages
from bridge.nearest import nearest

_MAX_WIDTH: Final = 120
"""Columns of a rendered page: longer lines are hard to read on a wide terminal."""

Topic = Annotated[str | None, typer.Argument(metavar="TOPIC", help="The page to print. Without it, list all pages.")]
Raw = Annotated[bool, typer.Option("--raw", help="Print the page as Markdown, also on a terminal.")]


def help_(topic: Topic = None, raw: Raw = False) -> None:
    """Print a page of the manual. On a terminal it is rendered; in a pipe it is plain Markdown text."""
    if topic is None:
        _list()
    elif raw:
        typer.echo(_page(topic).markdown, nl=False)
    elif is_terminal():
        _render(_page(topic).text)
    else:
        typer.echo(_page(topic).text, nl=False)


def is_terminal() -> bool:
    """Return true if standard output is a terminal."""
    return sys.stdout.isatty()


def _list() -> None:
    found = [pages.read(topic) for topic in pages.topics()]
    width = max(len(page.topic) for page in found)
    for page in found:
        typer.echo(f"{page.topic:<{width}}  {page.summary}")
    typer.echo("\n`bridge help TOPIC` prints a page, `bridge help TOPIC --raw` prints it as Markdown.")


def _page(topic: str) -> pages.Page:
    try:
        return pages.read(topic.lower().removesuffix(".md"))
    except KeyError:
        similar = nearest(topic, pages.topics())
        hint = f"did you mean {similar!r}?" if similar else "`bridge help` lists the topics"
        raise typer.BadParameter(f"there is no topic {topic!r}; {hint}", param_hint="TOPIC") from None


def _render(markdown: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    console.print(Markdown(markdown, hyperlinks=False), width=min(console.width, _MAX_WIDTH))
