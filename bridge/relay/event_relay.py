"""Runs one event from its first message to its last frame: the only place where decisions meet I/O.

`run` asks the chain what to try, lets an `Attempt` try it, tells the chain the outcome, and so on; `_finish` says the
last word. Exactly one goes out, whatever happens.
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
from bridge.relay.attempt import Attempt
from bridge.relay.budget import Hold
from bridge.relay.closing import entry_of, gateway_of, logged
from bridge.relay.costs import charges_of, total
from bridge.relay.deadlines import Alarm, Clock
from bridge.relay.decoding import with_decoded_bodies
from bridge.relay.event import Event, Shared, Whole
from bridge.relay.outcomes import total_timeout
from bridge.relay.plan import Ground, PlannedStep, header_chars, plan
from bridge.relay.record import Heading, Record
from bridge.relay.services import Charge
from bridge.relay.voice import Voice
from bridge.settings.step import StepSettings
from bridge.wire.ids import uuid7
from bridge.wire.messages import Create

log = logging.getLogger("bridge.event")

OFF_LOOP_BYTES: Final = 1 << 20
"""From here on, work in proportion to a text's length is done in a thread, so that neighbours are not kept waiting."""

OFF_LOOP_HEADER_CHARS: Final = 32_768
"""The same for planning, where each word of a header or an endpoint is digested."""

_SKIPPED: Final = {
    SkipReason.BREAKER: "skipped: the provider keeps failing",
    SkipReason.RETRY_AFTER: "skipped: the provider asked an earlier step to wait for longer than maxRetryAfter",
}


