"""Apply the bridge's services to a realtime session: limits, the stored key, usage, the log and the observers."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

import msgspec
import orjson

from bridge.config.keys import GoogleAccount
from bridge.errors import BridgeError
from bridge.formats.realtime_usage import Turn, add_usage, requested_model, turn_in
from bridge.policy.reported import bounded_usage
from bridge.protocol.messages import Create
from bridge.redact.known_secrets import NO_SECRETS
from bridge.relay.costs import MANY_TOKENS
from bridge.relay.event_state import EventState, ResponseHead
from bridge.relay.interfaces import Admission, Services
from bridge.relay.plan import PlannedStep, RequestContext
from bridge.relay.runner import new_id
from bridge.relay.stored_secrets import concealed_headers, credential_in, known_key
from bridge.relay.summarize import summarize
from bridge.relay.summary import Cost, SessionTotals
from bridge.settings.step import StepSettings
from bridge.upstream.answer import public_headers
from bridge.upstream.http import Call
from bridge.upstream.realtime import ProviderSocket

log = logging.getLogger("bridge.event")

UPGRADED = 101


class SessionAccounting:
    """The accounting of one session. Call `close` exactly once, also after a failure."""

    def __init__(self, context: RequestContext, services: Services, event_id: str | None, warnings: list[str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._services = services
        now_ns = time.time_ns()
        log_id = new_id(now_ns)
        self._event_id = orjson.dumps(event_id or log_id)
        self._record = EventState(log_id, context.gateway, self._loop.time(), warnings, created_at_ns=now_ns)
        self._planned: PlannedStep | None = None
        self._admission: Admission | None = None
        self._release_slot: Callable[[], None] | None = None
        self._is_first = True
        self._byok_alias: str | None = None
        self.known_secrets = NO_SECRETS
        """The secrets of the stored key that the session uses, if any."""

    async def admit(self, planned: PlannedStep, settings: StepSettings) -> None:
        """Check the limits, and wait for a slot at the provider. Raises what `admit` and `acquire` of them raise."""
        self._planned, self._record.model = planned, planned.model
        if self._services.limiter is not None:
            self._admission = await self._services.limiter.admit(self._context, settings)
        if self._admission is not None:
            self._release_slot = await self._admission.acquire(planned)

    async def authorize(self, call: Call) -> Call:
        """Return the call with the gateway's stored key, if the plan requires one. Raises KeyUnusable."""
        assert self._planned is not None
        self._record.called_at = self._loop.time()
        if self._services.keys is None or self._planned.key is None:
            return call
        key = self._planned.key
        self._byok_alias = key.alias or None
        self.known_secrets = known_key(key)
        authorised = await self._services.keys.authorize(call, self._planned)
        if isinstance(key.secret, GoogleAccount):  # the access token is a secret too
            self.known_secrets = known_key(key, credential_in(dict(call.headers), authorised.headers))
        return authorised

    def public_headers(self, socket: ProviderSocket) -> dict[str, str]:
        """Return the headers of the provider's 101 response that the client may see."""
        return concealed_headers(public_headers(socket.answer_headers), self.known_secrets)

    def count_sent(self, data: bytes) -> None:
        """Read the model from the client's first message, if the handshake has none."""
        if self._is_first:
            self._is_first = False
            if self._record.model is None:
                self._set_model(requested_model(data))

    def count_received(self, data: bytes) -> None:
        """Count the usage that a message of the provider reports."""
        if self._record.answered_at is None:
            self._record.answered_at = self._loop.time()
        if (turn := turn_in(data)) is not None:
            self._count_turn(turn)

    def close(self, error: BridgeError | None, totals: SessionTotals | None) -> None:
        """End the session: release its slot, settle its cost, write the log and notify the observers. Never blocks.

        `totals` is None for a session that did not begin.
        """
        record, planned, now = self._record, self._planned, self._loop.time()
        slug = planned.provider.slug if planned else None
        status = UPGRADED if totals else error.status if error else 0
        if planned is not None:
            record.cost = self._total_cost(planned)
        if planned is not None and record.called_at is not None:
            record.add_attempt(0, planned.provider.slug, status, error, record.called_at, now)
        record.last_metadata(ResponseHead(0, slug, status, "", byok_alias=self._byok_alias), now, error)
        if self._release_slot is not None:
            self._release_slot()
        if self._admission is not None:
            self._admission.settle([(planned, record.cost)] if planned and record.cost else [])
        more_fields = msgspec.structs.asdict(totals) if totals else {}
        log.info("realtime session", extra={"fields": record.log_fields(self._event_id) | more_fields})
        self._notify_observers(totals)

    def _set_model(self, model: str | None) -> None:
        assert self._planned is not None
        self._planned, self._record.model = replace(self._planned, model=model), model

    def _count_turn(self, turn: Turn) -> None:
        """Add a turn's usage and cost. A token's price may depend on the turn's size and on its model."""
        record, planned = self._record, self._planned
        assert planned is not None
        usage = bounded_usage(turn.usage)
        if usage is not turn.usage and MANY_TOKENS not in record.warnings:
            record.warnings.append(MANY_TOKENS)
        record.usage = add_usage(record.usage, usage)
        priced = planned if turn.model is None else replace(planned, model=turn.model)
        if self._services.pricer is not None and (cost := self._services.pricer.known(priced, usage, {})) is not None:
            record.cost = cost if record.cost is None else record.cost.plus(cost)

    def _total_cost(self, planned: PlannedStep) -> Cost | None:
        """Return the session's cost: the sum of its turns, or by the gateway's own price, which is per session.

        A price that the client claims changes neither.
        """
        record, pricer = self._record, self._services.pricer
        if pricer is None:
            return record.cost
        known = record.cost if planned.price is None else pricer.known(planned, record.usage, {})
        return pricer.claimed(planned, record.usage, known)

    def _notify_observers(self, totals: SessionTotals | None) -> None:
        if not self._services.observers:
            return
        steps = [self._planned] if self._planned else []
        create = Create(None, [planned.step for planned in steps], self._record.warnings)
        summary = summarize(self._record, self._context, self._event_id, create, steps)
        if totals is not None:
            summary = msgspec.structs.replace(
                summary,
                realtime=totals,
                request_bytes=totals.bytes_from_client,
                answer_bytes=totals.bytes_from_provider,
            )
        for observer in self._services.observers:
            observer.on_event_end(summary)
