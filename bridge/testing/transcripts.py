"""Transcripts: what was said on a socket, one JSON line per message; and golden ones, which a test holds it against.

A line is {"client": message} or {"bridge": frame}, in the order of the conversation.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

Json = dict[str, Any]
Line = Json

VOLATILE: Final[Mapping[str, object]] = {"logId": "…", "durationMs": 0}
"""What differs from run to run in an event's metadata and in its attempts, and what stands in its place."""

_SHOWN_LINES: Final = 200
"""Of a difference. What comes behind so many is seldom news."""


class NoTranscript(AssertionError):
    """What was said is no transcript: no tape answered a request. The message says which, and what to do."""


class TranscriptDiffers(AssertionError):
    """What was said is not what the transcript has, or there is none. The message shows the difference."""


def steady(frame: Json) -> Json:
    """A copy without what differs from run to run."""
    if "metadata" not in frame:
        return frame
    metadata = _steady(frame["metadata"])
    if "attempts" in metadata:
        metadata["attempts"] = [_steady(attempt) for attempt in metadata["attempts"]]
    return frame | {"metadata": metadata}


def _steady(told: Json) -> Json:
    return {name: VOLATILE.get(name, value) for name, value in told.items()}


def read(path: Path) -> list[Line]:
    """Raises TranscriptDiffers for what is not JSON, such as the marks of a merge; OSError."""
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


def check(path: Path, said: Sequence[Line], *, update: bool) -> None:
    """Hold what was said against a transcript, or make it the transcript. Raises TranscriptDiffers.

    All that differs from run to run must be gone from it already (`steady`).
    """
    __tracebackhide__ = True  # the test's own line is what one wants to see
    if update:
        write(path, said)
        return
    if not path.exists():
        raise TranscriptDiffers(f"There is no transcript {path}. Write it with `pytest --bridge-update`, and read it.")
    written = read(path)
    if written != said:
        raise TranscriptDiffers(
            f"{path} has it otherwise (- the transcript, + what was said).\n"
            "If the new one is right, write it with `pytest --bridge-update`.\n\n" + _difference(written, said)
        )


def _difference(written: Sequence[Line], said: Sequence[Line]) -> str:
    """By the lines of indented JSON: a chunk of which one member differs is shown by that member."""
    lines = list(difflib.unified_diff(_shown(written), _shown(said), n=3, lineterm=""))[2:]
    more = [f"… and {len(lines) - _SHOWN_LINES} lines more"] if len(lines) > _SHOWN_LINES else []
    return "\n".join(lines[:_SHOWN_LINES] + more)


def _shown(lines: Sequence[Line]) -> list[str]:
    return [text for line in lines for text in _indented(line)]


def _indented(line: Line) -> Iterator[str]:
    yield from orjson.dumps(line, option=orjson.OPT_INDENT_2).decode().splitlines()
