"""Compares the frames that answer a test's requests with the transcript beside the test."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from bridge.client import Request, steps
from bridge.client.sync import SyncBridge, connect
from bridge.redact.text import redact_headers, redact_url
from bridge.testing.transcripts import Json, Line, NoTranscript, check, without_volatile


class BridgeFrames:
    """Sends requests when called, any number of times in one test; each call has its own transcript.

    `path` is the transcript of the first call; the name of the second ends in `-2`, and so on.
    """

    def __init__(self, url: str, path: Path, *, update: bool, missed: Sequence[str] = (), hint: str = "") -> None:
        """`missed` grows by a message for each request without a tape; `hint` is the advice for it."""
        self._url = url
        self._missed = missed
        self._hint = hint
        self._path = path
        self._update = update
        self._calls = 0

    def __call__(self, *requests: Request) -> list[Json]:
        """Send the requests as events in sequence on a new socket and return all their frames.

        Raises TranscriptDiffers, NoTranscript if an event failed because no tape answered it, TypeError for values that
        JSON cannot hold, and CallFailed if the bridge cannot be reached. Other failures of events are only frames.
        """
        __tracebackhide__ = True  # show the line of the test
        lines = self._exchange(requests)
        self._calls += 1
        check(self._transcript(), [_comparable(line) for line in lines], update=self._update)
        return [line["bridge"] for line in lines if "bridge" in line]

    def _transcript(self) -> Path:
        return self._path if self._calls == 1 else self._path.with_stem(f"{self._path.stem}-{self._calls}")

    def _exchange(self, requests: tuple[Request, ...]) -> list[Line]:
        with connect(self._url, reconnect=False) as bridge:
            return [line for request in requests for line in self._play_checked(bridge, request)]

    def _play_checked(self, bridge: SyncBridge, request: Request) -> list[Line]:
        """Send a request. A miss must never become a transcript, unless a fallback answered."""
        __tracebackhide__ = True
        before = len(self._missed)
        lines = list(_play(bridge, request))
        missed = self._missed[before:]
        if missed and "error" in lines[-1].get("bridge", {}):
            raise NoTranscript("\n\n".join([*missed, *([self._hint] if self._hint not in missed[-1] else [])]))
        return lines


def _play(bridge: SyncBridge, request: Request) -> Iterator[Line]:
    with bridge.create(request) as event:
        yield {"client": orjson.loads(steps.create(event.id, request))}
        for frame in event:
            yield {"bridge": orjson.loads(frame.raw)}


def _comparable(line: Line) -> Line:
    if "bridge" in line:
        return {"bridge": without_volatile(line["bridge"])}
    message = line["client"]
    return {"client": message | {"request": without_secrets(message["request"])}}


def without_secrets(request: Any) -> Any:
    """Return the request without secrets, which must not be in files and differ between machines."""
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
