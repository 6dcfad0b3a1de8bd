"""What the parts that run an event share of it."""

from dataclasses import dataclass
from typing import Protocol

from bridge.errors import BridgeError
from bridge.policy.breaker import Breakers
from bridge.relay.budget import Hold
from bridge.relay.deadlines import Alarm
from bridge.relay.record import Heading, Record
from bridge.upstream.http import Upstream
from bridge.wire.dialects import Usage
from bridge.wire.frames import EventFrames


class Sink(Protocol):
    """Where an event's frames go."""

    @property
    def is_full(self) -> bool:
        """Whether frames stand in line: then wait for `drained` before the provider is read on."""

    def send(self, frames: list[bytes]) -> None:
        """Never blocks, never fails: frames for a peer that is gone are dropped."""

    def send_one(self, parts: list[bytes]) -> None:
        """The same for one frame, given in parts so that a long one need not be copied."""

    async def drained(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What all events of the process share."""

    upstream: Upstream
    breakers: Breakers
    max_item_bytes: int


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer in one piece, as a provider gave it; `error` when it is one."""

    heading: Heading
    body: bytes
    """Counted in the event's hold."""
    error: BridgeError | None
    usage: Usage | None
    cost: float | None


@dataclass(slots=True)
class Event:
    """What is known and owned of an event while it runs; its attempts change it."""

    frames: EventFrames
    sink: Sink
    hold: Hold
    shared: Shared
    record: Record
    alarm: Alarm
    phase: str = "starting"
    step: int = 0
    error: BridgeError | None = None
    """Of the attempt made last."""
    whole: Whole | None = None
    """The answer in one piece that a provider gave last, and no stream was told since."""
    told: Heading | None = None
    """Of the stream that the client was told of last."""

    def keep(self, whole: Whole | None) -> None:
        """In place of the one kept so far."""
        if self.whole is not None:
            self.hold.give(len(self.whole.body))
        self.whole = whole

    async def drained(self) -> None:
        """Until the client has taken what stands in line; meanwhile its clocks stand still."""
        self.alarm.deadlines.stand_still()
        try:
            await self.sink.drained()
        finally:
            self.alarm.deadlines.go_on()
