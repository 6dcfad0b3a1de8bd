"""Runs one event from its first message to its last frame: the only place where decisions meet I/O.

The way of the data, top to bottom: `run` drives the chain; `_attempt` makes one call; `_take` looks at what kind of
answer came; `_stream` passes a stream on, read by read; `_finish` says the last word.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

from bridge.budget import Hold
from bridge.deadlines import Clock, Deadlines
from bridge.errors import (
    BridgeError,
    BrokenStream,
    ConnectFailed,
    ConnectTimeout,
    EveryStepSkipped,
    IdleTimeout,
    InternalError,
    NoAnswerInTime,
    ProviderErrorInStream,
    ProviderStatus,
    ResetBeforeAnswer,
    TlsFailed,
    TotalTimeout,
    UnusableAnswer,
)
from bridge.plan import Ground, PlannedStep, plan
from bridge.policy.backoff import asked_ms
from bridge.policy.breaker import Breakers
from bridge.policy.chain import (
    RETRIED_STATUSES,
    Answered,
    Broke,
    Cause,
    Chain,
    Failed,
    GiveUp,
    Outcome,
    Reason,
    Refused,
    Relay,
    Try,
)
from bridge.record import Heading, Record
from bridge.upstream.http import Answer, Call, Upstream
from bridge.wire.body import Shape, decoder_for, sniff
from bridge.wire.dialects import Ending, StreamReader, Verdict, read_answer
from bridge.wire.frames import EventFrames, error_body, error_object, response_field
from bridge.wire.ids import uuid7
from bridge.wire.messages import Create
from bridge.wire.stream import Stream

log = logging.getLogger("bridge.event")

TURN_BYTES: Final = 65_536
"""What one event may pass on before its neighbours have a turn."""

HOLD_S: Final = 10.0
SILENCE_S: Final = 2.0
LINGER_S: Final = 1.0

OFF_LOOP_BYTES: Final = 1 << 20
"""From here on, work in proportion to a text's length is done in a thread, so that neighbours are not kept waiting."""

_CAUSES: Final[dict[type[BridgeError], Cause]] = {
    ConnectFailed: Cause.CONNECT,
    ConnectTimeout: Cause.TIMEOUT,
    TlsFailed: Cause.TLS,
    ResetBeforeAnswer: Cause.RESET,
    BrokenStream: Cause.BREAK,
    NoAnswerInTime: Cause.TIMEOUT,
    IdleTimeout: Cause.TIMEOUT,
}
"""Any other error is UNUSABLE: nothing that the same step would do better."""

_LABELS: Final[dict[Shape, tuple[str, ...]]] = {
    Shape.SSE: ("text/event-stream",),
    Shape.NDJSON: ("application/x-ndjson", "application/jsonl", "application/stream+json"),
}
"""What a stream of this shape is called; a mislabelled one gets the first."""


