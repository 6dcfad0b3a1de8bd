"""State and services that the parts of a running event share."""

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
    """An event or realtime session that is in progress, as the health endpoint reports it."""

    @property
    def provider(self) -> str:
        """Slug of the current provider; empty before the first call."""

    @property
    def phase(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """Services and limits shared by all events of the process."""

    upstream: Upstream
    breakers: Breakers
    max_item_bytes: int
    services: Services = field(default_factory=Services)
    running: set[Running] = field(default_factory=set)
    """Events and sessions that have started and not ended."""


@dataclass(frozen=True, slots=True)
class BufferedResponse:
    """A provider's response in one piece; `error` is set if it reports one."""

    head: ResponseHead
    body: bytes
    """Counted in the event's memory reservation."""
    error: BridgeError | None
    usage: Usage | None
    reported: Reported
    cached: bool = False
    checked: bool = False
    """The body is known to be JSON."""


@dataclass(slots=True, eq=False)
class RunningEvent:
    """State and resources of one event while it runs. Its attempts change it. Instances compare by identity."""

    writer: ResponseWriter
    reservation: MemoryReservation
    context: RequestContext
    runtime: Runtime
    state: EventState
    interrupt: Interrupt
    admission: Admission | None = None
    """Set once the limiter admits the event; None without a limiter."""
    phase: str = "starting"
    step: int = 0
    provider: str = ""
    """Slug of the provider that the current step calls; empty before the first call."""
    error: BridgeError | None = None
    """Error of the last attempt."""
    buffered: BufferedResponse | None = None
    """The last response in one piece; None once a stream started after it."""
    known: KnownSecrets = NO_SECRETS
    """Secrets of the stored key that the last attempt used."""
    announced: ResponseHead | None = None
    """Head of the last stream that was started towards the client."""

    def set_buffered(self, response: BufferedResponse | None) -> None:
        """Replace the buffered response, and release the memory of the previous one."""
        if self.buffered is not None:
            self.reservation.release(len(self.buffered.body))
        self.buffered = response

    async def drain(self) -> None:
        """Wait until the client has read its queue. The event's deadlines are paused meanwhile."""
        self.interrupt.deadlines.pause()
        try:
            await self.writer.drain()
        finally:
            self.interrupt.deadlines.resume()
