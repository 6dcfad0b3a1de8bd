"""Run one event from its first message to its last frame.

`run` makes each attempt that the chain decides on and reports its outcome to the chain, until the chain stops;
`_finish` then sends the last frame. Exactly one last frame is sent in every case.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from bridge.errors import BridgeError, Cancelled, EveryStepSkipped, InternalError, TotalTimeout
from bridge.policy.chain import Chain, Decision, GiveUp, Relay, Skip, SkipReason, Try
from bridge.protocol.ids import uuid7
from bridge.protocol.messages import Create
from bridge.relay.attempt import StepAttempt
from bridge.relay.context import BufferedResponse, RunningEvent, Runtime
from bridge.relay.costs import charges_of, total
from bridge.relay.deadlines import Clock, Interrupt
from bridge.relay.decoding import with_decoded_bodies
from bridge.relay.event_state import EventState, ResponseHead
from bridge.relay.failures import total_timeout
from bridge.relay.interfaces import Charge
from bridge.relay.memory import MemoryReservation
from bridge.relay.plan import PlannedStep, RequestContext, header_chars, plan
from bridge.relay.summarize import gateway_of, logged, summarize
from bridge.relay.writer import ResponseWriter
from bridge.settings.step import StepSettings

log = logging.getLogger("bridge.event")

OFF_LOOP_BYTES: Final = 1 << 20
"""Longer texts are processed in a thread, so that other connections do not wait."""

OFF_LOOP_HEADER_CHARS: Final = 32_768
"""The same limit for planning, which digests each word of the headers and endpoints."""

_SKIPPED: Final = {
    SkipReason.BREAKER: "skipped: the provider keeps failing",
    SkipReason.RETRY_AFTER: "skipped: the provider requested a longer wait than maxRetryAfter at an earlier step",
}


class EventRunner:
    """Runs one event. `run` is its task; `cancel` may be called at any time and more than once."""

    def __init__(
        self,
        create: Create,
        event_id: bytes | None,
        context: RequestContext,
        runtime: Runtime,
        writer: ResponseWriter,
        reservation: MemoryReservation,
        on_last: Callable[[], None],
    ) -> None:
        """`event_id` is raw JSON; None uses the log id. `on_last` is called when the last frame was sent."""
        self._loop = asyncio.get_running_loop()
        self._create = create
        self._context = context
        self._on_last = on_last
        self._interrupt = Interrupt()
        now_ns = time.time_ns()
        state = EventState(new_id(now_ns), context.gateway, self._loop.time(), create.warnings, now_ns)
        self.event_id = event_id or b'"%b"' % state.log_id.encode()
        self._event = RunningEvent(writer, reservation, context, runtime, state, self._interrupt)
        self._steps: list[PlannedStep] = []
        self._chain: Chain | None = None
        self._charges: list[Charge] = []
        self._ended = False

    @property
    def phase(self) -> str:
        return self._event.phase

    @property
    def step(self) -> int:
        return self._event.step

    async def run(self) -> None:
        self._interrupt.attach()
        self._event.runtime.running.add(self._event)
        try:
            if self._interrupt.cancelled is None:
                await self._drive()
        except asyncio.CancelledError:
            if self._interrupt.cancelled is None:
                raise
        except BridgeError as error:
            self._fail(error.without_traceback())
        except Exception:
            log.exception("unhandled exception in an event")
            self._fail(InternalError(f"internal error; see the bridge's log for {self._event.state.log_id}"))
        finally:
            self._end()

    def refuse(self, error: BridgeError) -> None:
        """End the event with `error` instead of running it."""
        self._fail(error)
        self._end()

    def cancel(self, error: BridgeError) -> None:
        """Stop the event in any phase; `error` becomes that of the last frame."""
        if not self._ended:
            self._interrupt.cancel(error)

    async def _drive(self) -> None:
        self._steps = steps = await self._plan()
        self._interrupt.deadlines.set_ms(Clock.TOTAL, steps[0].step.settings.total_timeout)
        await self._admit(steps[0].step.settings)
        self._chain = chain = Chain([planned.policy for planned in steps], self._event.runtime.breakers)
        decision: Decision = chain.start(self._loop.time())
        while isinstance(decision, Try):
            self._skip(decision.skipped)
            await self._wait_before_retry(decision.wait_s)
            attempt = StepAttempt(self._event, chain, steps[decision.step], decision)
            outcome = await attempt.run()
            if outcome is None:
                self._end_stream(attempt.response_head)
                return
            if isinstance(self._event.error, TotalTimeout):
                raise self._event.error
            decision = chain.next(outcome, self._loop.time(), random.random())  # noqa: S311 - spreads a pause
        await self._finish(decision)

    async def _plan(self) -> list[PlannedStep]:
        """Return the resolved steps. Long headers, endpoints and bodies are searched in a thread."""
        steps = await with_decoded_bodies(self._create.steps, self._event.reservation)
        body_bytes = sum(len(step.readable) for step in steps)
        if header_chars(steps) < OFF_LOOP_HEADER_CHARS and body_bytes < OFF_LOOP_BYTES:
            return plan(steps, self._context)
        return await asyncio.to_thread(plan, steps, self._context)

    async def _admit(self, settings: StepSettings) -> None:
        """Wait for the limiter, if there is one, and set how much of the bodies is kept for observers."""
        services = self._event.runtime.services
        wanted = logged(settings, gateway_of(self._context))
        if (wanted.collect_log, wanted.collect_log_payload) != (settings.collect_log, settings.collect_log_payload):
            self._event.state.warnings.append("collectLog and collectLogPayload are ignored: the gateway sets them.")
        if wanted.collect_log and wanted.collect_log_payload:
            self._event.state.head_bytes = services.payload_bytes
        if services.limiter is not None:
            self._event.phase = "waiting"
            try:
                self._event.admission = await services.limiter.admit(self._context, settings)
            except asyncio.CancelledError:
                self._interrupt.consume()
                raise total_timeout() from None

    def _skip(self, skipped: tuple[Skip, ...]) -> None:
        for step, reason in skipped:
            error = EveryStepSkipped(_SKIPPED[reason])
            now = self._loop.time()
            self._event.state.add_attempt(step, self._steps[step].provider.slug, None, error, now, now)

    async def _wait_before_retry(self, wait_s: float) -> None:
        if wait_s:
            self._event.phase = "backing off"
            try:
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                self._interrupt.consume()
                raise total_timeout() from None

    async def _finish(self, decision: Relay | GiveUp) -> None:
        """Send the last buffered response; raise the event's error if there is none, or if a stream was started."""
        event, response = self._event, self._event.buffered
        if isinstance(decision, GiveUp):
            self._skip(decision.skipped)
            response = None if event.announced else response
        if response is None:
            assert event.error is not None
            raise event.error
        await self._send_buffered(response)

    async def _send_buffered(self, response: BufferedResponse) -> None:
        """Send a response in one piece as the last frame."""
        event, state = self._event, self._event.state
        self._interrupt.deadlines.stop()  # the response is complete
        state.restarted = event.announced is not None
        state.drop_stream()
        state.usage, state.reported, state.cached = response.usage, response.reported, response.cached
        state.reset_body()
        state.add_body(response.body)
        if state.answered_at is None:
            state.answered_at = self._loop.time()
        raw = self._steps[response.head.step].step.settings.frames == "raw"
        encode = partial(
            event.writer.encode_body, response.body, response.head.content_type, raw=raw, checked=response.checked
        )
        encoded = (
            encode() if response.checked or len(response.body) < OFF_LOOP_BYTES else await asyncio.to_thread(encode)
        )
        metadata = self._last_metadata(response.head, response.error)
        self._send_last(partial(event.writer.send_response, response.head, metadata, encoded, response.error))
        if event.writer.is_full:
            await event.drain()  # its bytes count until the client has read them

    def _end_stream(self, head: ResponseHead) -> None:
        self._send_last(partial(self._event.writer.end_stream, self._last_metadata(head, None)))

    def _fail(self, error: BridgeError) -> None:
        """Send the last frame of a failed event, before or after a stream began."""
        event = self._event
        alias = event.state.byok_alias
        head = ResponseHead(event.step, self._provider_slug(), error.status, "application/json", byok_alias=alias)
        metadata = self._last_metadata(event.announced or head, error)
        send = (
            event.writer.abort_stream
            if event.announced is not None or self._interrupt.cancelled is not None
            else event.writer.send_error
        )
        self._send_last(partial(send, metadata, error))

    def _last_metadata(self, head: ResponseHead, error: BridgeError | None) -> dict[str, object]:
        """Return the metadata of the last frame, with the cost."""
        state = self._event.state
        if self._steps:
            state.model = self._steps[head.step].model
            self._charges = charges_of(self._event, self._steps, self._steps[head.step], error)
            state.cost = total(self._charges)
        return state.last_metadata(head, self._loop.time(), error)

    def _provider_slug(self) -> str | None:
        return self._steps[self._event.step].provider.slug if self._steps else None

    def _send_last(self, send: Callable[[], None]) -> None:
        if not self._ended:
            self._ended = True
            send()
            self._on_last()

    def _end(self) -> None:
        """Release all resources and notify the observers. Does not block."""
        if not self._ended:
            self._fail(self._interrupt.cancelled or Cancelled("the event's task was cancelled"))
        event = self._event
        event.runtime.running.discard(event)
        self._interrupt.detach()
        event.reservation.release_all()
        if self._chain is not None:
            self._chain.abandon(self._loop.time())
        if event.admission is not None:
            event.admission.settle(self._charges)
        log.info("event", extra={"fields": event.state.log_fields(self.event_id)})
        if event.runtime.services.observers:
            summary = summarize(event.state, event.context, self.event_id, self._create, self._steps)
            for observer in event.runtime.services.observers:
                observer.on_event_end(summary)


def new_id(now_ns: int | None = None) -> str:
    """Return a new id for an event or its log row (UUIDv7)."""
    return uuid7((now_ns or time.time_ns()) // 1_000_000, random.getrandbits(74))
