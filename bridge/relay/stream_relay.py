"""Relay one stream to the client, read by read, within the call that brings the bytes; and judge how it ended."""

import asyncio
from dataclasses import replace
from typing import Final

from bridge.errors import BridgeError, BrokenStream
from bridge.formats.body_end import BodyEnd
from bridge.formats.decoders import Decoder
from bridge.formats.stream_reader import ProviderFault, StreamReader, StreamState, Verdict
from bridge.policy.chain import Broke, Cause, Chain, Failed, Outcome, PolicyRefusal, StepAnswered
from bridge.relay.context import RunningEvent
from bridge.relay.deadlines import Clock
from bridge.relay.event_state import ResponseHead, Streamed
from bridge.relay.failures import outcome_of, stream_error, timeout_error
from bridge.relay.plan import PlannedStep
from bridge.relay.stored_secrets import concealed_fault
from bridge.relay.stream_decoder import StreamDecoder
from bridge.relay.wakeup import Wakeup
from bridge.upstream.answer import UpstreamResponse, break_of

TURN_BYTES: Final = 65_536
"""Number of bytes that one event handles before other events run."""

HOLD_S: Final = 10.0
SILENCE_S: Final = 2.0
LINGER_S: Final = 1.0
"""Time for the rest of a body after the closing mark, if it is passed on."""
USAGE_S: Final = 0.1
"""Time to wait for usage after the closing mark, if nothing more is passed on."""


