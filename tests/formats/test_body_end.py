"""Read the usage of an answer that is too long to buffer."""

import orjson
import pytest

from bridge.formats.body_end import KEPT_BYTES, BodyEnd
from bridge.formats.usage import Usage

LONG = "x" * (3 * KEPT_BYTES)
COUNTS = {"prompt_tokens": 3, "completion_tokens": 2}
USED = Usage(3, 2, None, 5)


def read(body: bytes, piece_bytes: int = 10_000) -> tuple[Usage | None, dict[str, object]]:
    end = BodyEnd()
    for start in range(0, len(body), piece_bytes):
        end.add(body[start : start + piece_bytes])
    answer = end.read()
    return answer.usage, answer.costs


TOLD = {
    "OpenAI": {"data": [{"b64_json": LONG}], "usage": COUNTS},
    "with members behind it": {"text": LONG, "usage": COUNTS, "id": "1", "choices": [{"message": {"content": "a"}}]},
    "Gemini": {"candidates": [LONG], "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}, "id": "a"},
    "Workers AI": {"result": {"response": LONG, "usage": COUNTS}, "success": True},
    "Cohere": {"text": LONG, "meta": {"tokens": {"input_tokens": 3, "output_tokens": 2}}},
    "Ollama": {"response": LONG, "done": True, "prompt_eval_count": 3, "eval_count": 2},
    "beside a text that looks like it": {"usage": COUNTS, "text": LONG[:40_000] + '"usage":{"prompt_tokens":0}}'},
    "beside a member further inside": {"usage": COUNTS, "tool": {"input": {"usage": {"prompt_tokens": 0}}}, "t": "a"},
}


@pytest.mark.parametrize("body", TOLD.values(), ids=TOLD)
@pytest.mark.parametrize("piece_bytes", [7000, KEPT_BYTES, 1 << 20])
def test_usage_is_read_from_the_last_bytes(body: object, piece_bytes: int) -> None:
    assert read(orjson.dumps(body), piece_bytes) == (USED, {})


def test_a_cost_is_read_and_white_space_is_ignored() -> None:
    body = {"text": LONG, "usage": {**COUNTS, "cost": 0.5}}
    assert read(orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)) == (USED, {"cost": 0.5})


UNTOLD = {
    "a text that looks like it": orjson.dumps({"text": LONG + '"usage":{"prompt_tokens":1}}'}),
    "a member further inside": orjson.dumps({"text": LONG, "tool": {"input": {"usage": {"prompt_tokens": 1}}}}),
    "too far from the end": orjson.dumps({"usage": COUNTS, "text": LONG}),
    "cut": orjson.dumps({"text": LONG, "usage": COUNTS})[:-1],
    "no JSON": b"\xff\x00" * KEPT_BYTES,
    "nothing but names": b'"usage' * KEPT_BYTES,
    "nothing": b"",
}


@pytest.mark.parametrize("body", UNTOLD.values(), ids=UNTOLD)
def test_usage_inside_other_members_is_ignored(body: bytes) -> None:
    assert read(body) == (None, {})
