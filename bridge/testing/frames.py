"""What a bridge answers to a test's requests, held against the transcript that lies beside the test."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from bridge.client import Request, steps
from bridge.client.sync import SyncBridge, connect
from bridge.redact.text import redact_headers, redact_url
from bridge.testing.transcripts import Json, Line, NoTranscript, check, steady


class BridgeFrames:
    """Call it with requests, any number of times in a test; each call has a transcript of its own.

    For one test. `path` is the first transcript; the second has `-2` behind its name, and so on.
    """

    def __init__(self, url: str, path: Path, *, update: bool, missed: Sequence[str] = (), hint: str = "") -> None:
        """`missed` has the message of each request that no tape answered, as they come; `hint` says what to do then."""
        self._url = url
        self._missed = missed
        self._hint = hint
        self._path = path
        self._update = update
        self._calls = 0

    def __call__(self, *requests: Request) -> list[Json]:
        """Send each as an event on a new socket, one when the other is over; all their frames, as they came.

        Raises TranscriptDiffers, NoTranscript when an event failed because no tape answered it, TypeError for what JSON
        cannot hold, and CallFailed when the bridge cannot be spoken to; an event that fails otherwise is no exception,
        but has its frames.
        """
        __tracebackhide__ = True  # the test's own line is what one wants to see
        said = self._said(requests)
        self._calls += 1
        check(self._transcript(), [_comparable(line) for line in said], update=self._update)
        return [line["bridge"] for line in said if "bridge" in line]

    def _transcript(self) -> Path:
        return self._path if self._calls == 1 else self._path.with_stem(f"{self._path.stem}-{self._calls}")

    def _said(self, requests: tuple[Request, ...]) -> list[Line]:
        with connect(self._url, reconnect=False) as bridge:
            return [line for request in requests for line in self._checked(bridge, request)]

    def _checked(self, bridge: SyncBridge, request: Request) -> list[Line]:
        """A failed match must never become a transcript; a fallback after it may answer."""
        __tracebackhide__ = True
        before = len(self._missed)
        lines = list(_played(bridge, request))
        missed = self._missed[before:]
        if missed and "error" in lines[-1].get("bridge", {}):
            raise NoTranscript("\n\n".join([*missed, *([self._hint] if self._hint not in missed[-1] else [])]))
        return lines


def _played(bridge: SyncBridge, request: Request) -> Iterator[Line]:
    with bridge.create(request) as event:
        yield {"client": orjson.loads(steps.create(event.id, request))}
        for frame in event:
            yield {"bridge": orjson.loads(frame.raw)}


def _comparable(line: Line) -> Line:
    if "bridge" in line:
        return {"bridge": steady(line["bridge"])}
    message = line["client"]
    return {"client": message | {"request": without_secrets(message["request"])}}


def without_secrets(request: Any) -> Any:
    """A request as a file may hold it. A key is not the same on every machine, either."""
    match request:
        case list():
            return [without_secrets(step) for step in request]
        case dict():
            return {name: _MASKS[name](value) if name in _MASKS else value for name, value in request.items()}
        case _:
            return request


def _headers(headers: Any) -> Any:
    if not isinstance(headers, dict):
        return headers
    masked: Mapping[str, str] = dict(redact_headers((name, str(value)) for name, value in headers.items()))
    return masked


def _endpoint(endpoint: Any) -> Any:
    return redact_url(endpoint) if isinstance(endpoint, str) else endpoint


_MASKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "headers": _headers,
    "endpoint": _endpoint,
    "steps": without_secrets,
}
