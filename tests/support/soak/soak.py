"""Run a bridge, a provider with random faults and many clients in one loop, and measure what stays behind."""

import asyncio
import ctypes
import gc
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from bridge.server.server import Server
from bridge.upstream.transport import HttpTransport
from tests.services.metrics.test_metrics import Samples, of, scraped
from tests.support.harness import config_of, running
from tests.support.soak.checks import Violation
from tests.support.soak.clients import ClientSession
from tests.support.soak.plans import session_of
from tests.support.soak.provider import FaultProvider, Ledger
from tests.support.socket_provider import client_context

CLIENTS: Final = 40
"""Sessions at the same time."""

MAX_VIOLATIONS: Final = 20

RELEASE_CHECKS: Final = 200
"""Checks, of 50 ms each, that all resources are released after the last session."""
LINGER_S: Final = 1.2
"""Time in which the bridge closes responses that it no longer needs."""

CONFIG: Final = """
[server]
cache_bytes = 2_000_000
[gateways.gateway]
request_timeout = 30_000
idle_timeout = 30_000
[providers.custom-plain]
base_url = "http://127.0.0.1:{port}"
[providers.custom-tls]
base_url = "https://127.0.0.1:{tls_port}"
[providers.custom-dead]
base_url = "http://127.0.0.1:1"
"""


@dataclass(frozen=True, slots=True)
class Held:
    """Resources that the process holds while no event is in flight and no client is connected."""

    descriptors: int
    tasks: int
    resident_mb: float
    objects: int
    """Blocks of memory of Python objects."""

    @classmethod
    def now(cls) -> "Held":
        return cls(len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()), resident_mb(), sys.getallocatedblocks())

    def has_more_than(self, before: "Held") -> bool:
        """Return True if there are more descriptors or tasks."""
        return self.descriptors > before.descriptors or self.tasks > before.tasks


@dataclass(slots=True)
class Report:
    """The results of a soak."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """Numbers of events by the client's transport and the outcome; and of restarts."""
    violations: list[str] = field(default_factory=list)
    """Promises that the bridge broke."""
    errors: list[str] = field(default_factory=list)
    """Errors that the bridge or the loop has logged."""
    before: Held | None = None
    """The resources after the warm-up."""
    after: Held | None = None
    gauges: Samples = field(default_factory=dict)
    """Metrics at the end that are not zero, though nothing is in flight."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """Resident memory in MB by the number of events so far."""
    calls: int = 0
    connections: int = 0
    seconds: float = 0.0

    @property
    def events(self) -> int:
        """Return the number of events that were sent."""
        return sum(count for name, count in self.outcomes.items() if name != "restarts")

    def count(self, outcome: str) -> int:
        """Return the number of events with an outcome, over both transports."""
        return self.outcomes[f"socket {outcome}"] + self.outcomes[f"http {outcome}"]

    def __str__(self) -> str:
        rate = self.events / self.seconds
        lines = [f"{self.events} events in {self.seconds:.0f} s: {rate:.0f} per second, CPU of the clients included"]
        lines.append(f"{self.calls} provider calls over {self.connections} connections")
        lines += [f"{count:7d} {name}" for name, count in self.outcomes.most_common()]
        lines.append(f"before {self.before}, after {self.after}")
        lines.append("MB: " + ", ".join(f"{events}: {mb:.0f}" for events, mb in self.curve))
        return "\n".join(lines)


def release_free_memory() -> None:
    """Return freed memory to the system, so that resident memory shows what is held."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Soak:
    """One soak over a running bridge."""

    def __init__(self, server: Server, provider: FaultProvider, ledger: Ledger, seed: int) -> None:
        self._server, self._provider, self._ledger, self._seed = server, provider, ledger, seed
        self._next = self._next_sample = 1
        self.report = Report()

    async def run(self, events: int, warm_up: int) -> None:
        """Run the warm-up and then the events. Stops after MAX_VIOLATIONS broken promises."""
        await self._run_clients(warm_up)
        self.report.before = await self._at_rest(None)
        started = time.monotonic()
        await self._run_clients(events)
        self.report.seconds = time.monotonic() - started
        self.report.after = await self._at_rest(self.report.before)
        self.report.calls, self.report.connections = self._ledger.calls, self._provider.connections
        gauges = ("bridge_events_in_flight", "bridge_sockets", "bridge_memory_used_bytes")
        self.report.gauges = of(await scraped(self._server), *gauges)

    async def _run_clients(self, events: int) -> None:
        until = self._next + events
        sample_every = max(events // 20, 1)
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._run_sessions(until, sample_every), name="soak client")

    async def _run_sessions(self, until: int, sample_every: int) -> None:
        while self._next < until and len(self.report.violations) < MAX_VIOLATIONS:
            first = self._next
            size = min(Random(f"{self._seed}/size/{first}").choice((1, 2, 5, 10, 20)), until - first)
            self._next += size
            await self._run_session(first, size)
            if self._next >= self._next_sample:
                self.report.curve.append((self._next - 1, resident_mb()))
                self._next_sample = self._next + sample_every

    async def _run_session(self, first: int, size: int) -> None:
        plan = session_of(self._seed, first, size)
        session = ClientSession(self._server, self._ledger, plan, self.report.outcomes)
        try:
            await session.run()
        except Violation as violation:
            self.report.violations.append(str(violation))
            session.abandon()

    async def _at_rest(self, before: Held | None) -> Held:
        """Wait until the bridge has released what it can; at most until it has no more than `before`."""
        await asyncio.sleep(LINGER_S)  # the bridge reads the rests of bodies for a second of the real clock
        await self._provider.drop_all()
        await asyncio.sleep(0.2)  # the kernel has to report the closed connections; nothing tells when it has
        for _ in range(RELEASE_CHECKS):
            if before is None or not Held.now().has_more_than(before):
                break
            await asyncio.sleep(0.05)
        assert len(self._ledger) == 0
        release_free_memory()
        return Held.now()


@asynccontextmanager
async def soaking(folder: Path, seed: int) -> AsyncIterator[Soak]:
    """Run a bridge whose gateway calls a provider with random faults."""
    ledger = Ledger(seed)
    async with FaultProvider(ledger) as provider:
        text = CONFIG.format(port=provider.port, tls_port=provider.tls_port)
        async with running(config_of(text, folder), HttpTransport(client_context())) as server:
            soak = Soak(server, provider, ledger, seed)
            with logged_errors(soak.report.errors):
                yield soak


@contextmanager
def logged_errors(found: list[str]) -> Iterator[None]:
    """Collect what is logged as an error, and exceptions that only the loop notices."""

    def on_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        found.append(f"{context['message']}: {context.get('exception')!r}")

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Collecting(logging.ERROR)
    logging.getLogger().addHandler(handler)
    asyncio.get_running_loop().set_exception_handler(on_exception)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        asyncio.get_running_loop().set_exception_handler(None)
