"""What a client may say: `universal.create` and `universal.cancel`, parsed and checked (PROTOCOL.md, A "Request").

`parse` never raises for what a client wrote: a message that cannot be taken becomes a `Refused` that names its fault
and, when one can be read, its event.
"""

import base64
import binascii
import re
from collections.abc import Iterator

import msgspec

from bridge.errors import BadField, BadMessage, BridgeError, TooLarge, UnknownType
from bridge.settings import StepSettings, from_config_object, from_headers
from bridge.wire.headers import check_size, checked, forwarded
from bridge.wire.json_text import deeper_than, without_lone_surrogates

MAX_EVENT_ID_CHARS = 256

_METHOD = re.compile(r"[A-Z]{1,32}")


class EventId(msgspec.Struct, frozen=True):
    """A client's name for an event. `key` compares; `raw` is the JSON to echo, as it came."""

    key: str | int
    raw: bytes


class Step(msgspec.Struct, frozen=True):
    """One provider call, as asked for. Header names are lower case; `body` are the client's own bytes.

    `provider_headers` are those of `headers` that the provider gets to see.
    """

    provider: str
    endpoint: str
    method: str
    headers: dict[str, str]
    provider_headers: dict[str, str]
    body: bytes
    settings: StepSettings


class Create(msgspec.Struct, frozen=True):
    """Start an event. `event_id` is None when the client gave none; `warnings` tell of clamped settings."""

    event_id: EventId | None
    steps: list[Step]
    warnings: list[str]


class Cancel(msgspec.Struct, frozen=True):
    """Stop an event."""

    event_id: EventId


class Refused(msgspec.Struct, frozen=True):
    """A message that cannot be taken.

    An `owned` fault is the ordinary last frame of an event (which gets an id made for it when the client gave none);
    any other belongs to the message alone.
    """

    error: BridgeError
    event_id: EventId | None
    owned: bool


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one message (PROTOCOL.md, B "Limits")."""

    max_message_bytes: int = 64 << 20
    max_steps: int = 32
    max_headers: int = 100
    max_header_bytes: int = 32 << 10
    max_json_depth: int = 512


_NOTHING = msgspec.Raw()
_TYPES = ("universal.create", "universal.cancel")
_Headers = dict[str, str | int | float]


class _Envelope(msgspec.Struct, rename="camel"):
    type: msgspec.Raw = _NOTHING
    event_id: msgspec.Raw = _NOTHING
    request: msgspec.Raw = _NOTHING


class _Named(msgspec.Struct, rename="camel"):
    event_id: msgspec.Raw = _NOTHING


class _Object(msgspec.Struct, rename="camel"):
    """A step; or, when it has `steps`, a chain and what it lends to each of them."""

    event_id: msgspec.Raw = _NOTHING
    steps: list[msgspec.Raw] | None = None
    provider: str | None = None
    endpoint: str = ""
    headers: _Headers | None = None
    authorization: str | None = None
    config: dict[str, object] | None = None
    method: str | None = None
    query: msgspec.Raw = _NOTHING
    body: str | None = None
    encoding: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_named = msgspec.json.Decoder(_Named)
_object = msgspec.json.Decoder(_Object)
_list = msgspec.json.Decoder(list[msgspec.Raw])


def parse(data: bytes, defaults: StepSettings, limits: Limits) -> Create | Cancel | Refused:
    """Read one message. `defaults` are the gateway's settings, with the handshake's laid over them."""
    event_id = None
    owned = False
    try:
        source = _Source(data)
        event_id = source.event_id()
        if source.type() == "universal.cancel":
            return _cancel(event_id)
        owned = True
        _check_size(data, limits)
        warnings: list[str] = []
        return Create(event_id, _Reader(source, limits, warnings).steps(defaults), warnings)
    except BridgeError as error:
        return Refused(error, event_id, owned)


def _cancel(event_id: EventId | None) -> Cancel:
    if event_id is None:
        raise BadField("eventId: universal.cancel needs the eventId of the event to stop")
    return Cancel(event_id)


def _check_size(data: bytes, limits: Limits) -> None:
    if len(data) > limits.max_message_bytes:
        raise TooLarge(f"the message has {len(data)} bytes; at most {limits.max_message_bytes} are taken")
    if deeper_than(limits.max_json_depth, data):
        raise TooLarge(f"the message nests deeper than {limits.max_json_depth} levels")


class _Source:
    """The message's bytes, and the spans of them that matter."""

    def __init__(self, data: bytes) -> None:
        self._original = data
        self._copy: bytes | None = None
        self._taken_to = 0
        try:
            self._envelope = self._open(data)
        except RecursionError:
            raise TooLarge("the message nests too deep to be read") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage(f"the message is no JSON object: {error}") from None
        self.request = self._envelope.request

    def _open(self, data: bytes) -> _Envelope:
        if not data.isascii():
            data.decode()  # msgspec does not look at the UTF-8 of what it skips
        try:
            return _envelope.decode(data)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            self._copy = without_lone_surrogates(data)
            if self._copy is None:
                raise
            return _envelope.decode(self._copy)

    def original(self, span: msgspec.Raw) -> bytes:
        """The client's own bytes behind a span. Spans are asked for in the order in which they stand."""
        found = bytes(span)
        if self._copy is None:
            return found
        at = self._copy.index(found, self._taken_to)
        self._taken_to = at + len(found)
        return self._original[at : self._taken_to]

    def type(self) -> str:
        """One of the types that are known; raises UnknownType for any other, or none."""
        raw = self._envelope.type
        kind = msgspec.json.decode(raw) if _is_there(raw) else None
        if kind in _TYPES:
            return str(kind)
        shown = "the message has no type" if kind is None else f"unknown type {str(kind)[:64]!r}"
        raise UnknownType(f"{shown}: send universal.create or universal.cancel")

    def event_id(self) -> EventId | None:
        """The first of: the request's, the message's, the first step's that has one. Raises BadField for a bad one."""
        raw = next(filter(_is_there, self._named_in()), None)
        if raw is None:
            return None
        key = msgspec.json.decode(raw)
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise BadField("eventId: expected a string or an integer")
        if not 0 < len(str(key)) <= MAX_EVENT_ID_CHARS:
            raise BadField(f"eventId: expected 1 to {MAX_EVENT_ID_CHARS} characters, got {len(str(key))}")
        return EventId(key, bytes(raw))

    def _named_in(self) -> Iterator[msgspec.Raw]:
        if _first_byte(self.request) == b"{":
            yield _named.decode(self.request).event_id
        yield self._envelope.event_id
        for step in _spans_of_steps(self.request):
            if _first_byte(step) == b"{":
                yield _named.decode(step).event_id


