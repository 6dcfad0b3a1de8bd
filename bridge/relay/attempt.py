"""Make one provider call of one event, and receive its response in one piece or as a stream."""

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec

from bridge.errors import BridgeError, InternalError, SpendLimit, UnusableAnswer
from bridge.formats import response
from bridge.formats.decoders import Shape, decoder_for
from bridge.formats.long_item import LONG_ITEM_BYTES
from bridge.formats.response import Defect, beginning_of_invalid, parse_response
from bridge.policy.backoff import requested_delay_ms
from bridge.policy.chain import Broke, Cause, Chain, Failed, Outcome, StepAnswered, Try
from bridge.relay.context import BufferedResponse, RunningEvent
from bridge.relay.deadlines import Clock
from bridge.relay.event_state import ResponseHead
from bridge.relay.failures import cause_of, outcome_of, status_error, timeout_error
from bridge.relay.plan import PlannedStep
from bridge.relay.provider_call import ProviderCall, begin_call
from bridge.relay.response_body import ResponseBody
from bridge.relay.stored_secrets import concealed, concealed_fault, concealed_headers, known_key
from bridge.relay.stream_relay import StreamRelay
from bridge.relay.wakeup import Wakeup
from bridge.upstream.answer import UpstreamResponse

_LABELS: Final[dict[Shape, tuple[str, ...]]] = {
    Shape.SSE: ("text/event-stream",),
    Shape.NDJSON: ("application/x-ndjson", "application/jsonl", "application/stream+json"),
}
"""Content types of a stream of this shape; a mislabelled stream gets the first."""

_NO_CONTENT: Final = 204
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
        is_good = 200 <= answer.status < 300
        body = ResponseBody(
            answer,
            self._planned.target.raw_path.partition(b"?")[0].decode(),
            self._event.reservation,
            self._event.interrupt,
            partial(self._start_stream, answer),
            may_stream=is_good and answer.status != _NO_CONTENT and self._planned.step.method != "HEAD",
            max_bytes=self._event.writer.max_buffered_bytes if is_good else None,
        )
        try:
            await body.receive()
            if self._stream_relay is not None:
                return self._stream_relay.conclude()
        finally:
            if self._stream_relay is not None:
                self._stream_relay.close()
        return await self._evaluate(answer, body.body, body.check.finish())

    def _start_stream(self, answer: UpstreamResponse, shape: Shape, head: bytes, wakeup: Wakeup) -> StreamRelay:
        stream_head = self._build_head(answer, _label(answer.content_type, shape), items=shape is not Shape.BYTES)
        decoder = decoder_for(shape, self._event.runtime.max_item_bytes)
        from_model = self._planned.calls_model
        self._stream_relay = relay = StreamRelay(
            self._event, self._chain, self._planned, answer, stream_head, decoder, wakeup, from_model=from_model
        )
        relay.begin(head, last=self._decision.last)
        return relay

    async def _evaluate(self, answer: UpstreamResponse, body: bytes, shortened: bytes | None) -> Outcome:
        """Return the outcome of a response in one piece. The response is kept: it may become the event's answer.

        `shortened` is a short version of a long body that is known to be JSON.
        """
        event, status = self._event, answer.status
        read = body if shortened is None else shortened
        if shortened is None and len(body) > LONG_ITEM_BYTES:
            read = beginning_of_invalid(body)  # the check while it arrived found that it is not JSON
        found = parse_response(status, read, answer.content_type, from_model=self._planned.calls_model)
        checked = shortened is not None
        if event.known and (found.fault is not None or found.defect is not None or status >= 300):
            body, found = await self._concealed(answer, body, found)
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

    async def _concealed(
        self, answer: UpstreamResponse, body: bytes, found: response.ParsedResponse
    ) -> tuple[bytes, response.ParsedResponse]:
        """Return an error's body without the stored key that it may quote, and the parsed body."""
        known = self._event.known
        mask = partial(concealed, body, known)
        masked = mask() if len(body) < _OFF_LOOP_BYTES else await asyncio.to_thread(mask)
        self._event.reservation.release(len(body))
        self._event.reservation.add(len(masked))
        if len(body) <= LONG_ITEM_BYTES:  # the error's text in a longer one is short, and masked below
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
