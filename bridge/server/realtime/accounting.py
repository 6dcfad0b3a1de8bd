"""What the house asks of a realtime session and writes down of it: the gate, the stored key, the log, the observers."""

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
from bridge.relay.summary import Cost
from bridge.relay.summary import SessionTotals as Told
from bridge.settings.step import StepSettings
from bridge.upstream.answer import public_headers
from bridge.upstream.http import Call
from bridge.upstream.realtime import ProviderSocket

log = logging.getLogger("bridge.event")

UPGRADED = 101


class SessionAccounting:
    """One session's. `close` exactly once, whatever has happened before."""

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
        """The secrets of the stored key that was used, if one was."""

    async def admit(self, planned: PlannedStep, settings: StepSettings) -> None:
        """Ask the gate, and wait for a turn at the provider. Raises what `Gate.admit` and `Admission.enter` do."""
        self._planned, self._record.model = planned, planned.model
        if self._services.limiter is not None:
            self._admission = await self._services.limiter.admit(self._context, settings)
        if self._admission is not None:
            self._release_slot = await self._admission.acquire(planned)

    async def authorize(self, call: Call) -> Call:
        """With the gateway's stored key, where the plan says so. Raises KeyUnusable."""
        assert self._planned is not None
        self._record.called_at = self._loop.time()
        if self._services.keys is None or self._planned.key is None:
            return call
        key = self._planned.key
        self._byok_alias = key.alias or None
        self.known_secrets = known_key(key)
        authorised = await self._services.keys.authorize(call, self._planned)
        if isinstance(key.secret, GoogleAccount):  # the token that was minted is a secret too
            self.known_secrets = known_key(key, credential_in(dict(call.headers), authorised.headers))
        return authorised

    def public_headers(self, socket: ProviderSocket) -> dict[str, str]:
        """Those of the provider's 101 that the client may see."""
        return concealed_headers(public_headers(socket.answer_headers), self.known_secrets)

    def count_sent(self, data: bytes) -> None:
        """A message of the client's."""
        if self._is_first:
            self._is_first = False
            if self._record.model is None:
                self._name(requested_model(data))

    def count_received(self, data: bytes) -> None:
        """A message of the provider's."""
        if self._record.answered_at is None:
            self._record.answered_at = self._loop.time()
        if (turn := turn_in(data)) is not None:
            self._count(turn)

    def close(self, error: BridgeError | None, told: Told | None) -> None:
        """The session is over: gives back what the gate gave, and tells those who watch. Cannot block."""
        record, planned, now = self._record, self._planned, self._loop.time()
        slug = planned.provider.slug if planned else None
        status = UPGRADED if told else error.status if error else 0
        if planned is not None:
            record.cost = self._total(planned)
        if planned is not None and record.called_at is not None:
            record.add_attempt(0, planned.provider.slug, status, error, record.called_at, now)
        record.last_metadata(ResponseHead(0, slug, status, "", byok_alias=self._byok_alias), now, error)
        if self._release_slot is not None:
            self._release_slot()
        if self._admission is not None:
            self._admission.settle([(planned, record.cost)] if planned and record.cost else [])
        shown = msgspec.structs.asdict(told) if told else {}
        log.info("realtime session", extra={"fields": record.log_fields(self._event_id) | shown})
        self._notify_observers(told)

    def _name(self, model: str | None) -> None:
        assert self._planned is not None
        self._planned, self._record.model = replace(self._planned, model=model), model

    def _count(self, turn: Turn) -> None:
        """Turn by turn, for what a token costs may depend on how many the turn has, and on its model."""
        record, planned = self._record, self._planned
        assert planned is not None
        usage = bounded_usage(turn.usage)
        if usage is not turn.usage and MANY_TOKENS not in record.warnings:
            record.warnings.append(MANY_TOKENS)
        record.usage = add_usage(record.usage, usage)
        priced = planned if turn.model is None else replace(planned, model=turn.model)
        if self._services.pricer is not None and (cost := self._services.pricer.known(priced, usage, {})) is not None:
            record.cost = cost if record.cost is None else record.cost.plus(cost)

    def _total(self, planned: PlannedStep) -> Cost | None:
        """The turns' sum; a price of the gateway's own is the whole session's. The client's price changes neither."""
        record, pricer = self._record, self._services.pricer
        if pricer is None:
            return record.cost
        known = record.cost if planned.price is None else pricer.known(planned, record.usage, {})
        return pricer.claimed(planned, record.usage, known)

    def _notify_observers(self, told: Told | None) -> None:
        if not self._services.observers:
            return
        steps = [self._planned] if self._planned else []
        create = Create(None, [planned.step for planned in steps], self._record.warnings)
        entry = summarize(self._record, self._context, self._event_id, create, steps)
        if told is not None:
            entry = msgspec.structs.replace(
                entry, realtime=told, request_bytes=told.bytes_from_client, answer_bytes=told.bytes_from_provider
            )
        for observer in self._services.observers:
            observer.on_event_end(entry)
