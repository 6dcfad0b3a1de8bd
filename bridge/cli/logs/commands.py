"""Declares the arguments of `bridge logs`. The implementations are imported when a command runs."""

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

app: Final = typer.Typer(rich_markup_mode=None, invoke_without_command=True, help="Read the request log.")

Configuration = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="BRIDGE_CONFIG", metavar="FILE", help="The configuration with the path of the log."
    ),
]
LogPath = Annotated[Path | None, typer.Option("--path", metavar="FILE", help="Path of the log.")]
GatewayName = Annotated[str | None, typer.Option("--gateway", metavar="NAME", help="Only of this gateway.")]
Slug = Annotated[str | None, typer.Option("--provider", metavar="SLUG", help="Only of this provider.")]
Model = Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Only of this model.")]
Status = Annotated[str | None, typer.Option("--status", metavar="429|4xx", help="Only with this status.")]
Success = Annotated[
    bool | None, typer.Option("--success/--failed", help="Only successful events, or only failed ones.")
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="2h|TIME", help="Only events since then: 30m, 2h, 7d, or ISO 8601.")
]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Only with this metadata. Repeatable.")
]
RowId = Annotated[str, typer.Argument(metavar="ID", help="The event's logId.", show_default=False)]


@app.callback()
def logs(
    context: typer.Context,
    config: Configuration = None,
    path: LogPath = None,
    gateway: GatewayName = None,
    provider: Slug = None,
    model: Model = None,
    status: Status = None,
    success: Success = None,
    since: Since = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option(min=0, max=100_000, help="Print at most this many, the newest.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Also print new events until interrupted.")] = False,
) -> None:
    """List events, the newest last."""
    if context.invoked_subcommand is not None:
        if options := [name for name in context.params if _is_on_command_line(context, name)]:
            raise typer.BadParameter(
                f"put --{options[0]} after the command: bridge logs {context.invoked_subcommand} …"
            )
        return
    from bridge.cli.logs import filters, table

    wanted = filters.filter_of(gateway, provider, model, status, success, since, metadata or [])
    raise typer.Exit(table.list_(filters.log_of(config, path), wanted, limit, follow=follow))


@app.command()
def show(row: RowId, config: Configuration = None, path: LogPath = None) -> None:
    """Print the complete record of one event, its bodies last."""
    from bridge.cli.logs import actions, filters

    raise typer.Exit(actions.show(filters.log_of(config, path), row))


@app.command()
def export(
    config: Configuration = None,
    path: LogPath = None,
    gateway: GatewayName = None,
    provider: Slug = None,
    model: Model = None,
    status: Status = None,
    success: Success = None,
    since: Since = None,
    metadata: Metadata = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Write at most this many, the oldest.")] = None,
    form: Annotated[
        Literal["jsonl", "csv"], typer.Option("--format", help="JSON Lines, or CSV with a header.")
    ] = "jsonl",
) -> None:
    """Write complete records of events to stdout, the oldest first."""
    from bridge.cli.logs import actions, filters

    wanted = filters.filter_of(gateway, provider, model, status, success, since, metadata or [])
    raise typer.Exit(actions.export(filters.log_of(config, path), wanted, limit, form))


@app.command()
def rate(
    row: RowId,
    config: Configuration = None,
    path: LogPath = None,
    score: Annotated[float | None, typer.Option(min=0, max=100, help="Score of the answer.")] = None,
    thumbs: Annotated[
        Literal["up", "down", "none"] | None, typer.Option(help="Feedback: 1, -1, or 0 for none.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="KEY=VALUE", help="Metadata to add to the event. Repeatable."),
    ] = None,
) -> None:
    """Rate the answer of an event."""
    from bridge.cli.logs import actions, filters

    added = filters.metadata_of(metadata or [])
    if score is None and thumbs is None and not added:
        raise typer.BadParameter("a rating needs --score, --thumbs or --metadata")
    raise typer.Exit(actions.rate(filters.log_of(config, path), row, score, thumbs, added))


def _is_on_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
