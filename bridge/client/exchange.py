"""One HTTP exchange through the bridge as bytes, for code that uses a provider's own protocol over the socket."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

from bridge.client import steps
from bridge.client.event import Event
from bridge.client.frames import Failure, Frame
from bridge.client.response import ResponseReader
from bridge.client.steps import AnyStep

_RAW_CONFIG: Final = {"frames": "raw", "onBreak": "error"}
"""Delivered bytes cannot be revoked, so a broken answer is never restarted."""


def raw_request(step: AnyStep, fallback: Iterable[AnyStep]) -> steps.Json:
    """Return a chain with raw frames, regardless of the settings of its steps or of the gateway."""
    return {"steps": [_raw_step(steps.as_json(each)) for each in (step, *fallback)]}


def _raw_step(step: steps.Json) -> steps.Json:
    config: Mapping[str, Any] = step.get("config") or {}
    return {**step, "config": {**config, **_RAW_CONFIG}}


class Exchange(ResponseReader):
    """Has the head of the answer once it is open, and yields the provider's body in pieces when iterated.

    An HTTP error is an ordinary answer. EventFailed is raised for an answer that breaks after its head and for an
    invalid request.
    """

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self._body: bytes | None = None
        """Body of an answer in one piece, until it is consumed."""
        self._error: Failure | None = None

    @property
    def status(self) -> int:
        """HTTP status of the provider, or of the error of the bridge."""
        return self._metadata.status or 0

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the provider in lower case; empty for the bridge's own answers, which are JSON."""
        return self._metadata.headers or {}

    @property
    def is_from_provider(self) -> bool:
        """Return true if the answer is a provider's. Otherwise it is the bridge's error, which `error` describes."""
        return self._metadata.headers is not None

    @property
    def error(self) -> Failure | None:
        """Failure known with the head: an HTTP error of the provider, or no answer at all."""
        return self._error

    async def read(self) -> bytes:
        """Return the rest of the body."""
        return b"".join([run async for run in self])

    def _begin(self, first: Frame) -> None:
        self._error = first.error
        if first.has_response:
            self._body = first.body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        body, self._body = self._body, None
        if body:
            return body
        frame = await self._next()
        if frame is None or frame.type != "stream":
            raise StopAsyncIteration
        return frame.body
