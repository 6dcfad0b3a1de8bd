"""One HTTP exchange by way of the bridge, as bytes: for whoever speaks a provider's own protocol over the socket."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

from bridge.client import steps
from bridge.client.event import Event
from bridge.client.frames import Failure, Frame
from bridge.client.response import ResponseReader
from bridge.client.steps import AnyStep

_AS_IT_CAME: Final = {"frames": "raw", "onBreak": "error"}
"""Bytes that were handed on cannot be taken back, so an answer that breaks is not begun anew."""


def as_it_came(step: AnyStep, fallback: Iterable[AnyStep]) -> steps.Json:
    """A chain whose answers come as they are, whatever its steps or the gateway say."""
    return {"steps": [_as_it_came(steps.as_json(each)) for each in (step, *fallback)]}


def _as_it_came(step: steps.Json) -> steps.Json:
    config: Mapping[str, Any] = step.get("config") or {}
    return {**step, "config": {**config, **_AS_IT_CAME}}


class Exchange(ResponseReader):
    """Open, its head is there; iterated, it gives the body in runs, as the provider's bytes.

    An HTTP error is an answer like any other. What raises EventFailed is an answer that breaks after its head, and a
    request that could be none.
    """

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self._body: bytes | None = None
        """An answer in one piece, until it is taken."""
        self._error: Failure | None = None

    @property
    def status(self) -> int:
        """The provider's; where the bridge itself answers, that of its error."""
        return self._metadata.status or 0

    @property
    def headers(self) -> Mapping[str, str]:
        """The provider's, names in lower case; none where the bridge itself answers, which it does in JSON."""
        return self._metadata.headers or {}

    @property
    def is_from_provider(self) -> bool:
        """Status, headers and body are a provider's. Else they are the bridge's own error, and `error` is that."""
        return self._metadata.headers is not None

    @property
    def error(self) -> Failure | None:
        """Why the event failed, known with the head: an HTTP error of the provider, or no answer at all."""
        return self._error

    async def read(self) -> bytes:
        """The body, or what is left of it."""
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
