"""What the parts that run an event share of it."""

from dataclasses import dataclass, field
from typing import Protocol

from bridge.errors import BridgeError
from bridge.formats.stream_reader import Usage
from bridge.policy.breaker import Breakers
from bridge.policy.reported import Reported
from bridge.redact.known_secrets import NO_SECRETS, KnownSecrets
from bridge.relay.deadlines import Interrupt
from bridge.relay.event_state import EventState, ResponseHead
from bridge.relay.interfaces import Admission, Services
from bridge.relay.memory import MemoryReservation
from bridge.relay.plan import RequestContext
from bridge.relay.writer import ResponseWriter
from bridge.upstream.http import Upstream


class Running(Protocol):
    """What is told of an event, or a realtime session, while it runs."""

    @property
    def provider(self) -> str:
        """A slug; empty before one was asked."""

    @property
    def phase(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """What all events of the process share."""

    upstream: Upstream
    breakers: Breakers
    max_item_bytes: int
    services: Services = field(default_factory=Services)
    running: set[Running] = field(default_factory=set)
    """All that has begun and not ended."""


@dataclass(frozen=True, slots=True)
class BufferedResponse:
    """An answer in one piece, as a provider gave it; `error` when it is one."""

    head: ResponseHead
    body: bytes
    """Counted in the event's hold."""
    error: BridgeError | None
    usage: Usage | None
    reported: Reported
    cached: bool = False
    checked: bool = False
    """The body is known to be JSON."""


@dataclass(slots=True, eq=False)
class RunningEvent:
    """What is known and owned of an event while it runs; its attempts change it. No two are equal."""

    writer: ResponseWriter
    reservation: MemoryReservation
    context: RequestContext
    runtime: Runtime
    state: EventState
    interrupt: Interrupt
    admission: Admission | None = None
    """Once it was let in, where somebody asks."""
    phase: str = "starting"
    step: int = 0
    provider: str = ""
    """The slug of that step's, once it was asked."""
    error: BridgeError | None = None
    """Of the attempt made last."""
    buffered: BufferedResponse | None = None
    """The answer in one piece that a provider gave last, and no stream was told since."""
    known: KnownSecrets = NO_SECRETS
    """The secrets of the stored key that the last attempt used."""
    announced: ResponseHead | None = None
    """Of the stream that the client was told of last."""

    def keep(self, whole: BufferedResponse | None) -> None:
        """In place of the one kept so far."""
        if self.buffered is not None:
            self.reservation.release(len(self.buffered.body))
        self.buffered = whole

    async def drain(self) -> None:
        """Until the client has taken what stands in line; meanwhile its clocks stand still."""
        self.interrupt.deadlines.pause()
        try:
            await self.writer.drain()
        finally:
            self.interrupt.deadlines.resume()
