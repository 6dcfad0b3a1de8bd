"""Relay one stream to the client, read by read, and return its outcome."""

import asyncio
from collections.abc import Iterable
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
from bridge.upstream.answer import UpstreamResponse

TURN_BYTES: Final = 65_536
"""Number of bytes that one event handles before other events run."""

HOLD_S: Final = 10.0
SILENCE_S: Final = 2.0
LINGER_S: Final = 1.0
"""Time for the rest of a body after the closing mark, if it is passed on."""
USAGE_S: Final = 0.1
"""Time to wait for usage after the closing mark, if nothing more is passed on."""


class StreamRelay:
    """Relays the stream of one attempt. Call `run` once. Only the last attempt sends frames before the answer."""

    def __init__(
        self,
        event: RunningEvent,
        chain: Chain,
        planned: PlannedStep,
        answer: UpstreamResponse,
        head: ResponseHead,
        decoder: Decoder,
        *,
        from_model: bool,
    ) -> None:
        """Create a relay; `from_model` is True for a stream of a model endpoint."""
        self.head = head
        self.has_answered = False
        """True once the chain was notified that the step answered."""
        self._is_started = False  # the first frame was sent
        self._counted_bytes = 0
        self._break: BridgeError = BrokenStream("the provider's stream ended without its end mark")
        self._event = event
        self._chain = chain
        self._planned = planned
        self._idle_ms = planned.step.settings.idle_timeout
        self._answer = answer
        self._deadlines = event.interrupt.deadlines
        conceal = event.known.mask if event.known else None
        encoder = event.writer.stream_encoder(raw=planned.step.settings.frames == "raw", known=event.known)
        self._stream = StreamDecoder(decoder, StreamReader(from_model=from_model), encoder, conceal)
        self._end = None if head.items or head.content_type.startswith(("audio/", "video/")) else BodyEnd()

    @property
    def is_closed(self) -> bool:
        """True once the closing mark was received."""
        return self._stream.reader.closed

    async def run(self, head: bytes, *, last: bool) -> Outcome | None:
        """Relay the stream, of which `head` was read already. Return None if it was complete, else the outcome."""
        state, stream = self._event.state, self._stream
        state.reset_body()
        self._event.phase = "streaming"
        if last and head:
            self._start_stream()  # no attempt can follow, so nothing is held back
        try:
            ending = await self._until_it_ends(head)
            return self._reported_error() if ending is None else self._conclude(ending)
        finally:
            self._count(0)
            state.chunks += stream.chunks
            if self._is_started:
                self._keep_usage()
            self._warn_of_malformed()

    def _keep_usage(self) -> None:
        state, stream = self._event.state, self._stream
        source = stream.reader if self._end is None else self._end.read()
        state.usage, state.reported = source.usage, source.costs
        state.streamed = Streamed(
            self.head, source.usage, source.costs, state.answer_bytes, stream.chunks, self._answer.cached
        )

    async def _until_it_ends(self, head: bytes) -> StreamState | None:
        """Relay the body and return how it ended; None if the stream reported an error."""
        try:
            return await self._relay(head)
        except BrokenStream as error:
            self._break = BrokenStream(f"the provider's stream was cut: {error}")
            return StreamState.CUT
        except asyncio.CancelledError:
            return self._interrupted()

    async def _relay(self, data: bytes) -> StreamState | None:
        """Relay the reads: one await, one call of the decoder and one write for each. This is the hot path."""
        stream, writer, read, add_body = self._stream, self._event.writer, self._answer.read, self._event.state.add_body
        end = self._end
        while data:
            add_body(data)
            if end is not None:
                end.add(data)
            for piece in _slices(data):
                if parts := stream.feed(piece):
                    writer.write(parts)
                if stream.answered is not self.has_answered:
                    self._answered()
                if stream.failed:
                    return None
                if stream.is_over:
                    return StreamState.END
                self._count(stream.pending_bytes)
                self._reset_deadlines()
                if writer.is_full:
                    await self._event.drain()
                elif piece is not data or self._counted_bytes:
                    await asyncio.sleep(0)
            data = await read()
        return StreamState.END

    def _count(self, pending_bytes: int) -> None:
        """Count a long incomplete item in the memory reservation. Raises OutOfMemoryBudget."""
        counted = pending_bytes if pending_bytes > TURN_BYTES else 0
        if counted != self._counted_bytes:
            self._event.reservation.release(self._counted_bytes)
            self._counted_bytes = 0
            if counted:
                self._event.reservation.add(counted)
                self._counted_bytes = counted

    def _interrupted(self) -> StreamState:
        """Return the state after a deadline was reached: a complete answer stays complete. Else raise its error."""
        clock, reader = self._event.interrupt.consume(), self._stream.reader
        if reader.closed or clock is Clock.SILENCE:
            return StreamState.SILENT
        error = timeout_error(clock, self._planned)
        if not reader.finished:
            raise error
        self._break = error
        return StreamState.CUT

    def _reset_deadlines(self) -> None:
        """Set the deadline of the next read. Usually this is one assignment."""
        reader, deadlines = self._stream.reader, self._deadlines
        if reader.closed:
            if not deadlines.is_set(Clock.LINGER):
                deadlines.clear(Clock.IDLE, Clock.SILENCE)
                deadlines.set(Clock.LINGER, LINGER_S if self._stream.passes_all else USAGE_S)
        elif reader.finished:
            deadlines.clear(Clock.IDLE)
            deadlines.set(Clock.SILENCE, SILENCE_S)
        else:
            deadlines.clear(Clock.SILENCE)
            deadlines.set_ms(Clock.IDLE, self._idle_ms)
            if self._stream.is_holding and not deadlines.is_set(Clock.HOLD):
                self._event.interrupt.on_hold_over = self._answered
                deadlines.set(Clock.HOLD, HOLD_S)

    def _answered(self) -> None:
        self.has_answered = self._stream.answered = True
        state = self._event.state
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
        self._event.writer.write(parts)
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
            self._event.state.warnings.append("the connection was cut after the answer's end; usage may be missing")

    def _warn_of_malformed(self) -> None:
        if self._is_started and (count := self._stream.reader.malformed):
            items = "one item" if count == 1 else f"{count} items"
            self._event.state.warnings.append(f"{items} of the stream could not be parsed and came as text")

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


def _slices(data: bytes) -> Iterable[bytes]:
    if len(data) <= TURN_BYTES:
        return (data,)
    return (data[start : start + TURN_BYTES] for start in range(0, len(data), TURN_BYTES))
