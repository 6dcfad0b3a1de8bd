"""Reads, writes and compares transcripts: the messages of a socket, one JSON line each.

A line is {"client": message} or {"bridge": frame}, in the order of the messages.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

Json = dict[str, Any]
Line = Json

VOLATILE: Final[Mapping[str, object]] = {"logId": "…", "durationMs": 0}
"""Members of metadata and attempts that differ between runs, with their replacements."""

_SHOWN_LINES: Final = 200
"""Limit of the lines of a shown difference."""


class NoTranscript(AssertionError):
    """No tape answered a request, so there is no transcript. The message gives the request and advice."""


class TranscriptDiffers(AssertionError):
    """The messages differ from the transcript, or there is none. The message shows the difference."""


def without_volatile(frame: Json) -> Json:
    """Return a copy of the frame with the volatile members replaced."""
    if "metadata" not in frame:
        return frame
    metadata = _without_volatile(frame["metadata"])
    if "attempts" in metadata:
        metadata["attempts"] = [_without_volatile(attempt) for attempt in metadata["attempts"]]
    return frame | {"metadata": metadata}


def _without_volatile(members: Json) -> Json:
    return {name: VOLATILE.get(name, value) for name, value in members.items()}


def read(path: Path) -> list[Line]:
    """Read a transcript. Raises TranscriptDiffers for lines that are not JSON, such as merge markers; OSError."""
    lines: list[Line] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            lines.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise TranscriptDiffers(f"{path}:{number}: not JSON: {error}") from None
    return lines


def write(path: Path, lines: Sequence[Line]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))


def check(path: Path, actual: Sequence[Line], *, update: bool) -> None:
    """Compare messages with a transcript, or replace the transcript. Raises TranscriptDiffers.

    Volatile members must have been replaced before (`without_volatile`).
    """
    __tracebackhide__ = True  # show the line of the test
    if update:
        write(path, actual)
        return
    if not path.exists():
        raise TranscriptDiffers(
            f"There is no transcript {path}. Create it with `pytest --bridge-update` and review it."
        )
    written = read(path)
    if written != actual:
        raise TranscriptDiffers(
            f"{path} differs (- transcript, + this run).\n"
            "If this run is right, update the transcript with `pytest --bridge-update`.\n\n"
            + _difference(written, actual)
        )


def _difference(written: Sequence[Line], actual: Sequence[Line]) -> str:
    """Return the difference in lines of indented JSON, so that a single changed member is visible."""
    lines = list(difflib.unified_diff(_shown(written), _shown(actual), n=3, lineterm=""))[2:]
    more = [f"… and {len(lines) - _SHOWN_LINES} more lines"] if len(lines) > _SHOWN_LINES else []
    return "\n".join(lines[:_SHOWN_LINES] + more)


def _shown(lines: Sequence[Line]) -> list[str]:
    return [text for line in lines for text in _indented(line)]


def _indented(line: Line) -> Iterator[str]:
    yield from orjson.dumps(line, option=orjson.OPT_INDENT_2).decode().splitlines()
