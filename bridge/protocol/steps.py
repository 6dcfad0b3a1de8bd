"""Read and check the steps of a `universal.create` message.

See bridge/docs/protocol.md, "Request" and "The whole HTTP exchange". Errors name their field, as in
`request[1].headers.x-y`.
"""

import re
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET

from bridge.errors import BadField, TooLarge
from bridge.formats.json_spans import ABSENT, JsonType, elements_in, text_in, type_of
from bridge.formats.request_fields import model_in
from bridge.protocol.headers import check_size, forwarded_headers, headers_in, validate_headers
from bridge.protocol.long_strings import base64_in, utf8_in
from bridge.protocol.small_objects import small_object
from bridge.settings.overrides import from_config_object, from_headers
from bridge.settings.server import ServerSettings
from bridge.settings.step import SETTINGS, StepSettings
from bridge.settings.unknown import warn_of_unknown

_METHOD: Final = re.compile(r"[A-Z]{1,32}")
_NO_METHODS: Final = {"CONNECT", "TRACE"}


class MessageLimits(msgspec.Struct, frozen=True):
    """Limits of one message (bridge/docs/protocol.md, "Limits")."""

    max_message_bytes: int = 64 << 20
    max_steps: int = 32
    max_headers: int = 100
    max_header_bytes: int = 32 << 10
    max_json_depth: int = 512


class ProviderStep(msgspec.Struct, frozen=True):
    """One provider call as requested by the client. Header names are in lower case.

    `body` holds the client's own bytes. `provider_headers` is the part of `headers` that is sent to the provider.
    `decoded` is the body without its content coding, for inspection; None if it has none.
    """

    provider: str
    endpoint: str
    method: str
    headers: dict[str, str]
    provider_headers: dict[str, str]
    body: bytes
    settings: StepSettings
    decoded: bytes | None = None

    @property
    def readable(self) -> bytes:
        """Return the body without its content coding."""
        return self.body if self.decoded is None else self.decoded

    @property
    def model(self) -> str | None:
        """Return the model that the body names."""
        return model_in(self.readable, self.provider_headers.get("content-type", ""))


class RawStep(msgspec.Struct, rename="camel", gc=False):
    """The members of a request, a chain or a step, as spans of the client's bytes."""

    event_id: msgspec.Raw = ABSENT
    steps: msgspec.Raw = ABSENT
    provider: msgspec.Raw = ABSENT
    endpoint: msgspec.Raw = ABSENT
    headers: msgspec.Raw = ABSENT
    authorization: msgspec.Raw = ABSENT
    config: msgspec.Raw = ABSENT
    method: msgspec.Raw = ABSENT
    query: msgspec.Raw = ABSENT
    body: msgspec.Raw = ABSENT
    encoding: msgspec.Raw = ABSENT


_raw_step = msgspec.json.Decoder(RawStep)
_CONFIG_MEMBERS: Final = tuple(setting.wire for setting in SETTINGS)
_OBJECT_MEMBERS: Final = ("metadata", "customCost")
"""Members that may be objects. They are decoded separately, because their number of members is not yet known."""
_Value = str | int | float | bool | None | msgspec.UnsetType
_types = {wire: msgspec.Raw | msgspec.UnsetType if wire in _OBJECT_MEMBERS else _Value for wire in _CONFIG_MEMBERS}
_config = msgspec.json.Decoder(msgspec.defstruct("Config", [(wire, kind, UNSET) for wire, kind in _types.items()]))
"""Decoder of the known members of a config. Unknown members are skipped, whatever their number."""
_plain = msgspec.json.Decoder(_Value)
_names = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MAX_CHECKED_CONFIG_BYTES: Final = 65_536
"""In a longer config unknown members are ignored without a warning: listing millions of names takes gigabytes."""


