"""Decide if a value from a provider reports an error (bridge/docs/protocol.md, "What reports an error"). Pure.

One function decides for the items of a stream and for a body in one piece.
"""

from typing import Any, Final

from bridge.formats.usage import Value, at

ERROR_TEXT: Final = b"[ERROR]"
"""Beginning of a text that some proxies send in place of an answer."""

DECIDING_MEMBERS: Final = frozenset(
    [
        "error",
        "type",
        "object",
        "status",
        "finish_reason",
        "base_resp",
        "choices",
        "errors",
        "detail",
        "success",
        "message",
        "code",
    ]
)
"""Top-level members whose values decide. Of the others only the names count."""

ANSWER_MEMBERS: Final = frozenset(["choices", "candidates", "content", "output", "embeddings", "generations"])
"""A body in one piece with one of these members is in a known dialect."""

_BESIDE_DETAIL: Final = frozenset(["detail", "code", "message", "status", "type", "request_id"])
_GOOD_CODES: Final = frozenset(("", "0", "ok", "success"))


def reported_error(value: Any, text: bytes = b"", *, framed: bool = False, standalone: bool = False) -> object | None:
    """Return the error that a value reports; None if it reports none.

    `value` is the parsed JSON, None if there is none; `text` is the raw text. `framed` means that the framing marks an
    error. `standalone` means that it is a body in one piece or the first item of a stream, from a model endpoint and in
    no known dialect; then more shapes are errors.
    """
    if framed or text.startswith(ERROR_TEXT):
        return value or text.decode(errors="replace").strip() or {}
    if isinstance(value, list):
        return value if _is_wrapped_error(value) else None
    if not isinstance(value, dict):
        return None
    if _is_error(value) or (standalone and _is_standalone_error(value)):
        return value
    return _failed_choice(value)


def is_empty(value: object) -> bool:
    """Return True for null, false, 0, "", {}, [] and an object of nulls."""
    if isinstance(value, dict):
        return all(member is None for member in value.values())
    return not value


def _is_wrapped_error(value: list[Any]) -> bool:
    only = value[0] if len(value) == 1 else None
    return isinstance(only, dict) and only.keys() == {"error"} and not is_empty(only["error"])


def _is_error(value: Value) -> bool:
    return (
        not is_empty(value.get("error"))
        or value.get("type") == "error"
        or value.get("object") == "error"
        or value.get("status") == "failed"
        or str(at(value, ("base_resp", "status_code")) or "0") != "0"
    )


def _is_standalone_error(value: Value) -> bool:
    return (
        not is_empty(value.get("errors"))
        or value.get("success") is False
        or (not is_empty(value.get("detail")) and value.keys() <= _BESIDE_DETAIL)
        or (not is_empty(value.get("message")) and not _is_good(value.get("code")))
    )


def _is_good(code: object) -> bool:
    if is_empty(code):
        return True
    word = str(code).lower()
    return word in _GOOD_CODES or (len(word) == 3 and word.isdecimal() and word.startswith("2"))


def _failed_choice(value: Value) -> object | None:
    """Return the error of an answer that ends with `finish_reason: "error"`, as OpenRouter's do."""
    choices = value.get("choices")
    parts = [value, *(choices if isinstance(choices, list) else ())]
    failed = [part for part in parts if isinstance(part, dict) and part.get("finish_reason") == "error"]
    if not failed:
        return None
    error = failed[0].get("error")
    return "The provider ended its answer with finish_reason error" if is_empty(error) else error
