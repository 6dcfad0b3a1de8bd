"""Make one provider call of one event, and receive its response in one piece or as a stream."""

import asyncio
import time
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import Final

import msgspec

from bridge.errors import BridgeError, BrokenStream, InternalError, ResetBeforeAnswer, SpendLimit, UnusableAnswer
from bridge.formats import response
from bridge.formats.decoders import Shape, decoder_for, sniff
from bridge.formats.long_item import LongBody
from bridge.formats.response import Defect, parse_response
from bridge.policy.backoff import requested_delay_ms
from bridge.policy.chain import Broke, Cause, Chain, Failed, Outcome, StepAnswered, Try
from bridge.relay.context import BufferedResponse, RunningEvent
from bridge.relay.deadlines import Clock
from bridge.relay.event_state import ResponseHead
from bridge.relay.failures import cause_of, outcome_of, status_error, timeout_error
from bridge.relay.plan import PlannedStep
from bridge.relay.provider_call import ProviderCall, begin_call
from bridge.relay.stored_secrets import concealed, concealed_fault, concealed_headers, known_key
from bridge.relay.stream_relay import StreamRelay
from bridge.upstream.answer import UpstreamResponse

_LABELS: Final[dict[Shape, tuple[str, ...]]] = {
    Shape.SSE: ("text/event-stream",),
    Shape.NDJSON: ("application/x-ndjson", "application/jsonl", "application/stream+json"),
}
"""Content types of a stream of this shape; a mislabelled stream gets the first."""

_NO_CONTENT: Final = 204
_TURN_BYTES: Final = 1 << 18
_OFF_LOOP_BYTES: Final = 1 << 20
"""Longer bodies are searched in a thread."""