class RawRequest:
    """The member `request` of a message, split into steps but not yet checked."""

    def __init__(self, span: msgspec.Raw, max_steps: int) -> None:
        self.object = _object_in(span)
        """The request itself, if it is an object: a step, or a chain with defaults for its steps."""
        self.step_list = self.object.steps if self.object else span
        """The span that should hold the list of steps."""
        is_list = type_of(self.step_list) is JsonType.LIST
        self.steps = [_object_in(element) for element in elements_in(self.step_list, max_steps)] if is_list else []
        """The steps of the list; None for an element that is not an object. At most one more than `max_steps`."""

    @property
    def event_id(self) -> msgspec.Raw:
        return self.object.event_id if self.object else ABSENT

    @property
    def step_event_ids(self) -> list[msgspec.Raw]:
        return [step.event_id for step in self.steps if step]


def _object_in(span: msgspec.Raw) -> RawStep | None:
    return _raw_step.decode(span) if type_of(span) is JsonType.OBJECT else None


class _Level(msgspec.Struct, frozen=True):
    """Headers and settings that apply to a chain, or to a step in it."""

    headers: dict[str, str]
    settings: StepSettings


class StepReader:
    """Read the steps of one request. `source_bytes` returns the client's own bytes of a span."""

    def __init__(self, source_bytes: Callable[[msgspec.Raw], bytes], limits: MessageLimits) -> None:
        self._source_bytes = source_bytes
        self._limits = limits
        self.warnings: list[str] = []
        """Sentences about clamped settings and unknown fields."""

    def read(self, request: RawRequest, defaults: StepSettings) -> list[ProviderStep]:
        """Return the steps. Raise BadField or TooLarge.

        Settings of a step override those of its chain, which override `defaults`.
        """
        context = _Level({}, defaults)
        if request.object is None:
            return self._list(request, "request", context)
        if type_of(request.step_list) is JsonType.NULL:
            return [self._step(request.object, "request", context)]
        return self._list(request, "request.steps", self._level(request.object, "request", context))

    def _list(self, request: RawRequest, where: str, context: _Level) -> list[ProviderStep]:
        limit = self._limits.max_steps
        if not request.steps:
            raise BadField(f"{where}: {_why_no_steps(request)}")
        if len(request.steps) > limit:
            raise TooLarge(f"{where}: more than {limit} steps; at most {limit} are allowed")
        return [self._step(raw, f"{where}[{index}]", context) for index, raw in enumerate(request.steps)]

    def _step(self, raw: RawStep | None, where: str, context: _Level) -> ProviderStep:
        if raw is None:
            raise BadField(f"{where}: expected an object")
        provider = text_in(raw.provider, where, "provider")
        if provider is None:
            raise BadField(f"{where}.provider: missing; name the provider to call, such as openai")
        endpoint = text_in(raw.endpoint, where, "endpoint")
        if endpoint is None:
            raise BadField(f'{where}.endpoint: missing; it is appended to the base URL of the provider and may be ""')
        level = self._level(raw, where, context)
        check_size(level.headers, self._limits.max_headers, self._limits.max_header_bytes, f"{where}.headers")
        provider_headers = forwarded_headers(level.headers)
        if raw.query is not ABSENT and type_of(raw.body) is JsonType.NULL:
            provider_headers.setdefault("content-type", "application/json")
        return ProviderStep(
            provider=provider,
            endpoint=endpoint,
            method=_method(raw, where),
            headers=level.headers,
            provider_headers=provider_headers,
            body=self._body(raw, where),
            settings=level.settings,
        )

    def _level(self, raw: RawStep, where: str, context: _Level) -> _Level:
        """Return the headers and settings of `raw` over those of `context`. Its config overrides its headers."""
        headers = headers_in(raw.headers, f"{where}.headers", self._limits.max_header_bytes)
        authorization = text_in(raw.authorization, where, "authorization")
        if authorization is not None:
            headers |= validate_headers([("authorization", authorization)], where)
        settings = from_headers(context.settings, headers, f"{where}.headers", self.warnings)
        if config := _config_in(raw.config, f"{where}.config"):
            settings = from_config_object(settings, config, f"{where}.config", self.warnings)
        self._warn_of_unknown(raw.config, f"{where}.config")
        return _Level(context.headers | headers, settings)

    def _warn_of_unknown(self, config: msgspec.Raw, where: str) -> None:
        if type_of(config) is JsonType.OBJECT and memoryview(config).nbytes <= _MAX_CHECKED_CONFIG_BYTES:
            warn_of_unknown(_names.decode(config), _CONFIG_MEMBERS, where, self.warnings)

    def _body(self, raw: RawStep, where: str) -> bytes:
        kind = type_of(raw.body)
        if kind is JsonType.NULL:
            return self._source_bytes(raw.query)
        if kind is not JsonType.STRING:
            raise BadField(f"{where}.body: expected a string, got {kind}")
        if type_of(raw.query) is not JsonType.NULL:
            raise BadField(f"{where}: has both query and body; send one of them")
        encoding = text_in(raw.encoding, where, "encoding")
        match encoding:
            case None | "text":
                return utf8_in(raw.body)
            case "base64":
                return _from_base64(raw.body, f"{where}.body")
            case _:
                raise BadField(f"{where}.encoding: expected text or base64, got {encoding[:32]!r}")


