"""Passes one stream on to the client, read by read, and says what became of it."""

import asyncio
from collections.abc import Iterable
from typing import Final, assert_never

from bridge.deadlines import Clock
from bridge.errors import BridgeError, BrokenStream, UnusableAnswer
from bridge.event import Event
from bridge.outcomes import outcome_of, stream_error, timeout_error
from bridge.plan import PlannedStep
from bridge.policy.chain import Answered, Broke, Cause, Chain, Failed, Outcome
from bridge.record import Heading
from bridge.upstream.http import Answer
from bridge.wire.body import Decoder
from bridge.wire.dialects import Ending, StreamReader, Verdict
from bridge.wire.stream import Stream

TURN_BYTES: Final = 65_536
"""What one event may pass on before its neighbours have a turn."""

HOLD_S: Final = 10.0
SILENCE_S: Final = 2.0
LINGER_S: Final = 1.0


class Passage:
    """One stream of one attempt. `run` once. Until the step has answered nothing is told, unless it is the last."""

    def __init__(
        self, event: Event, chain: Chain, planned: PlannedStep, answer: Answer, heading: Heading, decoder: Decoder
    ) -> None:
        self.heading = heading
        self.has_answered = False
        """The chain knows that the step has answered."""
        self._is_told = False  # the client has its first frame
        self._event = event
        self._chain = chain
        self._planned = planned
        self._idle_ms = planned.step.settings.idle_timeout
        self._answer = answer
        self._deadlines = event.alarm.deadlines
        self._stream = Stream(decoder, StreamReader(), event.frames, raw=planned.step.settings.frames == "raw")

    async def run(self, head: bytes, *, last: bool) -> Outcome | None:
        """`head` was read already. None when the stream was passed on to its end, and whole."""
        event, stream = self._event, self._stream
        event.phase = "streaming"
        if last:
            self._tell()  # nothing can come after it, so nothing is held back
        try:
            ending = await self._pass_on(head)
            return self._failed_inside() if ending is None else self._conclude(ending)
        finally:
            event.record.chunks = stream.chunks
            event.record.usage, event.record.cost = stream.reader.usage, stream.reader.cost

    async def _pass_on(self, data: bytes) -> Ending | None:
        """The hot path: per read one await for the bytes, one call that makes frames of them, one write.

        Returns how the body ended; None when the provider reported an error inside it.
        """
        stream, sink, read = self._stream, self._event.sink, self._answer.read
        try:
            while data:
                for turn in _turns(data):
                    if frames := stream.feed(turn):
                        sink.send(frames)
                    if stream.answered is not self.has_answered:
                        self._answered()
                    if stream.failed:
                        return None
                    if sink.is_full:
                        await self._event.drained()
                self._await_next_read()
                data = await read()
        except BrokenStream:
            return Ending.CUT
        except asyncio.CancelledError:
            clock = self._event.alarm.caught()
            if clock in {Clock.SILENCE, Clock.LINGER}:
                return Ending.SILENT
            raise timeout_error(clock, self._planned) from None
        return Ending.END

    def _await_next_read(self) -> None:
        """Until when the next read may last: an assignment, but at a stream's beginning and end."""
        reader, deadlines = self._stream.reader, self._deadlines
        if reader.closed:
            if not deadlines.is_set(Clock.LINGER):
                deadlines.set(Clock.LINGER, LINGER_S)
        elif reader.finished:
            deadlines.set(Clock.SILENCE, SILENCE_S)
        else:
            deadlines.clear(Clock.SILENCE)
            deadlines.set_ms(Clock.IDLE, self._idle_ms)
            if not self._is_told and not deadlines.is_set(Clock.HOLD):
                self._event.alarm.on_hold_over = self._answered
                deadlines.set(Clock.HOLD, HOLD_S)

    def _answered(self) -> None:
        self.has_answered = self._stream.answered = True
        self._deadlines.clear(Clock.REQUEST, Clock.HOLD)
        self._chain.next(Answered(), asyncio.get_running_loop().time(), 0.0)
        self._tell()

    def _tell(self) -> None:
        """The stream's first frame, and behind it what was held back."""
        if self._is_told:
            return
        self._is_told = True
        event = self._event
        event.record.restarted = event.told is not None
        event.told = self.heading
        opened = event.frames.opened(event.record.opening(self.heading, success=True))
        event.sink.send([opened, *self._stream.release()])

    def _conclude(self, ending: Ending) -> Outcome | None:
        stream = self._stream
        clean_end_is_whole = self._planned.provider.ended_without_mark == "done"
        frames, verdict = stream.finish(ending, clean_end_is_whole=clean_end_is_whole)
        self._event.sink.send(frames)
        if stream.answered is not self.has_answered:
            self._answered()
        if stream.failed:
            return self._failed_inside()
        match verdict:
            case Verdict.WHOLE:
                return None
            case Verdict.WHOLE_CUT:
                self._event.record.warnings.append(
                    "the connection was cut after the answer's end; usage may be missing"
                )
                return None
            case Verdict.EMPTY:
                return self._failed(UnusableAnswer("the provider's stream was empty"), Cause.BREAK)
            case Verdict.BROKEN:
                how = "ended without its end mark" if ending is Ending.END else "was cut"
                return self._failed(BrokenStream(f"the provider's stream {how}"), Cause.BREAK)
            case _:
                assert_never(verdict)

    def _failed_inside(self) -> Outcome:
        fault = self._stream.reader.fault
        assert fault is not None
        self._event.error = stream_error(fault)
        return Broke(Cause.STATUS, fault.status) if self.has_answered else outcome_of(fault, fault.status)

    def _failed(self, error: BridgeError, cause: Cause) -> Outcome:
        self._event.error = error
        return Broke(cause) if self.has_answered else Failed(cause)


def _turns(data: bytes) -> Iterable[bytes]:
    if len(data) <= TURN_BYTES:
        return (data,)
    return (data[start : start + TURN_BYTES] for start in range(0, len(data), TURN_BYTES))
