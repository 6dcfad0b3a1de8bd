"""An answer in one piece: what it cost, or what is wrong."""

from typing import Any

import msgspec

from bridge.wire.faults import Fault, fault_of
from bridge.wire.parsing import parse
from bridge.wire.usage import COUNT_NAMES, Path, Tally, Usage, Value

_PATHS: dict[str, tuple[Path, ...]] = {
    "details": (("details",),),  # TGI
    "metrics": (("metrics",),),  # Replicate
    "meta": (("meta", "billed_units"), ("meta", "tokens")),  # Cohere v1
    "result": (("result", "usage"),),  # Workers AI
    "usageMetadata": (("usageMetadata",),),  # Gemini
    "usage": (("usage",), ("usage", "billed_units"), ("usage", "tokens")),  # all others; within it Cohere v2
    **dict.fromkeys(COUNT_NAMES, ((),)),  # Ollama; Titan and Llama on Bedrock
}
"""Where the counts stand, by the member of the body that holds them."""

LONGEST_PARSED_BYTES = 1 << 20
"""Of an error. A longer one is told by its status and its beginning: to take it apart would keep the others waiting."""

_members_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Answer(msgspec.Struct, frozen=True):
    """A fault exactly when the HTTP status is 400 or more: a 200 that holds an error is the provider's answer."""

    fault: Fault | None = None
    usage: Usage | None = None
    costs: dict[str, Any] = {}
    """The members of the usage that tell a cost, unchecked."""


def read_answer(status: int, body: bytes) -> Answer:
    """Read the whole body of an answer; never raises, whatever the bytes."""
    if status >= 400:
        return Answer(fault=fault_of(_reported(body), status=status))
    tally = Tally()
    counted = _counted(body)
    tally.add(counted, dict.fromkeys(path for name in counted for path in _PATHS[name]))
    return Answer(usage=tally.usage(), costs=tally.costs())


def _counted(body: bytes) -> Value:
    """The members that may hold counts."""
    counted: Value = {}
    try:
        for name, member in _members_of(body).items():
            if name in _PATHS:
                counted[name] = parse(bytes(member))
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass  # no JSON object, or what follows is none
    return counted


def _reported(body: bytes) -> object:
    try:
        if len(body) <= LONGEST_PARSED_BYTES:
            return parse(body)
    except (ValueError, RecursionError):
        pass
    return " ".join(body[:4096].decode(errors="replace").split())
