"""Parse HTTP requests: the steps in a body, or a request that is a step itself (bridge/docs/protocol.md). Pure."""

from collections.abc import Mapping
from typing import Final

import msgspec
import orjson

from bridge.errors import BridgeError, TooLarge
from bridge.protocol.event_id import EventId, check_length, first_event_id
from bridge.protocol.headers import check_size, forwarded_headers, strip_proxy_headers
from bridge.protocol.json_document import JsonDocument
from bridge.protocol.messages import Create, RejectedMessage
from bridge.protocol.steps import MessageLimits, ProviderStep, RawRequest, StepReader, check_method
from bridge.settings.overrides import from_headers
from bridge.settings.step import StepSettings

EVENT_ID_HEADER: Final = "cf-aig-event-id"

_span = msgspec.json.Decoder(msgspec.Raw)


def read_steps(
    body: bytes, headers: Mapping[str, str], defaults: StepSettings, limits: MessageLimits
) -> Create | RejectedMessage:
    """Parse a body that is a step, a list of steps or a chain; `headers` (lower-case names) set defaults for all."""
    event_id, settings, warnings = None, None, list[str]()
    try:
        event_id = _event_id_in(headers)
        settings = from_headers(defaults, headers, "headers", warnings)
        text = JsonDocument(body, _span.decode, "the body is not valid JSON")
        request = RawRequest(text.value, limits.max_steps)
        event_id = first_event_id((request.event_id, *request.step_event_ids), text.source_bytes) or event_id
        text.check_size(limits)
        reader = StepReader(text.source_bytes, limits)
        return Create(event_id, reader.read(request, settings), warnings + reader.warnings)
    except BridgeError as error:
        return RejectedMessage(error.without_traceback(), event_id, owned=True, defaults=settings)
    except RecursionError:
        return RejectedMessage(TooLarge("the body nests too deep"), event_id, owned=True, defaults=settings)


def read_step(
    body: bytes,
    headers: Mapping[str, str],
    defaults: StepSettings,
    limits: MessageLimits,
    *,
    method: str,
    provider: str,
    endpoint: str,
) -> Create | RejectedMessage:
    """Turn the request into a step. `endpoint` has the URL's query as written; names in `headers` are lower case."""
    event_id, settings, warnings = None, None, list[str]()
    try:
        event_id = _event_id_in(headers)
        settings = from_headers(defaults, headers, "headers", warnings)
        check_method(method, "method")
        check_size(headers, limits.max_headers, limits.max_header_bytes, "headers")
        step = ProviderStep(
            provider=provider,
            endpoint=endpoint,
            method=method,
            headers=dict(headers),
            provider_headers=forwarded_headers(strip_proxy_headers(headers)),
            body=body,
            settings=settings,
        )
        return Create(event_id, [step], warnings)
    except BridgeError as error:
        return RejectedMessage(error.without_traceback(), event_id, owned=True, defaults=settings)


def _event_id_in(headers: Mapping[str, str]) -> EventId | None:
    """Return the event's id from its header, or None. Raises BadField."""
    key = headers.get(EVENT_ID_HEADER)
    if key is None:
        return None
    check_length(key)
    return EventId(key, orjson.dumps(key))
