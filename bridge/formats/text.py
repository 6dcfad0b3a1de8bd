"""Find the human-readable text of an answer, in an item of a stream or in one piece.

Thoughts, tool calls and counts are not part of it. To support another provider, add a line to `_PATHS`.
"""

from collections.abc import Callable, Iterator
from typing import Any

Condition = Callable[[dict[str, Any]], bool]
Path = tuple[str | Condition, ...]
"""A path, member by member. A condition selects the object, or the objects of a list, that meet it."""


def text_of(response: object) -> str | None:
    """Return the text in a frame's `response`; None if no text is found, "" if it is empty."""
    if isinstance(response, str):
        return response
    found = (list(_strings(response, path)) for path in _PATHS)
    return next(("".join(texts) for texts in found if texts), None)


def _strings(value: object, path: Path) -> Iterator[str]:
    if not path:
        if isinstance(value, str):
            yield value
        return
    here, rest = path[0], path[1:]
    if isinstance(here, str):
        if isinstance(value, dict) and here in value:
            yield from _strings(value[here], rest)
        return
    for element in value if isinstance(value, list) else [value]:
        if isinstance(element, dict) and here(element):
            yield from _strings(element, rest)


def _each(value: dict[str, Any]) -> bool:
    return True


def _first(choice: dict[str, Any]) -> bool:
    """Return True for the first of several answers: the text of two answers would be mixed."""
    return choice.get("index") in (0, None)


def _is_text(part: dict[str, Any]) -> bool:
    """Return False for thoughts, which Gemini marks, and for special tokens of TGI, such as the end token."""
    return not part.get("thought") and not part.get("special")


def _is(**members: str) -> Condition:
    return lambda value: all(value.get(name) == wanted for name, wanted in members.items())


def _has(name: str) -> Condition:
    return lambda value: name in value


def _lacks(name: str) -> Condition:
    return lambda value: name not in value


_PATHS: tuple[Path, ...] = (
    # OpenAI chat, completions and their followers; Mistral's content may be a list of parts
    ("choices", _first, "delta", "content"),
    ("choices", _first, "delta", "content", _is(type="text"), "text"),
    ("choices", _first, "delta", "refusal"),
    ("choices", _first, "message", "content"),
    ("choices", _first, "message", "content", _is(type="text"), "text"),
    ("choices", _first, "message", "refusal"),
    ("choices", _first, "text"),
    # OpenAI Responses
    (_is(type="response.output_text.delta"), "delta"),
    (_is(type="response.refusal.delta"), "delta"),
    (_is(object="response"), "output", _is(type="message"), "content", _each, "text"),
    # Anthropic, and Bedrock's converse stream
    ("delta", "text"),
    ("content_block", "text"),
    (_is(type="message"), "content", _is(type="text"), "text"),
    # Gemini
    ("candidates", _first, "content", "parts", _is_text, "text"),
    # Cohere v2, v1
    (_is(type="content-delta"), "delta", "message", "content", "text"),
    ("message", "content", _is(type="text"), "text"),
    (_is(event_type="text-generation"), "text"),
    (_has("generation_id"), "text"),
    # Ollama; Workers AI
    ("message", "content"),
    ("response",),
    ("result", "response"),
    # TGI, whose last item repeats it all beside its own token
    ("token", _is_text, "text"),
    (_lacks("token"), "generated_text"),
    # watsonx
    ("results", _each, "generated_text"),
    # Bedrock: converse, Nova, Titan, Llama, Mistral
    ("output", "message", "content", _each, "text"),
    ("contentBlockDelta", "delta", "text"),
    ("outputText",),
    ("results", _each, "outputText"),
    ("generation",),
    ("outputs", _each, "text"),
)
"""Paths in the order in which they are tried: the first that leads to a string wins."""
