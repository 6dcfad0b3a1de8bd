"""Read usage, cost and errors from an answer in one piece."""

import re
from enum import Enum
from typing import Any, TypeAlias

import msgspec

from bridge.formats.buffer import BOM, is_complete
from bridge.formats.error_reports import ANSWER_MEMBERS, DECIDING_MEMBERS, is_empty, reported_error
from bridge.formats.json_parse import has_many_parts, parse
from bridge.formats.json_spans import ABSENT
from bridge.formats.provider_errors import ProviderFault, fault_of
from bridge.formats.usage import COUNT_NAMES, Path, Usage, UsageCounter, Value

_PATHS: dict[str, tuple[Path, ...]] = {
    "details": (("details",),),  # TGI
    "metrics": (("metrics",),),  # Replicate
    "meta": (("meta", "billed_units"), ("meta", "tokens")),  # Cohere v1
    "result": (("result", "usage"),),  # Workers AI
    "usageMetadata": (("usageMetadata",),),  # Gemini
    "usage": (("usage",), ("usage", "billed_units"), ("usage", "tokens")),  # all others; within it Cohere v2
    **dict.fromkeys(COUNT_NAMES, ((),)),  # Ollama; Titan and Llama on Bedrock
}
"""Paths of the counts, by the top-level member that holds them."""

MAX_PARSED_BYTES = 1 << 20
"""Bound on an error that is parsed.

Of a longer one the status and the beginning are used: parsing blocks the event loop.
"""

_BEGINNING_BYTES = 1 << 16
_MAX_PLAIN_BYTES = 1 << 18
"""Bound on a body that is tried with the fast check. In a longer one the check costs little in comparison."""

_EMPTY = frozenset((b"null", b"false", b"0", b'""', b"{}", b"[]"))
_JSON_LABELS = frozenset(("application/json", "text/json"))
_UNCHECKED_STATUSES = frozenset((204, 205, 206))
_WRAPPED = re.compile(rb'\s*+\[\s*+\{\s*+"error"\s*+:')

Members: TypeAlias = dict[str, msgspec.Raw]

_members_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_KNOWN_MEMBERS = sorted(_PATHS.keys() | ANSWER_MEMBERS | DECIDING_MEMBERS)
_known = msgspec.defstruct("Known", [(name, msgspec.Raw, ABSENT) for name in _KNOWN_MEMBERS])
_known_of = msgspec.json.Decoder(_known).decode


_HTML = "text/html"


class _Choice(msgspec.Struct):
    finish_reason: Any = None
    error: Any = None


_choices_of = msgspec.json.Decoder(list[_Choice]).decode


