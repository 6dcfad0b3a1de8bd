"""Run one event with a scripted provider, a client that collects frames, and a clock that tests advance."""

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
from tests.support.clock import advance, freeze, run_until_idle, turns
from tests.support.provider_script import ScriptedProvider, ScriptedResponse

Frame = dict[str, Any]

SETTINGS = StepSettings()


def content(text: str) -> bytes:
    """Return one chunk of an OpenAI stream."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}\n\n' % text.encode()


ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
"""A chunk that is no answer yet: bookkeeping."""
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
OVERLOADED = b'data: {"error":{"message":"too busy","type":"overloaded_error"}}\n\n'
COMPLETE = (ROLE, content("Hello"), FINISH, DONE)


class Sink:
    """A client that receives every frame. After `stop_reading` it is full until `resume_reading`."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.raw: list[bytes] = []
        self.frames_per_write: list[int] = []
        """Number of frames of each write."""
        self._reading = asyncio.Event()
        self._reading.set()

    @property
    def is_full(self) -> bool:
        return not self._reading.is_set()

    def send(self, frames: Sequence[bytes | LongFrame]) -> None:
        if frames:
            self.frames_per_write.append(len(frames))
        encoded = [bytes(frame) for frame in frames]
        self.raw += encoded
        self.frames += map(orjson.loads, encoded)

    def send_one(self, parts: list[bytes]) -> None:
        self.send([b"".join(parts)])

    async def drain(self) -> None:
        await self._reading.wait()

    def stop_reading(self) -> None:
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()


class ScriptedRuntime:
    """The state that events share: one scripted provider for every slug, breakers, a memory budget."""

    def __init__(
        self,
        *responses: ScriptedResponse,
        max_item_bytes: int = 1 << 20,
        budget_bytes: int = 1 << 30,
        provider: ScriptedProvider | None = None,
    ) -> None:
        freeze()
        self.provider = provider or ScriptedProvider(*responses)
        self.breakers = Breakers()
        self.budget = MemoryBudget(budget_bytes, "this socket")
        self.runtime = Runtime(Upstream(self.provider), self.breakers, max_item_bytes)
        done = make_provider("custom-markless", {"base_url": "https://markless.test", "ended_without_mark": "done"})
        self.providers: Mapping[str, Provider] = {**REGISTRY, done.slug: done}

    def event(
        self, request: object, *, settings: StepSettings = SETTINGS, compat: bool = False, token: str = ""
    ) -> "EventHarness":
        """Return an event that has not started. `request` is the member of `universal.create`."""
        return EventHarness(self, request, settings, compat=compat, token=token)


class EventHarness:
    """One event of a `ScriptedRuntime`; `start` starts it."""

    def __init__(
        self, runtime: ScriptedRuntime, request: object, settings: StepSettings, *, compat: bool, token: str = ""
    ) -> None:
        message = orjson.dumps({"type": "universal.create", "eventId": "event", "request": request})
        create = parse(message, settings, MessageLimits())
        assert isinstance(create, Create), create
        assert create.event_id is not None
        reservation = MemoryReservation(runtime.budget)
        reservation.add(len(message))
        self.runtime = runtime
        self.sink = Sink()
        self.last_frame_count = 0
        context = RequestContext(
            "0" * 32,
            "gateway",
            Gateway("gateway", settings=settings),
            runtime.providers,
            lambda: Gateway("gateway"),
            token=token,
        )
        writer = FrameWriter(create.event_id.raw, self.sink, compat=compat)
        self.runner = EventRunner(
            create, create.event_id.raw, context, runtime.runtime, writer, reservation, self._on_last
        )
        self._task: asyncio.Task[None] | None = None

    def _on_last(self) -> None:
        self.last_frame_count += 1

    async def start(self, *, iterations: int | None = None) -> "EventHarness":
        """Start the event and run the loop until it waits, or for `iterations` of the loop."""
        self._task = asyncio.create_task(self.runner.run())
        await (run_until_idle() if iterations is None else turns(iterations))
        return self

    async def wait_until_done(self) -> "EventHarness":
        """Wait until the event has ended, for an event that waits for a thread or for another event."""
        await asyncio.wait([self.task])
        return self

    async def advance(self, seconds: float) -> "EventHarness":
        """Advance the clock and run what is due."""
        advance(seconds)
        await run_until_idle()
        return self

    async def release(self, gate: asyncio.Event) -> "EventHarness":
        """Let the provider's script continue behind `gate`."""
        gate.set()
        await run_until_idle()
        return self

    async def cancel(self) -> "EventHarness":
        self.runner.cancel(Cancelled("cancelled by the client"))
        await run_until_idle()
        return self

    @property
    def task(self) -> asyncio.Task[None]:
        assert self._task is not None, "not started"
        return self._task

    @property
    def is_done(self) -> bool:
        return self.task.done()

    @property
    def frames(self) -> list[Frame]:
        return self.sink.frames

    @property
    def types(self) -> list[str]:
        """Types of the frames sent so far, without the prefix `universal.`."""
        return [frame["type"].removeprefix("universal.") for frame in self.frames]

    @property
    def texts(self) -> list[str]:
        """Texts of the OpenAI chunks sent so far."""
        chunks = [frame["response"] for frame in self.frames if is_chunk(frame)]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", [])]
        return [delta["content"] for delta in deltas if delta.get("content")]

    def last_frame(self) -> Frame:
        """Return the last frame of an event that has ended, and check that it released its resources."""
        self.check_resources_released()
        return self.frames[-1]

    @property
    def metadata(self) -> Frame:
        """Metadata of the last frame."""
        found: Frame = self.last_frame()["metadata"]
        return found

    @property
    def code(self) -> int | None:
        """Error code of the last frame; None without an error."""
        last = self.last_frame()
        assert ("error" in last) is not last["metadata"]["success"]
        code: int | None = last.get("error", {}).get("code")
        return code

    def check_resources_released(self) -> None:
        """Check that the event has ended with exactly one last frame and holds no stream and no memory."""
        assert self.is_done, f"still {self.runner.phase} after {self.types}"
        self.task.result()
        assert self.last_frame_count == 1
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


async def run(request: object, *responses: ScriptedResponse, settings: StepSettings = SETTINGS) -> EventHarness:
    """Run an event until it ends or waits."""
    return await ScriptedRuntime(*responses).event(request, settings=settings).start()
