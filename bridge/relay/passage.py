"""Passes one stream on to the client, read by read, and says what became of it."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from bridge.errors import BridgeError, BrokenStream
from bridge.policy.chain import Answered, Broke, Cause, Chain, Failed, Outcome, Refused
from bridge.relay.deadlines import Clock
from bridge.relay.event import Event
from bridge.relay.outcomes import outcome_of, stream_error, timeout_error
from bridge.relay.plan import PlannedStep
from bridge.relay.record import Heading, Streamed
from bridge.relay.stored_secrets import concealed_fault
from bridge.upstream.answer import Answer
from bridge.wire.body import Decoder
from bridge.wire.body_end import BodyEnd
from bridge.wire.dialects import Ending, Fault, StreamReader, Verdict
from bridge.wire.stream import Stream

TURN_BYTES: Final = 65_536
"""What one event may pass on before its neighbours have a turn."""

HOLD_S: Final = 10.0
SILENCE_S: Final = 2.0
LINGER_S: Final = 1.0
"""How long the rest of a body is read after the closing mark, where it is passed on."""
USAGE_S: Final = 0.1
"""How long usage is waited for after the closing mark, where nothing more is passed on."""


class Passage:
    """One stream of one attempt. `run` once. Until the step has answered nothing is told, unless it is the last."""

    def __init__(
        self,
        event: Event,
        chain: Chain,
        planned: PlannedStep,
        answer: Answer,
        heading: Heading,
        decoder: Decoder,
        *,
        from_model: bool,
    ) -> None:
        """`from_model`: the stream is a model endpoint's."""
        self.heading = heading
        self.has_answered = False
        """The chain knows that the step has answered."""
        self._is_told = False  # the client has been told that it begins
        self._counted_bytes = 0
        self._break: BridgeError = BrokenStream("the provider's stream ended without its end mark")
        self._event = event
        self._chain = chain
        self._planned = planned
        self._idle_ms = planned.step.settings.idle_timeout
        self._answer = answer
        self._deadlines = event.alarm.deadlines
        conceal = event.known.hidden_in if event.known else None
        carrier = event.voice.carrier(raw=planned.step.settings.frames == "raw", conceal=conceal)
        self._stream = Stream(decoder, StreamReader(from_model=from_model), carrier, conceal)
        self._end = None if heading.items or heading.content_type.startswith(("audio/", "video/")) else BodyEnd()

    @property
    def is_closed(self) -> bool:
        """The closing mark has come."""
        return self._stream.reader.closed

    async def run(self, head: bytes, *, last: bool) -> Outcome | None:
        """`head` was read already. None when the stream was passed on to its end, and whole."""
        record, stream = self._event.record, self._stream
        record.forget_answer()
        self._event.phase = "streaming"
        if last and head:
            self._tell()  # nothing can come after it, so nothing is held back
        try:
            ending = await self._until_it_ends(head)
            return self._failed_inside() if ending is None else self._conclude(ending)
        finally:
            self._count(0)
            record.chunks += stream.chunks
            if self._is_told:
                self._keep_usage()
            self._warn_of_malformed()

    def _keep_usage(self) -> None:
        record, stream = self._event.record, self._stream
        told = stream.reader if self._end is None else self._end.read()
        record.usage, record.reported = told.usage, told.costs
        record.streamed = Streamed(
            self.heading, told.usage, told.costs, record.answer_bytes, stream.chunks, self._answer.cached
        )

    async def _until_it_ends(self, head: bytes) -> Ending | None:
        """How the body ended; None when the provider reported an error inside it."""
        try:
            return await self._pass_on(head)
        except BrokenStream as error:
            self._break = BrokenStream(f"the provider's stream was cut: {error}")
            return Ending.CUT
        except asyncio.CancelledError:
            return self._interrupted()

    async def _pass_on(self, data: bytes) -> Ending | None:
        """The hot path: per read one await for the bytes, one call that makes frames of them, one write."""
        stream, voice, read, take = self._stream, self._event.voice, self._answer.read, self._event.record.take
        end = self._end
        while data:
            take(data)
            if end is not None:
                end.add(data)
            for turn in _turns(data):
                if parts := stream.feed(turn):
                    voice.say(parts)
                if stream.answered is not self.has_answered:
                    self._answered()
                if stream.failed:
                    return None
                if stream.is_over:
                    return Ending.END
                self._count(stream.pending_bytes)
                self._wind_clocks()
                if voice.is_full:
                    await self._event.drained()
                elif turn is not data:
                    await asyncio.sleep(0)
            data = await read()
        return Ending.END

    def _count(self, pending_bytes: int) -> None:
        """An item that is long in coming is held, and counts as such. Raises OutOfMemoryBudget."""
        counted = pending_bytes if pending_bytes > TURN_BYTES else 0
        if counted != self._counted_bytes:
            self._event.hold.give(self._counted_bytes)
            self._counted_bytes = 0
            if counted:
                self._event.hold.add(counted)
                self._counted_bytes = counted

    def _interrupted(self) -> Ending:
        """A clock struck; that takes nothing from an answer which is complete. Raises the clock's error for others."""
        clock, reader = self._event.alarm.caught(), self._stream.reader
        if reader.closed or clock is Clock.SILENCE:
            return Ending.SILENT
        error = timeout_error(clock, self._planned)
        if not reader.finished:
            raise error
        self._break = error
        return Ending.CUT

    def _wind_clocks(self) -> None:
        """Until when the next bytes may take: assignments, but at a stream's beginning and end."""
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
                self._event.alarm.on_hold_over = self._answered
                deadlines.set(Clock.HOLD, HOLD_S)

    def _answered(self) -> None:
        self.has_answered = self._stream.answered = True
        record = self._event.record
        if record.answered_at is None:
            record.answered_at = asyncio.get_running_loop().time()
        self._deadlines.clear(Clock.REQUEST, Clock.HOLD)
        self._tell_chain(Answered())
        self._tell()

    def _tell_chain(self, answered: Answered) -> None:
        self._chain.next(answered, asyncio.get_running_loop().time(), 0.0)

    def _tell(self) -> None:
        """That the stream begins, and behind it what was held back."""
        if self._is_told:
            return
        self._is_told = True
        event = self._event
        event.record.restarted = event.told is not None
        event.record.drop_stream()
        event.told = self.heading
        event.keep(None)
        event.voice.open(self.heading, event.record.opening(self.heading, success=True), self._stream.release())

    def _conclude(self, ending: Ending) -> Outcome | None:
        stream = self._stream
        clean_end_is_whole = self._planned.provider.ended_without_mark == "done"
        parts, verdict = stream.finish(ending, clean_end_is_whole=clean_end_is_whole)
        self._event.voice.say(parts)
        is_whole = verdict in {Verdict.WHOLE, Verdict.WHOLE_CUT} and not stream.failed
        if (stream.answered or is_whole) and not self.has_answered:
            self._answered()
        if stream.failed:
            return self._failed_inside()
        if is_whole:
            self._tell_chain(Answered(whole=True))
            self._warn_of(verdict)
            if verdict is Verdict.WHOLE:
                self._answer.keep()
            return None
        if verdict is Verdict.EMPTY:
            self._break = BrokenStream("the provider's stream was empty")
        self._event.error = self._break
        return Broke() if self.has_answered else Failed(Cause.BREAK)

    def _warn_of(self, verdict: Verdict) -> None:
        if verdict is Verdict.WHOLE_CUT:
            self._event.record.warnings.append("the connection was cut after the answer's end; usage may be missing")

    def _warn_of_malformed(self) -> None:
        if self._is_told and (count := self._stream.reader.malformed):
            items = "one item" if count == 1 else f"{count} items"
            self._event.record.warnings.append(f"{items} of the stream could not be parsed and came as text")

    def _failed_inside(self) -> Outcome:
        fault = self._stream.reader.fault
        assert fault is not None
        fault = concealed_fault(fault, self._event.known)
        self._event.error = stream_error(fault)
        outcome = self._outcome_of(fault)
        if self._is_told:
            self._event.told = replace(self.heading, status=fault.status)
        return outcome

    def _outcome_of(self, fault: Fault) -> Outcome:
        if self.has_answered:
            return Broke(Cause.STATUS, fault.status, is_known=not fault.is_unknown)
        outcome = outcome_of(fault, fault.status)
        if isinstance(outcome, Refused) and self._planned.policy.on_policy == "answer":
            self._tell()  # the refusal is the answer
        return outcome


def _turns(data: bytes) -> Iterable[bytes]:
    if len(data) <= TURN_BYTES:
        return (data,)
    return (data[start : start + TURN_BYTES] for start in range(0, len(data), TURN_BYTES))
