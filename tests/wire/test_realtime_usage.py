"""What a realtime session used: the sum of its turns, and no word of anything else."""

import base64
import os

import orjson
import pytest

from bridge.wire.realtime_usage import SessionUsage, model_in_setup
from bridge.wire.usage import Usage

OPENAI = {
    "type": "response.done",
    "event_id": "event_1",
    "response": {
        "object": "realtime.response",
        "status": "completed",
        "output": [],
        "usage": {
            "total_tokens": 253,
            "input_tokens": 132,
            "output_tokens": 121,
            "input_token_details": {"text_tokens": 119, "audio_tokens": 13, "cached_tokens": 64},
            "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
        },
    },
}
GEMINI = {
    "serverContent": {"turnComplete": True},
    "usageMetadata": {
        "promptTokenCount": 10,
        "responseTokenCount": 20,
        "totalTokenCount": 30,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
    },
}


def used(*messages: object) -> Usage | None:
    usage = SessionUsage()
    for message in messages:
        usage.look(message if isinstance(message, bytes) else orjson.dumps(message))
    return usage.usage()


def test_the_turns_of_a_session_are_added_up() -> None:
    assert used(OPENAI, {"type": "response.created", "response": {"usage": None}}, OPENAI) == Usage(264, 242, 128, 506)
    assert used(GEMINI, GEMINI, GEMINI) == Usage(30, 60, None, 90)


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete"])
def test_so_are_those_of_a_socket_of_responses(kind: str) -> None:
    assert used({"type": kind, "response": {"usage": {"input_tokens": 3, "output_tokens": 2}}}) == Usage(3, 2, None, 5)


def test_what_one_turn_does_not_tell_does_not_spoil_the_sum() -> None:
    some = {"usageMetadata": {"promptTokenCount": 5}}
    assert used(some, GEMINI) == Usage(15, 20, None, 30)
    assert used(GEMINI, some) == Usage(15, 20, None, 30)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b'"usage',
        b'{"usage',
        b'{"type":"response.done","response":{"usage":',
        b'{"type":"response.done","response":{"usage":5}}',
        b'{"type":"response.done","usage":{"input_tokens":3}}',
        b'["usageMetadata"]',
        b'{"usageMetadata":[]}',
        b'{"type":"conversation.item.input_audio_transcription.completed","usage":{"type":"duration","seconds":3}}',
        {"type": "response.output_text.delta", "delta": 'she said "usageMetadata" and "response.done"'},
        os.urandom(640),
        b"\x7b" + os.urandom(640),
    ],
)
def test_nothing_else_is_taken_for_usage(message: object) -> None:
    assert used(message) is None


def test_audio_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Almost every message is audio, and a search for one word is all it costs."""
    monkeypatch.setattr(orjson, "loads", None)
    audio = base64.b64encode(os.urandom(10_000)).decode()
    assert used(b'{"type":"response.output_audio.delta","delta":"%s"}' % audio.encode()) is None


@pytest.mark.parametrize(
    ("message", "model"),
    [
        (b'{"setup":{"model":"models/gemini-live-2.5-flash"}}', "gemini-live-2.5-flash"),
        (b'{"setup":{"model":"projects/p/locations/l/publishers/google/models/gemini-live"}}', "gemini-live"),
        (b'{"setup":{}}', None),
        (b'{"setup":5}', None),
        (b'{"type":"session.update"}', None),
        (b'"setup"', None),
        (b'\xff"setup"', None),
        (b"", None),
    ],
)
def test_geminis_model_is_in_the_first_message(message: bytes, model: str | None) -> None:
    assert model_in_setup(message) == model