def _why_no_steps(request: RawRequest) -> str:
    """Return the reason why the request has no steps."""
    match type_of(request.step_list):
        case JsonType.LIST:
            return "the list of steps is empty"
        case JsonType.NULL:
            return "missing; send an object with provider, endpoint and query, or a list of such steps"
        case other:
            wanted = "a list of steps" if request.object else "an object or a list of steps"
            return f"expected {wanted}, got {other}"


def _config_in(span: msgspec.Raw, where: str) -> dict[str, object]:
    """Return the known members of a config that are present; unknown members are ignored."""
    found = type_of(span)
    if found is JsonType.NULL:
        return {}
    if found is not JsonType.OBJECT:
        raise BadField(f"{where}: expected an object, got {found}")
    try:
        values = msgspec.structs.astuple(_config.decode(span))
    except msgspec.ValidationError as error:
        raise _bad_field(error, where) from None
    members = {wire: value for wire, value in zip(_CONFIG_MEMBERS, values, strict=True) if value is not UNSET}
    members |= {wire: _object_or_plain(members[wire], f"{where}.{wire}") for wire in _OBJECT_MEMBERS if wire in members}
    return {wire: value for wire, value in members.items() if value is not None}


def _object_or_plain(span: msgspec.Raw, where: str) -> object:
    if type_of(span) is JsonType.OBJECT:
        return small_object(span, where)
    try:
        return _plain.decode(span)
    except msgspec.ValidationError as error:
        raise _bad_field(error, where) from None


def _bad_field(error: msgspec.ValidationError, where: str) -> BadField:
    """Return an error with msgspec's text after the field name: ``Expected `str`, got `array` - at `$.backoff` ``."""
    what, _, path = str(error).partition(" - at `$")
    return BadField(f"{where}{path.rstrip('`')}: {what[:1].lower()}{what[1:]}")


def _from_base64(span: msgspec.Raw, where: str) -> bytes:
    try:
        return base64_in(span)
    except ValueError as error:
        raise BadField(f"{where}: not valid base64: {error}") from None


def _method(raw: RawStep, where: str) -> str:
    method = text_in(raw.method, where, "method")
    if method is None:
        return "POST"
    check_method(method.upper(), f"{where}.method")
    return method.upper()


def check_method(method: str, where: str) -> None:
    """Raise BadField if the provider cannot be called with this method."""
    if not _METHOD.fullmatch(method) or method in _NO_METHODS:
        raise BadField(f"{where}: {method[:32]!r} is not a supported HTTP method")


def message_limits(server: ServerSettings) -> MessageLimits:
    """Return the limits of a message from the settings of the server."""
    return MessageLimits(
        max_message_bytes=server.max_message_bytes,
        max_steps=server.max_steps,
        max_headers=server.max_headers,
        max_header_bytes=server.max_header_bytes,
        max_json_depth=server.max_json_depth,
    )
