"""`bridge replay`: serves tapes as a provider until a signal ends it. Also parses the options of all replays.

Large modules are imported on use, so that other commands do not import them.
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
    """Keyword arguments of Library and of TapeTransport."""

    pace: float
    matching: "Matching"
    exhausted: "Exhausted"
    faults: "list[InjectedFault]"


@dataclass(frozen=True, slots=True)
class Tapes:
    """Folders for recording and for replay. With both, the replayed exchanges are recorded."""

    record: Path | None
    replay: Path | None
    how: ReplayOptions
    """Options of the replay."""


def replay_options(
    pace: float,
    ignore_query: Sequence[str] | None,
    ignore_json: Sequence[str] | None,
    match_header: Sequence[str] | None,
    exhausted: str,
    fault: Sequence[str] | None,
) -> ReplayOptions:
    """Parse the options of a replay. Raises typer.BadParameter."""
    from bridge.tapes.fault_injection import InvalidFault, parse_fault
    from bridge.tapes.json_path import InvalidPath
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
    except InvalidPath as error:
        raise typer.BadParameter(str(error), param_hint="--ignore-json") from None
    except InvalidFault as error:
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
        help="Speed of tapes: as recorded, instant, or a factor of the recorded time.",
    ),
]
IgnoreQuery = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A query parameter that may differ. Repeatable.")
]
IgnoreJson = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH", help="A path in a JSON body that may differ: $.metadata.user_id, $.a[*].id. Repeatable."
    ),
]
MatchHeader = Annotated[list[str] | None, typer.Option(metavar="NAME", help="A header that must match. Repeatable.")]
Exhaustion = Annotated[
    str,
    typer.Option(
        metavar="repeat|miss", help="When all tapes of a request have played: repeat the last one, or report a miss."
    ),
]
Faults = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FAULT",
        help="A fault to inject: reset@chunk:7, stall@chunk:3:20s, status:503:first:2, slow:10x. Repeatable.",
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
    """Serve tapes as a provider over plain HTTP until SIGTERM or SIGINT."""
    import asyncio

    from bridge.logs import format as loglines
    from bridge.replay.server import ReplayServer
    from bridge.tapes.file import TapeError
    from bridge.tapes.library import Library

    chosen = replay_options(pace, ignore_query, ignore_json, match_header, exhausted, fault)
    loglines.setup(sys.stderr, "auto", "info")
    try:
        library = Library(folder, **chosen)
    except TapeError as error:
        raise _failure(str(error)) from None
    asyncio.run(_serve(ReplayServer(library, host=host, port=port), f"{host}:{port}"))


async def _serve(server: "ReplayServer", address: str) -> None:
    from bridge.net import describe_os_error
    from bridge.process.signals import shutdown_signal

    try:
        await server.start()
    except OSError as error:
        raise _failure(f"cannot listen on {address}: {describe_os_error(error)}") from None
    stopped = shutdown_signal()
    typer.echo(f"ready {server.url}")
    await stopped
    await server.stop()


def _failure(message: str) -> typer.Exit:
    typer.echo(f"bridge: {one_line(message)}", err=True)
    return typer.Exit(1)
