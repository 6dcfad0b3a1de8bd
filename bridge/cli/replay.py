"""`bridge replay`: a provider made of tapes, until a signal ends it; and the options that any replay has.

Everything heavy is imported once it is wanted: the command line has other commands.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypedDict

import typer

from bridge.logs.terminal import one_line

if TYPE_CHECKING:
    from bridge.replay.server import ReplayServer
    from bridge.tapes.fault_injection import InjectedFault
    from bridge.tapes.library import Exhausted
    from bridge.tapes.matching import Matching

_PACES: Final = {"recorded": 1.0, "instant": 0.0}
_EXHAUSTED: "Final[dict[str, Exhausted]]" = {"repeat": "repeat", "miss": "miss"}


class ReplayOptions(TypedDict):
    """How tapes are played and matched: keyword arguments of Library and of TapeTransport."""

    pace: float
    matching: "Matching"
    exhausted: "Exhausted"
    faults: "list[InjectedFault]"


@dataclass(frozen=True, slots=True)
class Tapes:
    """The folders to record to and to replay from; with both, what is replayed is recorded."""

    record: Path | None
    replay: Path | None
    how: ReplayOptions
    """How to replay."""


def terms(
    pace: float,
    ignore_query: Sequence[str] | None,
    ignore_json: Sequence[str] | None,
    match_header: Sequence[str] | None,
    exhausted: str,
    fault: Sequence[str] | None,
) -> ReplayOptions:
    """Raises typer.BadParameter for what cannot be one of them."""
    from bridge.tapes.fault_injection import BadFault, parse_fault
    from bridge.tapes.json_path import BadPath
    from bridge.tapes.matching import Matching

    if exhausted not in _EXHAUSTED:
        raise typer.BadParameter(f"{exhausted!r} is not repeat or miss", param_hint="--exhausted")
    try:
        return ReplayOptions(
            pace=pace,
            matching=Matching(tuple(ignore_query or ()), tuple(ignore_json or ()), tuple(match_header or ())),
            exhausted=_EXHAUSTED[exhausted],
            faults=[parse_fault(each) for each in fault or ()],
        )
    except BadPath as error:
        raise typer.BadParameter(str(error), param_hint="--ignore-json") from None
    except BadFault as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from None


def _pace(text: str) -> float:
    try:
        factor = _PACES[text] if text in _PACES else float(text)
    except ValueError:
        factor = math.nan
    if not 0 <= factor < math.inf:
        raise typer.BadParameter(f"{text!r} is not recorded, instant or a number")
    return factor


Pace = Annotated[
    float,
    typer.Option(
        parser=_pace,
        show_default="recorded",
        metavar="recorded|instant|FACTOR",
        help="How long tapes take: as recorded, no time at all, or that many times what was recorded.",
    ),
]
IgnoreQuery = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A query parameter that may differ. Repeatable.")
]
IgnoreJson = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH", help="What in a JSON body may differ: $.metadata.user_id, $.a[*].id. Repeatable."),
]
MatchHeader = Annotated[list[str] | None, typer.Option(metavar="NAME", help="A header that must match. Repeatable.")]
Exhaustion = Annotated[
    str,
    typer.Option(
        metavar="repeat|miss", help="When all tapes of a request have played: the last one again, or no answer."
    ),
]
Faults = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FAULT",
        help="What goes wrong: reset@chunk:7, stall@chunk:3:20s, status:503:first:2, slow:10x. Repeatable.",
    ),
]


def replay(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of tapes, or one tape.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 for any free one.")] = 8788,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    pace: Pace = 1.0,
    ignore_query: IgnoreQuery = None,
    ignore_json: IgnoreJson = None,
    match_header: MatchHeader = None,
    exhausted: Exhaustion = "repeat",
    fault: Faults = None,
) -> None:
    """Be a provider that answers from tapes, on plain HTTP, until SIGTERM or SIGINT."""
    import asyncio

    from bridge.logs import format as loglines
    from bridge.replay.server import ReplayServer
    from bridge.tapes.file import TapeError
    from bridge.tapes.library import Library

    chosen = terms(pace, ignore_query, ignore_json, match_header, exhausted, fault)
    loglines.setup(sys.stderr, "auto", "info")
    try:
        library = Library(folder, **chosen)
    except TapeError as error:
        raise _told(str(error)) from None
    asyncio.run(_serve(ReplayServer(library, host=host, port=port), f"{host}:{port}"))


async def _serve(server: "ReplayServer", address: str) -> None:
    from bridge.net import describe_os_error
    from bridge.process.signals import shutdown_signal

    try:
        await server.start()
    except OSError as error:
        raise _told(f"cannot listen on {address}: {describe_os_error(error)}") from None
    stopped = shutdown_signal()
    typer.echo(f"ready {server.url}")
    await stopped
    await server.stop()


def _told(message: str) -> typer.Exit:
    typer.echo(f"bridge: {one_line(message)}", err=True)
    return typer.Exit(1)