class Sink(Protocol):
    """Where an event's frames go."""

    @property
    def is_full(self) -> bool:
        """Whether frames stand in line: then wait for `drained` before the provider is read on."""

    def send(self, frames: list[bytes]) -> None:
        """Never blocks, never fails: frames for a peer that is gone are dropped."""

    async def drained(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What all events of the process share."""

    upstream: Upstream
    breakers: Breakers
    max_item_bytes: int


@dataclass(frozen=True, slots=True)
class _Whole:
    """An answer in one piece."""

    heading: Heading
    body: bytes
    error: BridgeError | None


@dataclass(slots=True)
class _Live:
    """The stream of the attempt under way."""

    stream: Stream
    heading: Heading
    is_told: bool = False
    """The client has its first frame."""
    has_answered: bool = False
    """The chain knows that the step has answered."""


class EventRelay:
    """One event. `run` is its task; `cancel` may be called at any time, and more than once."""

    def __init__(
        self,
        create: Create,
        event_id: bytes,
        ground: Ground,
        shared: Shared,
        sink: Sink,
        hold: Hold,
        on_last: Callable[[], None],
        *,
        compat: bool,
    ) -> None:
        self.event_id = event_id
        self.phase = "starting"
        self.step = 0
        self._loop = asyncio.get_running_loop()
        self._create = create
        self._ground = ground
        self._shared = shared
        self._sink = sink
        self._hold = hold
        self._on_last = on_last
        self._frames = EventFrames(event_id, compat=compat)
        self._deadlines = Deadlines(self._loop, self._strike)
        self._record = Record(new_id(), ground.gateway, self._loop.time(), create.warnings)
        self._steps: list[PlannedStep] = []
        self._chain: Chain | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelled: BridgeError | None = None
        self._struck: Clock | None = None
        self._ended = False
        self._error: BridgeError | None = None  # of the attempt made last
        self._whole: _Whole | None = None  # the answer in one piece that a provider gave last
        self._live: _Live | None = None
        self._told: Heading | None = None  # of the stream that the client was told of last

    async def run(self) -> None:
        """Ends with exactly one last frame, whatever happens."""
        self._task = asyncio.current_task()
        try:
            if self._cancelled is None:
                await self._drive()
        except asyncio.CancelledError:
            if self._cancelled is None:
                raise
        except BridgeError as error:
            self._fail(error)
        except Exception:
            log.exception("an event failed for a reason that nobody expected")
            self._fail(InternalError(f"internal error; the bridge's log tells more under {self._record.log_id}"))
        finally:
            self._end()

    def refuse(self, error: BridgeError) -> None:
        """In place of `run`: the event ends before it has begun."""
        self._fail(error)
        self._end()

    def cancel(self, error: BridgeError) -> None:
        """Stop in whatever phase it is; `error` becomes the last frame's."""
        if self._ended or self._cancelled is not None:
            return
        self._cancelled = error
        if self._task is not None:  # else it has not begun, and sees at its beginning that it need not
            self._task.cancel()

    async def _drive(self) -> None:
        self._steps = plan(self._create.steps, self._ground)
        self._chain = chain = Chain([planned.policy for planned in self._steps], self._shared.breakers)
        self._deadlines.set_ms(Clock.TOTAL, self._steps[0].step.settings.total_timeout)
        decision = chain.start(self._loop.time())
        while isinstance(decision, Try):
            self._skip(decision.skipped)
            outcome = await self._attempt(decision)
            if outcome is None:
                return
            decision = chain.next(outcome, self._loop.time(), random.random())  # noqa: S311 - spreads a pause
        await self._finish(decision)

    async def _attempt(self, go: Try) -> Outcome | None:
        """One call. None when it answered with a stream that was whole: then the event has its last frame."""
        planned = self._steps[go.step]
        await self._back_off(go.wait_s, planned)
        self.step, self._error, self._live = go.step, None, None
        began_at, status = self._loop.time(), None
        try:
            answer = await self._open(planned)
            status = answer.status
            try:
                outcome = await self._take(answer, planned, go)
            finally:
                await answer.aclose()
        except asyncio.CancelledError:
            outcome = self._failed(self._timeout(planned))
        except BridgeError as error:
            outcome = self._failed(error)
        finally:
            self._deadlines.keep_only(Clock.TOTAL)
            self._record.tried(go.step, planned.provider.slug, status, self._error, self._loop.time() - began_at)
        if outcome is None:
            self._done()
        return outcome

    async def _back_off(self, wait_s: float, planned: PlannedStep) -> None:
        if wait_s:
            self.phase = "backing off"
            try:
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                raise self._timeout(planned) from None

    async def _open(self, planned: PlannedStep) -> Answer:
        self.phase = "connecting"
        step, settings = planned.step, planned.step.settings
        self._record.model = planned.model
        self._deadlines.set_ms(Clock.CONNECT, settings.connect_timeout)
        self._deadlines.set_ms(Clock.REQUEST, settings.request_timeout)
        call = Call(
            method=step.method,
            target=planned.target,
            headers=list(step.provider_headers.items()),
            body=step.body,
            on_connected=self._connected,
            max_connections=planned.provider.max_connections,
        )
        answer = await self._shared.upstream.open(call)
        self._connected()
        self._deadlines.set_ms(Clock.IDLE, settings.idle_timeout)
        return answer

    def _connected(self) -> None:
        self.phase = "waiting"
        self._deadlines.clear(Clock.CONNECT)

    async def _take(self, answer: Answer, planned: PlannedStep, go: Try) -> Outcome | None:
        head = b""
        if 200 <= answer.status < 300:
            shape, head = await self._sniff(answer, planned)
            if shape is not Shape.WHOLE:
                return await self._stream(answer, planned, shape, head, go)
        return self._judge(answer, planned, await self._collect(answer, planned, head))

    async def _sniff(self, answer: Answer, planned: PlannedStep) -> tuple[Shape, bytes]:
        """What sort of body it is, and what had to be read of it to know."""
        path = planned.target.raw_path.partition(b"?")[0].decode()
        head = b""
        while True:
            data = await self._read(answer, planned)
            head += data
            shape = sniff(answer.content_type, path, head, ended=not data)
            if shape is not None:
                return shape, head

    async def _collect(self, answer: Answer, planned: PlannedStep, head: bytes) -> bytes:
        """The whole body of an answer in one piece. Raises OutOfMemoryBudget."""
        self._hold.add(len(head))
        parts = [head]
        while data := await self._read(answer, planned):
            self._hold.add(len(data))
            parts.append(data)
        return b"".join(parts)

    async def _read(self, answer: Answer, planned: PlannedStep) -> bytes:
        """One read of a body of which the client knows nothing yet: to break off here is to give no answer."""
        try:
            data = await answer.read()
        except BrokenStream as error:
            raise ResetBeforeAnswer(str(error)) from None
        self._deadlines.set_ms(Clock.IDLE, planned.step.settings.idle_timeout)
        return data

    def _judge(self, answer: Answer, planned: PlannedStep, body: bytes) -> Outcome:
        """What an answer in one piece means to the chain; it is kept, for it may be the last that a provider gives."""
        found = read_answer(answer.status, body)
        self._record.usage, self._record.cost = found.usage, found.cost
        heading = _heading(answer, planned, self.step, answer.content_type)
        if 200 <= answer.status < 300:
            self._whole = _Whole(heading, body, None)
            return Answered()
        if found.fault is None:
            self._error = UnusableAnswer(f"the provider answered HTTP {answer.status}; redirects are not followed")
            self._whole = _Whole(heading, body, self._error)
            return Failed(Cause.REDIRECT)
        pause_ms = asked_ms(answer.headers, time.time())
        is_retryable = answer.status in RETRIED_STATUSES and not found.fault.exhausted_quota
        self._error = ProviderStatus(
            answer.status, found.fault.message, retryable=is_retryable, retry_after_ms=pause_ms
        )
        self._whole = _Whole(heading, body, self._error)
        if found.fault.policy_refusal:
            return Refused()
        return Failed(Cause.STATUS, answer.status, pause_ms, found.fault.exhausted_quota)

    async def _stream(self, answer: Answer, planned: PlannedStep, shape: Shape, head: bytes, go: Try) -> Outcome | None:
        settings = planned.step.settings
        decoder = decoder_for(shape, self._shared.max_item_bytes)
        stream = Stream(decoder, StreamReader(), self._frames, raw=settings.frames == "raw")
        live = self._live = _Live(stream, _heading(answer, planned, self.step, _label(answer.content_type, shape)))
        if go.last:
            self._tell(live)  # nothing can come after it, so nothing is held back
        try:
            ending = await self._pass_on(answer, live, head, settings.idle_timeout)
            if ending is None:
                return self._failed_in_stream(live)
            return self._conclude(live, ending, clean_end_is_whole=planned.provider.ended_without_mark == "done")
        finally:
            self._record.chunks = stream.chunks
            self._record.usage, self._record.cost = stream.reader.usage, stream.reader.cost

    async def _pass_on(self, answer: Answer, live: _Live, data: bytes, idle_ms: int) -> Ending | None:
        """The hot path: per read one await for the bytes, one call that makes frames of them, one write.

        Returns how the body ended; None when the provider reported an error inside it.
        """
        self.phase = "streaming"
        stream, sink = live.stream, self._sink
        try:
            while data:
                for turn in _turns(data):
                    if frames := stream.feed(turn):
                        sink.send(frames)
                    if stream.answered is not live.has_answered:
                        self._answered(live)
                    if stream.failed:
                        return None
                    if sink.is_full:
                        await self._drained()
                self._set_next_read(live, idle_ms)
                data = await answer.read()
        except BrokenStream:
            return Ending.CUT
        except asyncio.CancelledError:
            if self._struck not in {Clock.SILENCE, Clock.LINGER} or self._cancelled is not None:
                raise
            self._struck_only()
            return Ending.SILENT
        return Ending.END

    def _set_next_read(self, live: _Live, idle_ms: int) -> None:
        """Until when the next read may last. One assignment, but at a stream's beginning and end."""
        reader, deadlines = live.stream.reader, self._deadlines
        if reader.closed:
            if not deadlines.is_set(Clock.LINGER):
                deadlines.set(Clock.LINGER, LINGER_S)
        elif reader.finished:
            deadlines.set(Clock.SILENCE, SILENCE_S)
        else:
            deadlines.clear(Clock.SILENCE)
            deadlines.set_ms(Clock.IDLE, idle_ms)
            if not live.has_answered and not live.is_told and not deadlines.is_set(Clock.HOLD):
                deadlines.set(Clock.HOLD, HOLD_S)

    def _answered(self, live: _Live) -> None:
        assert self._chain is not None
        live.has_answered = live.stream.answered = True
        self._deadlines.clear(Clock.REQUEST, Clock.HOLD)
        self._chain.next(Answered(), self._loop.time(), 0.0)
        self._tell(live)

    def _tell(self, live: _Live) -> None:
        """The stream's first frame, and behind it what was held back."""
        if live.is_told:
            return
        live.is_told = True
        self._record.restarted = self._told is not None
        self._told = live.heading
        opened = self._frames.opened(self._record.opening(live.heading, success=True))
        self._sink.send([opened, *live.stream.release()])

    async def _drained(self) -> None:
        self._deadlines.stand_still()
        try:
            await self._sink.drained()
        finally:
            self._deadlines.go_on()

    def _conclude(self, live: _Live, ending: Ending, *, clean_end_is_whole: bool) -> Outcome | None:
        stream = live.stream
        frames, verdict = stream.finish(ending, clean_end_is_whole=clean_end_is_whole)
        self._sink.send(frames)
        if stream.answered and not live.has_answered:
            self._answered(live)
        if stream.failed:
            return self._failed_in_stream(live)
        match verdict:
            case Verdict.WHOLE:
                return None
            case Verdict.WHOLE_CUT:
                self._record.warnings.append("the connection was cut after the answer's end; usage may be missing")
                return None
            case Verdict.EMPTY:
                return self._failed(UnusableAnswer("the provider's stream was empty"), Cause.BREAK)
            case Verdict.BROKEN:
                how = "ended without its end mark" if ending is Ending.END else "was cut"
                return self._failed(BrokenStream(f"the provider's stream {how}"))
            case _:
                assert_never(verdict)

    def _failed_in_stream(self, live: _Live) -> Outcome:
        fault = live.stream.reader.fault
        assert fault is not None
        is_retryable = fault.status in RETRIED_STATUSES and not fault.exhausted_quota
        self._error = ProviderErrorInStream(fault.message, retryable=is_retryable)
        if live.has_answered:
            return Broke(Cause.STATUS, fault.status)
        return Failed(Cause.STATUS, fault.status, exhausted_quota=fault.exhausted_quota)

    def _failed(self, error: BridgeError, cause: Cause | None = None) -> Outcome:
        self._error = error
        cause = cause or _CAUSES.get(type(error), Cause.UNUSABLE)
        return Broke(cause) if self._live is not None and self._live.has_answered else Failed(cause)

    def _strike(self, clock: Clock) -> None:
        """A deadline is reached."""
        assert self._task is not None
        if clock is Clock.HOLD:
            assert self._live is not None
            self._answered(self._live)
        elif self._struck is None:
            self._struck = clock
            self._task.cancel()

    def _timeout(self, planned: PlannedStep) -> BridgeError:
        """Called where a CancelledError was caught: the error of the clock that struck, else the cancellation goes on."""
        clock = self._struck_only()
        settings, slug = planned.step.settings, planned.provider.slug
        match clock:
            case Clock.CONNECT:
                return ConnectTimeout(f"{slug}: no connection within {settings.connect_timeout} ms (connectTimeout)")
            case Clock.REQUEST:
                return NoAnswerInTime(f"{slug}: no answer within {settings.request_timeout} ms (requestTimeout)")
            case Clock.IDLE:
                return IdleTimeout(f"{slug}: silent for {settings.idle_timeout} ms (idleTimeout)")
            case _:
                total_ms = self._steps[0].step.settings.total_timeout
                self._error = TotalTimeout(f"the event was not over within {total_ms} ms (totalTimeout)")
                raise self._error

    def _struck_only(self) -> Clock:
        """The clock that interrupted the task; raises CancelledError anew when it was not a clock alone."""
        clock, self._struck = self._struck, None
        if clock is None or self._cancelled is not None:
            raise asyncio.CancelledError
        assert self._task is not None
        self._task.uncancel()
        return clock

    def _skip(self, steps: tuple[int, ...]) -> None:
        for step in steps:
            error = EveryStepSkipped("skipped: the provider keeps failing")
            self._record.tried(step, self._steps[step].provider.slug, None, error, 0.0)

    async def _finish(self, decision: Relay | GiveUp) -> None:
        if isinstance(decision, GiveUp):
            self._skip(decision.skipped)
            if decision.reason is Reason.SKIPPED:
                raise EveryStepSkipped(
                    "every step's provider keeps failing and is being probed", retry_after_ms=decision.retry_after_ms
                )
            if self._told is not None or self._whole is None:
                assert self._error is not None
                raise self._error
        assert self._whole is not None
        await self._answer(self._whole)

    async def _answer(self, whole: _Whole) -> None:
        """The last frame of an answer in one piece."""
        self._record.restarted = self._told is not None
        in_thread = len(whole.body) >= OFF_LOOP_BYTES
        field = (
            response_field(whole.body, whole.heading.content_type)
            if not in_thread
            else (await asyncio.to_thread(response_field, whole.body, whole.heading.content_type))
        )
        metadata = self._record.closing(whole.heading, self._loop.time(), whole.error)
        self._last(self._frames.answered(metadata, field, error_object(whole.error) if whole.error else None))
        if self._sink.is_full:
            await self._drained()  # its bytes count until they are taken

    def _done(self) -> None:
        assert self._live is not None
        self._last(self._frames.done(self._record.closing(self._live.heading, self._loop.time(), None)))

    def _fail(self, error: BridgeError) -> None:
        """The last frame of an event that failed for `error`: in place of an answer, or after one had begun."""
        now = self._loop.time()
        own = Heading(self.step, self._provider_slug(), error.status, "application/json")
        heading = self._told or own
        metadata = self._record.closing(heading, now, error) | {"status": error.status}
        if self._told is not None or self._cancelled is not None:
            self._last(self._frames.failed(metadata, error_object(error)))
        else:
            field = response_field(error_body(error), "application/json")
            self._last(self._frames.answered(metadata, field, error_object(error)))

    def _provider_slug(self) -> str:
        steps = self._create.steps
        return steps[self.step].provider if steps else ""

    def _last(self, frame: bytes) -> None:
        if not self._ended:
            self._ended = True
            self._sink.send([frame])
            self._on_last()

    def _end(self) -> None:
        """Gives back everything, and tells the log. Cannot block."""
        if self._cancelled is not None:
            self._fail(self._cancelled)
        self._deadlines.stop()
        self._hold.drop()
        if self._chain is not None:
            self._chain.abandon(self._loop.time())
        log.info("event", extra={"fields": self._record.log_fields(self.event_id)})


def new_id() -> str:
    """A name for an event or its log row."""
    return uuid7(time.time_ns() // 1_000_000, random.getrandbits(74))  # noqa: S311 - a name, no secret


def _heading(answer: Answer, planned: PlannedStep, step: int, content_type: str) -> Heading:
    return Heading(step, planned.provider.slug, answer.status, content_type, answer.public_headers)


def _label(content_type: str, shape: Shape) -> str:
    """What the client is told the stream is: the provider's word for it, unless that was wrong."""
    labels = _LABELS.get(shape)
    return content_type if labels is None or content_type in labels else labels[0]


def _turns(data: bytes) -> Iterable[bytes]:
    if len(data) <= TURN_BYTES:
        return (data,)
    return (data[start : start + TURN_BYTES] for start in range(0, len(data), TURN_BYTES))
