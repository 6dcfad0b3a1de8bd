"""The usage of a realtime session is the sum of its turns."""

import base64
import os

import orjson
import pytest

from bridge.formats.realtime_usage import add_usage, requested_model, turn_in
from bridge.formats.usage import Usage

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
            "input_token_details": {
                "text_tokens": 119,
                "audio_tokens": 13,
                "cached_tokens": 64,
                "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4},
            },
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
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 7}, {"modality": "AUDIO", "tokenCount": 3}],
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 19}],
    },
}


def used(*messages: object) -> Usage | None:
    usage = None
    for message in messages:
        if turn := turn_in(message if isinstance(message, bytes) else orjson.dumps(message)):
            usage = add_usage(usage, turn.usage)
    return usage


def test_the_turns_of_a_session_are_added_up() -> None:
    assert used(OPENAI, {"type": "response.created", "response": {"usage": None}}, OPENAI) == Usage(
        264, 242, 128, 506, None, 26, 182, 8
    )
    assert used(GEMINI, GEMINI, GEMINI) == Usage(30, 60, None, 90, None, 9, 57)


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete"])
def test_a_turn_on_a_socket_of_responses_names_the_model_that_answered(kind: str) -> None:
    message = {"type": kind, "response": {"model": "gpt-5", "usage": {"input_tokens": 3, "output_tokens": 2}}}
    assert turn_in(orjson.dumps(message)) == (Usage(3, 2, None, 5), "gpt-5")


def test_each_usage_of_gemini_counts_one_turn() -> None:
    """The numbers are from a live session (github.com/pydantic/pydantic-ai/pull/7269): the context grows and is
    billed again.
    """
    turns = ((143, 19, 162), (181, 24, 205), (224, 24, 248))
    names = ("promptTokenCount", "responseTokenCount", "totalTokenCount")
    messages = [{"usageMetadata": dict(zip(names, turn, strict=True))} for turn in turns]
    assert used(*messages) == Usage(548, 67, None, 615)


def test_unknown_counts_of_a_turn_do_not_change_the_sum() -> None:
    some = {"usageMetadata": {"promptTokenCount": 5}}
    assert used(some, GEMINI) == used(GEMINI, some) == Usage(15, 20, None, 30, None, 3, 19)


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
def test_other_messages_have_no_usage(message: object) -> None:
    assert used(message) is None


def test_audio_messages_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Almost every message is audio, which costs only a search for one word."""
    monkeypatch.setattr(orjson, "loads", None)
    audio = base64.b64encode(os.urandom(10_000)).decode()
    assert used(b'{"type":"response.output_audio.delta","delta":"%s"}' % audio.encode()) is None


@pytest.mark.parametrize(
    ("message", "model"),
    [
        (b'{"setup":{"model":"models/gemini-live-2.5-flash"}}', "gemini-live-2.5-flash"),
        (b'{"setup":{"model":"projects/p/locations/l/publishers/google/models/gemini-live"}}', "gemini-live"),
        (b'{"type":"response.create","model":"gpt-5","input":"Hi"}', "gpt-5"),
        (b'{"model_id":"sonic-2","transcript":"Hi"}', "sonic-2"),
        (b'{"model":"org/name"}', "org/name"),
        (b'{"setup":{"mod\\u0065l":"models/m","x":"\\ud83d"}}', "m"),
        (b'{"model":"m","temperature":NaN}', "m"),
        (b'{"model":{"model":5}}', None),
        (b'{"setup":{}}', None),
        (b'{"setup":5}', None),
        (b'{"type":"session.update"}', None),
        (b'"model"', None),
        (b'\xff"model"', None),
        (b"", None),
    ],
)
def test_a_first_message_may_name_the_model(message: bytes, model: str | None) -> None:
    assert requested_model(message) == model