class StepAttempt:
    """One attempt of one step. Call `run` once."""

    def __init__(self, event: RunningEvent, chain: Chain, planned: PlannedStep, decision: Try) -> None:
        self._event = event
        self._chain = chain
        self._planned = planned
        self._settings = planned.step.settings
        self._decision = decision
        self._deadlines = event.interrupt.deadlines
        self._stream_relay: StreamRelay | None = None
        self._long_json = LongBody()

    async def run(self) -> Outcome | None:
        """Make the call and return its outcome; None if a complete stream was passed on."""
        event, loop = self._event, asyncio.get_running_loop()
        event.step, event.provider = self._decision.step, self._planned.provider.slug
        event.error, event.state.cached, event.state.byok_alias = None, False, None
        event.known = known_key(self._planned.key)
        began_at, status = loop.time(), None
        try:
            answer = await self._open()
            status = answer.status
            try:
                outcome = await self._receive(answer)
            except BaseException:
                await self._close(answer)
                raise
            await self._close(
                answer, reuse=outcome is None and self._stream_relay is not None and self._stream_relay.is_closed
            )
            return outcome
        except asyncio.CancelledError:
            return self._fail(timeout_error(event.interrupt.consume(), self._planned))
        except BridgeError as error:
            outcome = self._fail(error)
            if isinstance(error, SpendLimit) and not error.is_per_step:
                raise  # the limit holds for every step
            return outcome
        except Exception:
            event.error = InternalError("internal error")
            raise
        finally:
            self._deadlines.keep_only(Clock.TOTAL)
            slug = self._planned.provider.slug
            failure = event.interrupt.cancelled or event.error
            event.state.add_attempt(self._decision.step, slug, status, failure, began_at, loop.time())

    async def _close(self, answer: UpstreamResponse, *, reuse: bool = False) -> None:
        """Close the response. With `reuse` its rest is read first, so that the connection can be used again."""
        if reuse and not answer.ended:
            self._event.runtime.upstream.read_out(answer)
        else:
            await answer.aclose()
        self._event.state.cached = answer.cached

    @property
    def response_head(self) -> ResponseHead:
        """Head of the stream that was passed on."""
        assert self._stream_relay is not None
        return self._stream_relay.head

    async def _open(self) -> UpstreamResponse:
        begin_call(self._event, self._settings)
        cache = self._event.runtime.services.cache
        dial = ProviderCall(self._event, self._planned, self._connected)
        answer = await (dial() if cache is None else cache.open(self._event.context, self._planned, dial))
        self._event.state.cached = answer.cached
        self._connected()
        self._deadlines.set_ms(Clock.IDLE, self._settings.idle_timeout)
        return answer

    def _connected(self) -> None:
        self._event.phase = "waiting"
        self._deadlines.clear(Clock.CONNECT)

    async def _receive(self, answer: UpstreamResponse) -> Outcome | None:
        head, is_good = b"", 200 <= answer.status < 300
        if is_good and answer.status != _NO_CONTENT and self._planned.step.method != "HEAD":
            shape, head = await self._sniff(answer)
            if shape is not Shape.SINGLE:
                return await self._relay_stream(answer, shape, head)
        body, is_complete = await self._collect(
            answer, head, self._event.writer.max_buffered_bytes if is_good else None
        )
        if not is_complete:
            return await self._relay_stream(answer, Shape.BYTES, body)
        return await self._evaluate(answer, body)

    async def _relay_stream(self, answer: UpstreamResponse, shape: Shape, head: bytes) -> Outcome | None:
        stream_head = self._build_head(answer, _label(answer.content_type, shape), items=shape is not Shape.BYTES)
        decoder = decoder_for(shape, self._event.runtime.max_item_bytes)
        self._stream_relay = StreamRelay(
            self._event, self._chain, self._planned, answer, stream_head, decoder, from_model=self._planned.calls_model
        )
        return await self._stream_relay.run(head, last=self._decision.last)

    async def _sniff(self, answer: UpstreamResponse) -> tuple[Shape, bytes]:
        """Return the shape of the body, and the bytes that were read to detect it."""
        path = self._planned.target.raw_path.partition(b"?")[0].decode()
        head = b""
        while True:
            data = await self._read(answer)
            head += data
            shape = sniff(answer.content_type, path, head, ended=not data)
            if shape is not None:
                return shape, head

    async def _collect(self, answer: UpstreamResponse, head: bytes, max_bytes: int | None) -> tuple[bytes, bool]:
        """Return the body, counted in the event's memory reservation, and True if it is complete.

        If it has more than `max_bytes`, the first part and False are returned. Raises OutOfMemoryBudget.
        """
        if max_bytes is not None and answer.announced_bytes > max_bytes:
            return head, False
        reservation, body = self._event.reservation, BytesIO()  # `getvalue` does not copy
        check = self._long_json = LongBody()
        turn_ends = _TURN_BYTES
        try:
            data = head or await self._read(answer)
            while data:
                reservation.add(len(data))
                body.write(data)
                check.feed(data)
                if body.tell() >= turn_ends:
                    turn_ends = body.tell() + _TURN_BYTES
                    await asyncio.sleep(0)  # `read` may never suspend while it inflates a body
                if max_bytes is not None and body.tell() > max_bytes:
                    return body.getvalue(), False
                data = await self._read(answer)
        except BaseException:
            reservation.release(body.tell())
            raise
        return body.getvalue(), True

    async def _read(self, answer: UpstreamResponse) -> bytes:
        """Read from a body that is not announced to the client yet. Raises ResetBeforeAnswer if it breaks."""
        try:
            data = await answer.read()
        except BrokenStream as error:
            raise ResetBeforeAnswer(str(error)) from None
        self._deadlines.set_ms(Clock.IDLE, self._settings.idle_timeout)
        return data

    async def _evaluate(self, answer: UpstreamResponse, body: bytes) -> Outcome:
        """Return the outcome of a response in one piece. The response is kept: it may become the event's answer."""
        event, status = self._event, answer.status
        shortened = self._long_json.finish()
        read = body if shortened is None else shortened
        found = parse_response(status, read, answer.content_type, from_model=self._planned.calls_model)
        checked = shortened is not None
        if event.known and (found.fault is not None or found.defect is not None or status >= 300):
            body, found = await self._concealed(answer, body)
            checked = False
        outcome: Outcome = StepAnswered(complete=True)
        if found.fault is not None:
            status = found.fault.status
            pause_ms = requested_delay_ms(answer.headers, time.time())
            event.error = status_error(found.fault, status, pause_ms)
            outcome = outcome_of(found.fault, status, pause_ms)
        elif found.defect is not None:
            event.error = UnusableAnswer(found.defect.value)
            outcome = Failed(Cause.BREAK if found.defect is Defect.NOT_JSON else Cause.UNUSABLE)
        elif answer.status >= 300:
            event.error = UnusableAnswer(f"the provider answered HTTP {answer.status}; redirects are not followed")
            outcome = Failed(Cause.REDIRECT)
        head = replace(self._build_head(answer, answer.content_type), status=status)
        cached = answer.cached
        event.set_buffered(BufferedResponse(head, body, event.error, found.usage, found.costs, cached, checked))
        if event.error is None:
            answer.mark_complete()
        return outcome

    async def _concealed(self, answer: UpstreamResponse, body: bytes) -> tuple[bytes, response.ParsedResponse]:
        """Return an error's body without the stored key that it may quote, and the parsed body."""
        known = self._event.known
        mask = partial(concealed, body, known)
        masked = mask() if len(body) < _OFF_LOOP_BYTES else await asyncio.to_thread(mask)
        self._event.reservation.release(len(body))
        self._event.reservation.add(len(masked))
        found = parse_response(answer.status, masked, answer.content_type, from_model=self._planned.calls_model)
        if found.fault is not None:
            found = msgspec.structs.replace(found, fault=concealed_fault(found.fault, known))
        return masked, found

    def _build_head(self, answer: UpstreamResponse, content_type: str, *, items: bool = False) -> ResponseHead:
        slug, alias = self._planned.provider.slug, self._event.state.byok_alias
        headers = concealed_headers(answer.public_headers, self._event.known)
        return ResponseHead(self._decision.step, slug, answer.status, content_type, headers, items, alias)

    def _fail(self, error: BridgeError) -> Outcome:
        if self._event.known:
            error.args = (self._event.known.mask_text(str(error)),)
        self._event.error = error.without_traceback()
        cause = cause_of(error)
        return Broke(cause) if self._stream_relay is not None and self._stream_relay.has_answered else Failed(cause)


def _label(content_type: str, shape: Shape) -> str:
    """Return the content type reported to the client: the provider's, unless it contradicts the body."""
    labels = _LABELS.get(shape)
    return content_type if labels is None or content_type in labels else labels[0]