class EventRelay:
    """One event. `run` is its task; `cancel` may be called at any time, and more than once."""

    def __init__(
        self,
        create: Create,
        event_id: bytes | None,
        ground: Ground,
        shared: Shared,
        voice: Voice,
        hold: Hold,
        on_last: Callable[[], None],
    ) -> None:
        """`event_id` is raw JSON, None to be called as its row in the log; `on_last` is called when the last word is
        out."""
        self._loop = asyncio.get_running_loop()
        self._create = create
        self._ground = ground
        self._on_last = on_last
        self._alarm = Alarm()
        now_ns = time.time_ns()
        record = Record(new_id(now_ns), ground.gateway, self._loop.time(), create.warnings, now_ns)
        self.event_id = event_id or b'"%b"' % record.log_id.encode()
        self._event = Event(voice, hold, ground, shared, record, self._alarm)
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
        self._alarm.attach()
        self._event.shared.running.add(self._event)
        try:
            if self._alarm.cancelled is None:
                await self._drive()
        except asyncio.CancelledError:
            if self._alarm.cancelled is None:
                raise
        except BridgeError as error:
            self._fail(error.bare())
        except Exception:
            log.exception("an event failed for a reason that nobody expected")
            self._fail(InternalError(f"internal error; the bridge's log tells more under {self._event.record.log_id}"))
        finally:
            self._end()

    def refuse(self, error: BridgeError) -> None:
        """In place of `run`: the event ends before it has begun."""
        self._fail(error)
        self._end()

    def cancel(self, error: BridgeError) -> None:
        """Stop in whatever phase it is; `error` becomes the last frame's."""
        if not self._ended:
            self._alarm.cancel(error)

    async def _drive(self) -> None:
        self._steps = steps = await self._plan()
        self._alarm.deadlines.set_ms(Clock.TOTAL, steps[0].step.settings.total_timeout)
        await self._admit(steps[0].step.settings)
        self._chain = chain = Chain([planned.policy for planned in steps], self._event.shared.breakers)
        decision: Decision = chain.start(self._loop.time())
        while isinstance(decision, Try):
            self._skip(decision.skipped)
            await self._back_off(decision.wait_s)
            attempt = Attempt(self._event, chain, steps[decision.step], decision)
            outcome = await attempt.run()
            if outcome is None:
                self._done(attempt.heading)
                return
            if isinstance(self._event.error, TotalTimeout):
                raise self._event.error
            decision = chain.next(outcome, self._loop.time(), random.random())  # noqa: S311 - spreads a pause
        await self._finish(decision)

    async def _plan(self) -> list[PlannedStep]:
        """Long headers and endpoints are searched for tokens in a thread, and long bodies for their model."""
        steps = await with_decoded_bodies(self._create.steps, self._event.hold)
        body_bytes = sum(len(step.readable) for step in steps)
        if header_chars(steps) < OFF_LOOP_HEADER_CHARS and body_bytes < OFF_LOOP_BYTES:
            return plan(steps, self._ground)
        return await asyncio.to_thread(plan, steps, self._ground)

    async def _admit(self, settings: StepSettings) -> None:
        """Ask the gate, where there is one; and see how much of the bodies is wanted."""
        services = self._event.shared.services
        wanted = logged(settings, gateway_of(self._ground))
        if (wanted.collect_log, wanted.collect_log_payload) != (settings.collect_log, settings.collect_log_payload):
            self._event.record.warnings.append("collectLog and collectLogPayload are ignored: the gateway sets them.")
        if wanted.collect_log and wanted.collect_log_payload:
            self._event.record.head_bytes = services.payload_bytes
        if services.gate is not None:
            self._event.phase = "waiting"
            try:
                self._event.admission = await services.gate.admit(self._ground, settings)
            except asyncio.CancelledError:
                self._alarm.caught()
                raise total_timeout() from None

    def _skip(self, skipped: tuple[Skip, ...]) -> None:
        for step, reason in skipped:
            error = EveryStepSkipped(_SKIPPED[reason])
            now = self._loop.time()
            self._event.record.tried(step, self._steps[step].provider.slug, None, error, now, now)

    async def _back_off(self, wait_s: float) -> None:
        if wait_s:
            self._event.phase = "backing off"
            try:
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                self._alarm.caught()
                raise total_timeout() from None

    async def _finish(self, decision: Relay | GiveUp) -> None:
        """The last answer that a provider gave; the bridge's own error only if none gave any, or a stream was told."""
        event, whole = self._event, self._event.whole
        if isinstance(decision, GiveUp):
            self._skip(decision.skipped)
            whole = None if event.told else whole
        if whole is None:
            assert event.error is not None
            raise event.error
        await self._answer(whole)

    async def _answer(self, whole: Whole) -> None:
        """The last frame of an answer in one piece."""
        event, record = self._event, self._event.record
        self._alarm.deadlines.stop()  # the answer is there
        record.restarted = event.told is not None
        record.drop_stream()
        record.usage, record.reported, record.cached = whole.usage, whole.reported, whole.cached
        record.forget_answer()
        record.take(whole.body)
        if record.answered_at is None:
            record.answered_at = self._loop.time()
        raw = self._steps[whole.heading.step].step.settings.frames == "raw"
        encode = partial(event.voice.encoded, whole.body, whole.heading.content_type, raw=raw)
        encoded = encode() if len(whole.body) < OFF_LOOP_BYTES else await asyncio.to_thread(encode)
        metadata = self._closing(whole.heading, whole.error)
        self._last(partial(event.voice.answer, whole.heading, metadata, encoded, whole.error))
        if event.voice.is_full:
            await event.drained()  # its bytes count until they are taken

    def _done(self, heading: Heading) -> None:
        self._last(partial(self._event.voice.done, self._closing(heading, None)))

    def _fail(self, error: BridgeError) -> None:
        """The last frame of an event that failed: in place of an answer, or after one had begun."""
        event = self._event
        alias = event.record.byok_alias
        own = Heading(event.step, self._provider_slug(), error.status, "application/json", byok_alias=alias)
        metadata = self._closing(event.told or own, error)
        say = event.voice.fail if event.told is not None or self._alarm.cancelled is not None else event.voice.refuse
        self._last(partial(say, metadata, error))

    def _closing(self, heading: Heading, error: BridgeError | None) -> dict[str, object]:
        """The last word's metadata."""
        record = self._event.record
        if self._steps:
            record.model = self._steps[heading.step].model
            self._charges = charges_of(self._event, self._steps, self._steps[heading.step], error)
            record.cost = total(self._charges)
        return record.closing(heading, self._loop.time(), error)

    def _provider_slug(self) -> str | None:
        return self._steps[self._event.step].provider.slug if self._steps else None

    def _last(self, say: Callable[[], None]) -> None:
        if not self._ended:
            self._ended = True
            say()
            self._on_last()

    def _end(self) -> None:
        """Gives back everything, and tells those who watch. Cannot block."""
        if not self._ended:
            self._fail(self._alarm.cancelled or Cancelled("the event's task was cancelled"))
        event = self._event
        event.shared.running.discard(event)
        self._alarm.detach()
        event.hold.drop()
        if self._chain is not None:
            self._chain.abandon(self._loop.time())
        if event.admission is not None:
            event.admission.leave(self._charges)
        log.info("event", extra={"fields": event.record.log_fields(self.event_id)})
        if event.shared.services.observers:
            entry = entry_of(event.record, event.ground, self.event_id, self._create, self._steps)
            for observer in event.shared.services.observers:
                observer.ended(entry)


def new_id(now_ns: int | None = None) -> str:
    """A name for an event or its log row."""
    return uuid7((now_ns or time.time_ns()) // 1_000_000, random.getrandbits(74))