class _AnsweredChoice(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    error: None = None


_plain_members: list[tuple[str, Any, Any]] = [(name, None, None) for name in _KNOWN_MEMBERS]
_plain_types = {"choices": list[_AnsweredChoice], "object": str | None, "usage": dict[str, Any] | None}
_Plain = msgspec.defstruct(
    "Plain", [(name, _plain_types.get(name, kind), default) for name, kind, default in _plain_members], gc=False
)
_plain_of = msgspec.json.Decoder(_Plain).decode
"""Fast check of an OpenAI answer: a body with choices that decodes has its counts in `usage`."""


class Defect(Enum):
    """Reasons why an answer with HTTP status 2xx cannot be used."""

    NOT_JSON = "the provider's answer is labelled JSON but is not valid JSON"
    HTML = "the provider answered with an HTML page instead of a model's answer"


class ParsedResponse(msgspec.Struct, frozen=True):
    """The content of a body in one piece. With HTTP status 2xx at most one of `fault` and `defect` is set."""

    fault: ProviderFault | None = None
    usage: Usage | None = None
    costs: dict[str, Any] = {}
    """Members of the usage that report a cost, unchecked."""
    defect: Defect | None = None


def parse_response(status: int, body: bytes, content_type: str = "", *, from_model: bool = False) -> ParsedResponse:
    """Read the complete body of an answer. Never raises, whatever the bytes.

    `content_type` is the bare media type in lower case. `from_model` means that a model endpoint answered; elsewhere a
    member `error` may be data.
    """
    body = body.removeprefix(BOM)
    if status >= 400:
        return ParsedResponse(fault=fault_of(_error_body(body), status=status))
    if (plain := _plain(body)) is not None:
        return plain
    members = _members_in(body)
    counters = UsageCounter()
    usage_members = _usage_members(members)
    counters.add(usage_members, dict.fromkeys(path for name in usage_members for path in _PATHS[name]))
    fault = defect = None
    if status < 300:
        error = _error_in(members, body) if from_model else None
        fault = None if error is None else fault_of(error)
        defect = None if fault or members else _defect_in(status, body, content_type, from_model)
    return ParsedResponse(fault, counters.usage(), counters.costs(), defect)


def beginning_of_invalid(body: bytes) -> bytes:
    """Return a short text that `parse_response` reads like `body`, which is long and known not to be JSON."""
    return body[:_BEGINNING_BYTES] + b"\0"


def _plain(body: bytes) -> ParsedResponse | None:
    """Return the content of an OpenAI answer without an error; None if the body may be anything else."""
    if len(body) > _MAX_PLAIN_BYTES:
        return None
    try:
        answer: Any = _plain_of(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not answer.choices or answer.object == "error":
        return None
    if any(choice.finish_reason == "error" for choice in answer.choices):
        return None
    if not answer.usage:
        return ParsedResponse()
    counters = UsageCounter()
    counters.add({"usage": answer.usage}, _PATHS["usage"])
    return ParsedResponse(None, counters.usage(), counters.costs())


def _usage_members(members: Members) -> Value:
    """Return the members that may hold counts."""
    counted: Value = {}
    try:
        for name, member in members.items():
            if name in _PATHS and not has_many_parts(bytes(member)):
                counted[name] = parse(bytes(member))
    except (ValueError, RecursionError):
        pass  # later members are not counted
    return counted


def _members_in(body: bytes) -> Members:
    """Return the members of the JSON object in `body`; empty if it is something else.

    If it may have millions of members, only the known ones are returned.
    """
    try:
        if not has_many_parts(body):
            return _members_of(body)
        found = zip(_KNOWN_MEMBERS, msgspec.structs.astuple(_known_of(body)), strict=True)
        return {name: span for name, span in found if span is not ABSENT}
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}


def _defect_in(status: int, body: bytes, content_type: str, from_model: bool) -> Defect | None:
    """Return the defect of a body.

    A part of a file (206) need not parse; an empty body is null, unless a model answered.
    """
    if from_model and content_type == _HTML and body.lstrip().startswith(b"<"):
        return Defect.HTML
    means_json = content_type in _JSON_LABELS or content_type.endswith("+json")
    if not means_json or status in _UNCHECKED_STATUSES or (not body and not from_model):
        return None
    return None if is_complete(body) else Defect.NOT_JSON


def _error_in(members: Members, body: bytes) -> object | None:
    """Return the error that a model endpoint's body reports. Only the members that decide are parsed."""
    if not members:
        wrapped = _error_body(body) if _WRAPPED.match(body) else None
        return reported_error(wrapped if isinstance(wrapped, list) else None, body[:4096].lstrip())
    try:
        value = {name: _deciding_value(name, bytes(raw)) for name, raw in members.items()}
    except (ValueError, RecursionError):
        return None
    is_known = any(not is_empty(value[name]) for name in value.keys() & ANSWER_MEMBERS)
    return reported_error(value, standalone=not is_known)


def _deciding_value(name: str, raw: bytes) -> object:
    """Return a top-level member as far as it decides; `...` stands for a value that need not be parsed."""
    if has_many_parts(raw):
        return ...
    if name == "choices" and raw.startswith(b"["):
        return [{"finish_reason": choice.finish_reason, "error": choice.error} for choice in _choices_in(raw)]
    if name in DECIDING_MEMBERS:
        return parse(raw) if len(raw) <= MAX_PARSED_BYTES else _text_of(raw)
    return None if raw in _EMPTY else ...


def _choices_in(raw: bytes) -> list[_Choice]:
    try:
        return _choices_of(raw)
    except msgspec.DecodeError:  # unexpected types, so no finish_reason
        return [_Choice()]


def _error_body(body: bytes) -> object:
    try:
        if len(body) <= MAX_PARSED_BYTES:
            return parse(body)
    except (ValueError, RecursionError):
        pass
    return _text_of(body)


def _text_of(body: bytes) -> str:
    return " ".join(body[:4096].decode(errors="replace").split())
