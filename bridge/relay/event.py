"""What the parts that run an event share of it."""

from dataclasses import dataclass, field
from typing import Protocol

from bridge.errors import BridgeError
from bridge.policy.breaker import Breakers
from bridge.policy.reported import Reported
from bridge.relay.budget import Hold
from bridge.relay.deadlines import Alarm
from bridge.relay.plan import Ground
from bridge.relay.record import Heading, Record
from bridge.relay.services import Admission, Services
from bridge.relay.voice import Voice
from bridge.upstream.http import Upstream
from bridge.upstream.known_secrets import NOTHING, Known
from bridge.wire.dialects import Usage


class Running(Protocol):
    """What is told of an event, or a realtime session, while it runs."""

    @property
    def provider(self) -> str:
        """A slug; empty before one was asked."""

    @property
    def phase(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What all events of the process share."""

    upstream: Upstream
    breakers: Breakers
    max_item_bytes: int
    services: Services = field(default_factory=Services)
    running: set[Running] = field(default_factory=set)
    """All that has begun and not ended."""


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer in one piece, as a provider gave it; `error` when it is one."""

    heading: Heading
    body: bytes
    """Counted in the event's hold."""
    error: BridgeError | None
    usage: Usage | None
    reported: Reported
    cached: bool = False


@dataclass(slots=True, eq=False)
class Event:
    """What is known and owned of an event while it runs; its attempts change it. No two are equal."""

    voice: Voice
    hold: Hold
    ground: Ground
    shared: Shared
    record: Record
    alarm: Alarm
    admission: Admission | None = None
    """Once it was let in, where somebody asks."""
    phase: str = "starting"
    step: int = 0
    provider: str = ""
    """The slug of that step's, once it was asked."""
    error: BridgeError | None = None
    """Of the attempt made last."""
    whole: Whole | None = None
    """The answer in one piece that a provider gave last, and no stream was told since."""
    known: Known = NOTHING
    """The secrets of the stored key that the last attempt used."""
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
            await self.voice.drained()
        finally:
            self.alarm.deadlines.go_on()