def _spans_of_steps(request: msgspec.Raw) -> list[msgspec.Raw]:
    match _first_byte(request):
        case b"[":
            return _list.decode(request)
        case b"{":
            try:
                return _object.decode(request).steps or []
            except msgspec.ValidationError:
                return []  # told when the steps are read: by then the event is known
        case _:
            return []


def _first_byte(span: msgspec.Raw) -> bytes:
    return bytes(memoryview(span)[:1])


def _is_there(span: msgspec.Raw) -> bool:
    """Whether the client wrote the field, and not as null."""
    return bytes(memoryview(span)[:5]) not in {b"", b"null"}


class _Reader:
    """Reads the chain of one `universal.create`; faults name their field: `request[1].headers.x-y`."""

    def __init__(self, source: _Source, limits: Limits, warnings: list[str]) -> None:
        self._source = source
        self._limits = limits
        self._warnings = warnings

    def steps(self, defaults: StepSettings) -> list[Step]:
        request = self._source.request
        match _first_byte(request):
            case b"[":
                return self._list(_list.decode(request), defaults, {}, "request")
            case b"{":
                return self._chain(_read(request, "request"), defaults)
            case b"":
                raise BadField("request: missing; it holds provider, endpoint and query, or a list of such steps")
            case _:
                raise BadField("request: expected an object or a list of steps")

    def _chain(self, chain: _Object, defaults: StepSettings) -> list[Step]:
        if chain.steps is None:
            return [self._step(chain, defaults, {}, "request")]
        headers, settings = self._level(chain, defaults, "request")
        return self._list(chain.steps, settings, headers, "request.steps")

    def _list(self, spans: list[msgspec.Raw], defaults: StepSettings, lent: dict[str, str], where: str) -> list[Step]:
        if not spans:
            raise BadField(f"{where}: the list of steps is empty")
        if len(spans) > self._limits.max_steps:
            raise TooLarge(f"{where}: {len(spans)} steps; at most {self._limits.max_steps} are taken")
        return [
            self._step(_read(span, f"{where}[{i}]"), defaults, lent, f"{where}[{i}]") for i, span in enumerate(spans)
        ]

    def _step(self, step: _Object, defaults: StepSettings, lent: dict[str, str], where: str) -> Step:
        if step.provider is None:
            raise BadField(f"{where}.provider: missing; it names the provider to call, such as openai")
        own, settings = self._level(step, defaults, where)
        headers = lent | own if lent else own
        check_size(headers, self._limits.max_headers, self._limits.max_header_bytes, f"{where}.headers")
        provider_headers = forwarded(headers)
        if step.body is None and "content-type" not in provider_headers and _first_byte(step.query):
            provider_headers["content-type"] = "application/json"
        body = self._body(step, where)
        return Step(step.provider, step.endpoint, _method(step, where), headers, provider_headers, body, settings)

    def _level(self, given: _Object, defaults: StepSettings, where: str) -> tuple[dict[str, str], StepSettings]:
        """One level of headers and settings; its config wins over its headers."""
        headers = checked(given.headers, f"{where}.headers") if given.headers else {}
        if given.authorization is not None:
            headers |= checked({"authorization": given.authorization}, where)
        settings = from_headers(defaults, headers, f"{where}.headers", self._warnings)
        if given.config:
            settings = from_config_object(settings, given.config, f"{where}.config", self._warnings)
        return headers, settings

    def _body(self, step: _Object, where: str) -> bytes:
        if step.body is None:
            return self._source.original(step.query)
        if _first_byte(step.query):
            raise BadField(f"{where}: has both query and body; give one of them")
        match step.encoding:
            case None | "text":
                return step.body.encode()
            case "base64":
                return _from_base64(step.body, where)
            case other:
                raise BadField(f"{where}.encoding: expected text or base64, got {other[:32]!r}")


def _read(span: msgspec.Raw, where: str) -> _Object:
    try:
        return _object.decode(span)
    except msgspec.ValidationError as error:
        raise _bad_field(error, where) from None


def _bad_field(error: msgspec.ValidationError, where: str) -> BadField:
    """msgspec's words with the field's name in front: ``Expected `str`, got `int` - at `$.provider` ``."""
    what, _, path = str(error).partition(" - at `$")
    return BadField(f"{where}{path.rstrip('`')}: {what[:1].lower()}{what[1:]}")


def _from_base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadField(f"{where}.body: no base64: {error}") from None


def _method(step: _Object, where: str) -> str:
    if step.method is None:
        return "POST"
    method = step.method.upper()
    if not _METHOD.fullmatch(method) or method in {"CONNECT", "TRACE"}:
        raise BadField(f"{where}.method: {step.method[:32]!r} is no method that a provider can be called with")
    return method
