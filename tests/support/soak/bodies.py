"""Random response bodies of several formats. Each item carries the number of its response and its own index."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import orjson

TOKEN: Final = re.compile(r"~(\d+)\.(\d+)\.(\d+)/(\d+)~")
"""The mark of an item: family of the event, step, call, index."""

BIG_PAD_BYTES: Final = 50_000
_PAD: Final = "The quick brown fox jumps over the lazy dog; grüße, 漢字 and 😀. " * 2000


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a stream. `value` is the `response` of its frame; `end` is its offset in the body, text included."""

    value: object
    end: int
    is_malformed: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """A response body, decoded."""

    kind: str
    content_type: str
    data: bytes
    items: list[Item] = field(default_factory=list)
    """Empty for an answer in one piece, and for audio."""
    least: int | None = 1
    """Number of items from the first that make the answer complete; None if it never is."""
    is_stream: bool = True
    has_end_mark: bool = True
    """False if a clean end of the HTTP body in the wrong place is not detectable."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a body, and the fault inside it."""

    key: str
    pads: list[int]
    """Length of each item's text."""
    has_error: bool = False
    has_malformed: bool = False
    has_usage: bool = False


def pad(rng: Random, size: int) -> str:
    start = rng.randrange(len(_PAD) // 2)
    return _PAD[start : start + size]


def pads(rng: Random, *, big: bool) -> list[int]:
    if big:
        return [rng.randrange(BIG_PAD_BYTES // 3, BIG_PAD_BYTES) for _ in range(rng.randint(8, 24))]
    count = rng.choice((1, 2, 3, 5, 8, 13, rng.randint(20, 60)))
    return [rng.randrange(5, 9000) if rng.random() < 0.04 else rng.randrange(1, 160) for _ in range(count)]


class SseWriter:
    """Builds an event stream with random line ends, comments and fields without a meaning."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._line_end = rng.choice((b"\n", b"\n", b"\r\n"))
        self.data = bytearray()
        self.items: list[Item] = []

    def add(self, data: bytes, value: object = None, event: str = "", *, malformed: bool = False) -> None:
        """Add one event; without a `value` it is an end mark, which is no item."""
        end = self._line_end
        if self._rng.random() < 0.08:
            self.data += self._rng.choice((b": comment", b"retry: 5", b"unknown: field", b"")) + end
        if event:
            self.data += b"event: " + event.encode() + end
        self.data += b"data: " + data
        text_end = len(self.data)
        self.data += end + end
        if value is not None:
            self.items.append(Item(value, text_end, malformed))


def _add_json(sse: SseWriter, value: dict[str, Any], event: str = "") -> None:
    sse.add(orjson.dumps(value), value, event)


def _add_texts(
    sse: SseWriter, rng: Random, shape: Shape, item: Callable[[str, str], dict[str, Any]], event: str
) -> int:
    """Add the items of the text, one of which may be malformed or an error. Return the index after the last."""
    middle = len(shape.pads) // 2
    for index, size in enumerate(shape.pads, start=1):
        token = f"~{shape.key}/{index}~"
        if shape.has_malformed and index == middle:
            text = f'{{"id":"{token}","broken":['
            sse.add(text.encode(), text, event, malformed=True)
        elif shape.has_error and index == middle + 1:
            _add_json(sse, {"error": {"message": "too busy", "type": "overloaded_error", "code": token}})
        else:
            _add_json(sse, item(token, pad(rng, size)), event)
    return len(shape.pads) + 1


def chat(rng: Random, shape: Shape) -> Body:
    """Build a stream of OpenAI's chat completions: role, texts, finish, perhaps usage, [DONE]."""

    def chunk(token: str, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"id": token, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    sse = SseWriter(rng)
    _add_json(sse, chunk(f"~{shape.key}/0~", {"role": "assistant", "content": ""}))
    after = _add_texts(sse, rng, shape, lambda token, text: chunk(token, {"content": text}), "")
    _add_json(sse, chunk(f"~{shape.key}/{after}~", {}, "stop"))
    least = after + 1
    if shape.has_usage:
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        _add_json(sse, {"id": f"~{shape.key}/{after + 1}~", "choices": [], "usage": usage})
    sse.add(b"[DONE]")
    return _event_stream("chat", sse, shape, least)


def messages(rng: Random, shape: Shape) -> Body:
    """Build a stream of Anthropic's messages."""

    def delta(token: str, text: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": 0, "id": token, "delta": {"type": "text_delta", "text": text}}

    sse = SseWriter(rng)
    start = {"type": "message_start", "message": {"id": f"~{shape.key}/0~", "usage": {"input_tokens": 3}}}
    _add_json(sse, start, "message_start")
    after = _add_texts(sse, rng, shape, delta, "content_block_delta")
    stop = {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}, "id": f"~{shape.key}/{after}~"}
    _add_json(sse, {"type": "message_delta", **stop}, "message_delta")
    _add_json(sse, {"type": "message_stop", "id": f"~{shape.key}/{after + 1}~"}, "message_stop")
    return _event_stream("messages", sse, shape, after + 1)


def responses(rng: Random, shape: Shape) -> Body:
    """Build a stream of OpenAI's Responses."""

    def delta(token: str, text: str) -> dict[str, Any]:
        return {"type": "response.output_text.delta", "item_id": token, "delta": text}

    sse = SseWriter(rng)
    _add_json(sse, {"type": "response.created", "response": {"id": f"~{shape.key}/0~"}}, "response.created")
    after = _add_texts(sse, rng, shape, delta, "response.output_text.delta")
    done = {"id": f"~{shape.key}/{after}~", "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 2}}
    _add_json(sse, {"type": "response.completed", "response": done}, "response.completed")
    return _event_stream("responses", sse, shape, after + 1)


def _event_stream(kind: str, sse: SseWriter, shape: Shape, least: int) -> Body:
    items = sse.items
    if shape.has_error:
        failed = next(n for n, item in enumerate(items) if isinstance(item.value, dict) and "error" in item.value)
        items = items[: failed + 1]
    return Body(kind, "text/event-stream", bytes(sse.data), items, None if shape.has_error else least)


def lines(rng: Random, shape: Shape) -> Body:
    """Build NDJSON of no known dialect: complete where the HTTP body ends."""
    values = ({"mark": f"~{shape.key}/{n}~", "text": pad(rng, size)} for n, size in enumerate(shape.pads))
    data, items = _joined(values, b"", b"\n", b"\n")
    return Body("lines", "application/x-ndjson", data, items, len(items), has_end_mark=False)


def array(rng: Random, shape: Shape) -> Body:
    """Build a stream of Gemini's as one JSON array."""

    def part(index: int, size: int) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": [{"text": pad(rng, size)}]}}
        value: dict[str, Any] = {"candidates": [candidate], "responseId": f"~{shape.key}/{index}~"}
        if index == len(shape.pads) - 1:
            candidate["finishReason"] = "STOP"
            value["usageMetadata"] = {"promptTokenCount": 3, "candidatesTokenCount": 2}
        return value

    data, items = _joined((part(n, size) for n, size in enumerate(shape.pads)), b"[", b",\r\n", b"]\n")
    return Body("array", "application/json", data, items, len(items))


def _joined(values: Iterable[dict[str, Any]], before: bytes, between: bytes, after: bytes) -> tuple[bytes, list[Item]]:
    data, items = bytearray(before), list[Item]()
    for value in values:
        if items:
            data += between
        data += orjson.dumps(value)
        items.append(Item(value, len(data)))
    return bytes(data + after), items


def audio(rng: Random, shape: Shape) -> Body:
    data = f"~{shape.key}/0~".encode() + b"".join(rng.randbytes(size) for size in shape.pads)
    return Body("audio", "audio/mpeg", data, has_end_mark=False)


def json(rng: Random, shape: Shape) -> Body:
    """Build an answer in one piece."""
    texts = [pad(rng, size) for size in shape.pads]
    value = {"id": f"~{shape.key}/0~", "choices": texts, "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    return Body("json", "application/json", orjson.dumps(value), is_stream=False)


def text(rng: Random, shape: Shape) -> Body:
    data = f"~{shape.key}/0~ " + "".join(pad(rng, size) for size in shape.pads)
    return Body("text", "text/plain; charset=utf-8", data.encode(), is_stream=False, has_end_mark=False)


def image(rng: Random, shape: Shape) -> Body:
    data = f"~{shape.key}/0~".encode() + b"".join(rng.randbytes(size) for size in shape.pads)
    return Body("image", "image/png", data, is_stream=False, has_end_mark=False)


def error(rng: Random, shape: Shape) -> Body:
    """Build the body of a provider's error status."""
    value = {"error": {"message": pad(rng, 40), "code": f"~{shape.key}/0~"}}
    return Body("error", "application/json", orjson.dumps(value), least=None, is_stream=False)


FORMATS: Final[dict[str, tuple[Callable[[Random, Shape], Body], str, int]]] = {
    "chat": (chat, "v1/chat/completions", 36),
    "messages": (messages, "v1/messages", 12),
    "responses": (responses, "v1/responses", 8),
    "lines": (lines, "api/lines", 8),
    "array": (array, "v1beta/models/small:streamGenerateContent", 6),
    "audio": (audio, "v1/audio/speech", 4),
    "json": (json, "v1/chat/completions", 20),
    "text": (text, "api/text", 3),
    "image": (image, "api/image", 3),
}
"""Builder, endpoint and weight of each format."""
