"""Runs one event over a scripted provider, with a list as its client, on a clock that tests advance."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from bridge.config.gateways import Gateway
from bridge.errors import Cancelled
from bridge.policy.breaker import Breakers
from bridge.protocol.frames import LongFrame
from bridge.protocol.messages import Create, MessageLimits, parse
from bridge.providers import REGISTRY, Provider, make_provider
from bridge.relay.context import Runtime
from bridge.relay.memory import MemoryBudget, MemoryReservation
from bridge.relay.plan import RequestContext
from bridge.relay.runner import EventRunner
from bridge.relay.writer import FrameWriter
from bridge.settings.step import StepSettings
from bridge.upstream.http import Upstream
from tests.support.clock import advance, turns
from tests.support.provider_script import Plays, ScriptedProvider

Frame = dict[str, Any]

SETTINGS = StepSettings()
TURNS = 50
"""Of the loop: more than any event of these tests needs to come as far as it does on its own."""


def said(text: str) -> bytes:
    """Return a chunk of an OpenAI stream, as its provider sends it."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}\n\n' % text.encode()


ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
"""Bookkeeping."""
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
OVERLOADED = b'data: {"error":{"message":"too busy","type":"overloaded_error"}}\n\n'
WHOLE = (ROLE, said("Hello"), FINISH, DONE)


class Sink:
    """A client that takes every frame, except while `is_full`."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.raw: list[bytes] = []
        self.writes: list[int] = []
        """How many frames each write had."""
        self._taken = asyncio.Event()
        self._taken.set()

    @property
    def is_full(self) -> bool:
        return not self._taken.is_set()

    def send(self, frames: Sequence[bytes | LongFrame]) -> None:
        if frames:
            self.writes.append(len(frames))
        whole = [bytes(frame) for frame in frames]
        self.raw += whole
        self.frames += map(orjson.loads, whole)

    def send_one(self, parts: list[bytes]) -> None:
        self.send([b"".join(parts)])

    async def drain(self) -> None:
        await self._taken.wait()

    def stop_reading(self) -> None:
        self._taken.clear()

    def read_on(self) -> None:
        self._taken.set()


class House:
    """The objects shared by events: one scripted provider behind every slug, breakers, a memory budget."""

    def __init__(
        self,
        *plays: Plays,
        max_item_bytes: int = 1 << 20,
        budget_bytes: int = 1 << 30,
        provider: ScriptedProvider | None = None,
    ) -> None:
        self.provider = provider or ScriptedProvider(*plays)
        self.breakers = Breakers()
        self.budget = MemoryBudget(budget_bytes, "this socket")
        self.shared = Runtime(Upstream(self.provider), self.breakers, max_item_bytes)
        done = make_provider("custom-markless", {"base_url": "https://markless.test", "ended_without_mark": "done"})
        self.providers: Mapping[str, Provider] = {**REGISTRY, done.slug: done}

    def event(
        self, request: object, *, settings: StepSettings = SETTINGS, compat: bool = False, token: str = ""
    ) -> "EventHarness":
        """`request` as a client would send it."""
        return EventHarness(self, request, settings, compat=compat, token=token)


class EventHarness:
    """One event that has not started yet."""

    def __init__(self, house: House, request: object, settings: StepSettings, *, compat: bool, token: str = "") -> None:
        message = orjson.dumps({"type": "universal.create", "eventId": "event", "request": request})
        create = parse(message, settings, MessageLimits())
        assert isinstance(create, Create), create
        assert create.event_id is not None
        reservation = MemoryReservation(house.budget)
        reservation.add(len(message))
        self.runtime = house
        self.sink = Sink()
        self.lasts = 0
        context = RequestContext(
            "0" * 32,
            "gateway",
            Gateway("gateway", settings=settings),
            house.providers,
            lambda: Gateway("gateway"),
            token=token,
        )
        writer = FrameWriter(create.event_id.raw, self.sink, compat=compat)
        self.relay = EventRunner(create, create.event_id.raw, context, house.shared, writer, reservation, self._on_last)
        self._task: asyncio.Task[None] | None = None

    def _on_last(self) -> None:
        self.lasts += 1

    async def begin(self, *, in_turns: int = TURNS) -> "EventHarness":
        """Start it, and let it come as far as it does on its own."""
        self._task = asyncio.create_task(self.relay.run())
        await turns(in_turns)
        return self

    async def end(self) -> "EventHarness":
        """Wait for its end, where that takes a thread's or a neighbour's time."""
        await asyncio.wait([self.task])
        return self

    async def pass_s(self, seconds: float) -> "EventHarness":
        """Let so much time pass, and what is due happen."""
        advance(seconds)
        await turns(TURNS)
        return self

    async def open(self, gate: asyncio.Event) -> "EventHarness":
        gate.set()
        await turns(TURNS)
        return self

    async def cancel(self) -> "EventHarness":
        self.relay.cancel(Cancelled("cancelled by the client"))
        await turns(TURNS)
        return self

    @property
    def task(self) -> asyncio.Task[None]:
        assert self._task is not None, "not begun"
        return self._task

    @property
    def is_over(self) -> bool:
        return self.task.done()

    @property
    def frames(self) -> list[Frame]:
        return self.sink.frames

    @property
    def types(self) -> list[str]:
        """What was said so far, without the word that all begin with."""
        return [frame["type"].removeprefix("universal.") for frame in self.frames]

    @property
    def texts(self) -> list[str]:
        """The pieces of an OpenAI answer that came so far."""
        chunks = [frame["response"] for frame in self.frames if is_chunk(frame)]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", [])]
        return [delta["content"] for delta in deltas if delta.get("content")]

    def last(self) -> Frame:
        """The last frame of an event that is over and has left nothing behind."""
        self.check_nothing_is_left()
        return self.frames[-1]

    @property
    def metadata(self) -> Frame:
        """The last frame's."""
        found: Frame = self.last()["metadata"]
        return found

    @property
    def code(self) -> int | None:
        """The last frame's error code; None when there was no error."""
        last = self.last()
        assert ("error" in last) is not last["metadata"]["success"]
        code: int | None = last.get("error", {}).get("code")
        return code

    def check_nothing_is_left(self) -> None:
        assert self.is_over, f"it goes on, {self.relay.phase}, after {self.types}"
        self.task.result()
        assert self.lasts == 1
        assert sum(map(is_last, self.frames)) == 1
        assert is_last(self.frames[-1])
        assert self.runtime.provider.open_streams == 0
        assert self.runtime.budget.used == 0
        metadata = self.frames[-1]["metadata"]
        assert metadata["chunks"] == self.types.count("stream")
        assert all(frame["metadata"] == {"eventId": "event"} for frame in self.frames if is_chunk(frame))


def is_chunk(frame: Frame) -> bool:
    return bool(frame["type"] == "universal.stream")


def is_last(frame: Frame) -> bool:
    """Return True for a last frame (bridge/docs/protocol.md, "Exactly one last frame per event")."""
    return frame["type"] in {"universal.done", "universal.error"} or (
        frame["type"] == "universal.created" and "response" in frame
    )


def step(slug: str = "openai", **config: object) -> Frame:
    """Return one step of a request, with its settings."""
    return {
        "provider": slug,
        "endpoint": "v1/chat/completions",
        "headers": {"authorization": "Bearer none"},
        "query": {"model": "small", "stream": True},
        "config": config,
    }


async def run(request: object, *plays: Plays, settings: StepSettings = SETTINGS) -> EventHarness:
    """Run an event whose provider never waits, from start to end."""
    return await House(*plays).event(request, settings=settings).begin()