class StreamRelay:
    """Receives the stream of one attempt. Only the last attempt sends frames before the answer."""

    def __init__(
        self,
        event: RunningEvent,
        chain: Chain,
        planned: PlannedStep,
        answer: UpstreamResponse,
        head: ResponseHead,
        decoder: Decoder,
        wakeup: Wakeup,
        *,
        from_model: bool,
    ) -> None:
        """Create a relay; `from_model` is True for a stream of a model endpoint.

        `wakeup` wakes the event's task, which then looks at `is_over` or calls `catch_up`.
        """
        self.head = head
        self.has_answered = False
        """True once the chain was notified that the step answered."""
        self._is_started = False  # the first frame was sent
        self._counted_bytes = 0
        self._is_over = self._is_paused = False
        self._rest: memoryview | bytes = b""  # of a long read
        self._ending: StreamState | None = None
        self._error: Exception | None = None
        self._wakeup = wakeup
        self._break: BridgeError = BrokenStream("the provider's stream ended without its end mark")
        self._event = event
        self._state, self._writer = event.state, event.writer
        self._chain = chain
        self._planned = planned
        self._idle_ms = planned.step.settings.idle_timeout
        self._answer = answer
        self._deadlines = event.interrupt.deadlines
        self._touch = self._deadlines.touch
        self._is_finished = False  # the finish mark has come
        conceal = event.known.mask if event.known else None
        encoder = event.writer.stream_encoder(raw=planned.step.settings.frames == "raw", known=event.known)
        self._stream = StreamDecoder(decoder, StreamReader(from_model=from_model), encoder, conceal)
        self._end = None if head.items or head.content_type.startswith(("audio/", "video/")) else BodyEnd()

    @property
    def is_closed(self) -> bool:
        """True once the closing mark was received."""
        return self._stream.reader.closed

    def begin(self, head: bytes, *, last: bool) -> None:
        """Start with the first bytes of the body. No attempt follows the `last` one, so nothing is held back there."""
        self._state.reset_body()
        self._event.phase = "streaming"
        if last and head:
            self._start_stream()
        if head:
            self.data(head)

    @property
    def is_over(self) -> bool:
        """True once nothing more of the body is needed."""
        return self._is_over

    def conclude(self) -> Outcome | None:
        """Send what is left, and return None if the stream was complete, else the outcome.

        Raises the error that ended the relay: a timeout, or a limit of the bridge.
        """
        if self._error is not None:
            raise self._error
        return self._reported_error() if self._ending is None else self._conclude(self._ending)

    def close(self) -> None:
        """Record the counts and the usage for the event. Call it once, in every case."""
        self._is_over = True
        self._count(0)
        self._state.chunks += self._stream.chunks
        if self._is_started:
            self._keep_usage()
        self._warn_of_malformed()

    # Called by the source of the body. This is the hot path: one call of the decoder and one write per read.

    def data(self, data: bytes) -> None:
        if self._is_over:
            return
        try:
            self._state.add_body(data)
            if self._end is not None:
                self._end.add(data)
            if len(data) <= TURN_BYTES:
                self._relay(data)
            else:
                self._rest = memoryview(data)
                self._wait_for_task()
        except Exception as error:
            self._fail(error)

    def end(self) -> None:
        self._stop(StreamState.END)

    def failed(self, error: Exception) -> None:
        self._fail(break_of(error))

    # Called by the event's task.

    async def catch_up(self) -> None:
        """Relay a long read in turns, and wait for a client that does not read. Then the source goes on."""
        if not self._is_paused:
            return
        while self._rest and not self._is_over:
            turn, self._rest = self._rest[:TURN_BYTES], self._rest[TURN_BYTES:]
            try:
                self._relay(bytes(turn))
            except Exception as error:
                self._fail(error)
            if not self._writer.is_full:
                await asyncio.sleep(0)
            elif not self._is_over:
                await self._event.drain()
        if not self._is_over and self._writer.is_full:
            await self._event.drain()
        self._is_paused = False
        if not self._is_over:
            self._answer.resume()

    def interrupt(self) -> None:
        """End the relay because a deadline was reached or the event was cancelled.

        A complete answer stays complete. Raises CancelledError if the event was cancelled, else the timeout's error.
        """
        clock, reader = self._event.interrupt.consume(), self._stream.reader
        if self._is_over:
            return  # the end arrived in the same iteration of the loop
        self._is_over = True
        if reader.closed or clock is Clock.SILENCE:
            self._ending = StreamState.SILENT
            return
        error = timeout_error(clock, self._planned)
        if not reader.finished:
            raise error
        self._break = error
        self._ending = StreamState.CUT

    def _relay(self, data: bytes) -> None:
        stream, writer = self._stream, self._writer
        if parts := stream.feed(data):
            writer.write(parts)
        if stream.answered is not self.has_answered:
            self._answered()
        if stream.failed:
            self._stop(None)
        elif stream.is_over:
            self._stop(StreamState.END)
        else:
            if self._counted_bytes or stream.pending_bytes > TURN_BYTES:
                self._count(stream.pending_bytes)
            self._reset_deadlines()
            if writer.is_full:
                self._wait_for_task()

    def _wait_for_task(self) -> None:
        """Stop the source until the event's task has caught up."""
        if not self._is_paused:
            self._is_paused = True
            self._answer.pause()
            self._wakeup.set()

    def _stop(self, ending: StreamState | None) -> None:
        if not self._is_over:
            self._is_over, self._ending = True, ending
            self._wakeup.set()
            if ending is None:
                self._answer.pause()  # nothing more is needed, and the event's task closes it

    def _fail(self, error: Exception) -> None:
        if isinstance(error, BrokenStream):
            self._break = BrokenStream(f"the provider's stream was cut: {error}")
            self._stop(StreamState.CUT)
        elif not self._is_over:
            self._error = error
            self._stop(None)

    def _keep_usage(self) -> None:
        state, stream = self._state, self._stream
        source = stream.reader if self._end is None else self._end.read()
        state.usage, state.reported = source.usage, source.costs
        state.streamed = Streamed(
            self.head, source.usage, source.costs, state.answer_bytes, stream.chunks, self._answer.cached
        )

    def _count(self, pending_bytes: int) -> None:
        """Count a long incomplete item in the memory reservation. Raises OutOfMemoryBudget."""
        counted = pending_bytes if pending_bytes > TURN_BYTES else 0
        if counted != self._counted_bytes:
            self._event.reservation.release(self._counted_bytes)
            self._counted_bytes = 0
            if counted:
                self._event.reservation.add(counted)
                self._counted_bytes = counted

    def _reset_deadlines(self) -> None:
        """Restart the deadline of the next read. Usually this is one assignment."""
        self._touch()
        reader = self._stream.reader
        if reader.closed:
            if not self._deadlines.is_set(Clock.LINGER):
                self._deadlines.clear(Clock.IDLE, Clock.SILENCE)
                self._deadlines.set(Clock.LINGER, LINGER_S if self._stream.passes_all else USAGE_S)
        elif reader.finished is not self._is_finished:
            self._is_finished = reader.finished
            self._change_silence()
        if not self.has_answered and self._stream.is_holding and not self._deadlines.is_set(Clock.HOLD):
            self._event.interrupt.on_hold_over = self._answered
            self._deadlines.set(Clock.HOLD, HOLD_S)

    def _change_silence(self) -> None:
        """Limit the silence as the finish mark says, which a later item may revoke."""
        if self._is_finished:
            self._deadlines.clear(Clock.IDLE)
            self._deadlines.set(Clock.SILENCE, SILENCE_S)
        else:
            self._deadlines.clear(Clock.SILENCE)
            self._deadlines.set_ms(Clock.IDLE, self._idle_ms)

    def _answered(self) -> None:
        self.has_answered = self._stream.answered = True
        state = self._state
        if state.answered_at is None:
            state.answered_at = asyncio.get_running_loop().time()
        self._deadlines.clear(Clock.REQUEST, Clock.HOLD)
        self._report_to_chain(StepAnswered())
        self._start_stream()

    def _report_to_chain(self, answered: StepAnswered) -> None:
        self._chain.next(answered, asyncio.get_running_loop().time(), 0.0)

    def _start_stream(self) -> None:
        """Send the first frame, and the frames that were held back."""
        if self._is_started:
            return
        self._is_started = True
        event = self._event
        event.state.restarted = event.announced is not None
        event.state.drop_stream()
        event.announced = self.head
        event.set_buffered(None)
        event.writer.start_stream(
            self.head, event.state.first_metadata(self.head, success=True), self._stream.release()
        )

    def _conclude(self, ending: StreamState) -> Outcome | None:
        stream = self._stream
        clean_end_is_complete = self._planned.provider.ended_without_mark == "done"
        parts, verdict = stream.finish(ending, clean_end_is_complete=clean_end_is_complete)
        self._writer.write(parts)
        is_complete = verdict in {Verdict.COMPLETE, Verdict.COMPLETE_CUT} and not stream.failed
        if (stream.answered or is_complete) and not self.has_answered:
            self._answered()
        if stream.failed:
            return self._reported_error()
        if is_complete:
            self._report_to_chain(StepAnswered(complete=True))
            self._warn_of(verdict)
            if verdict is Verdict.COMPLETE:
                self._answer.mark_complete()
            return None
        if verdict is Verdict.EMPTY:
            self._break = BrokenStream("the provider's stream was empty")
        self._event.error = self._break
        return Broke() if self.has_answered else Failed(Cause.BREAK)

    def _warn_of(self, verdict: Verdict) -> None:
        if verdict is Verdict.COMPLETE_CUT:
            self._state.warnings.append("the connection was cut after the answer's end; usage may be missing")

    def _warn_of_malformed(self) -> None:
        if self._is_started and (count := self._stream.reader.malformed):
            items = "one item" if count == 1 else f"{count} items"
            self._state.warnings.append(f"{items} of the stream could not be parsed and came as text")

    def _reported_error(self) -> Outcome:
        fault = self._stream.reader.fault
        assert fault is not None
        fault = concealed_fault(fault, self._event.known)
        self._event.error = stream_error(fault)
        outcome = self._outcome_of(fault)
        if self._is_started:
            self._event.announced = replace(self.head, status=fault.status)
        return outcome

    def _outcome_of(self, fault: ProviderFault) -> Outcome:
        if self.has_answered:
            return Broke(Cause.STATUS, fault.status, is_known=not fault.is_unknown)
        outcome = outcome_of(fault, fault.status)
        if isinstance(outcome, PolicyRefusal) and self._planned.policy.on_policy == "answer":
            self._start_stream()  # the refusal is passed on as the answer
        return outcome
