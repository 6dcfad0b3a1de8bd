"""Relay sessions in the protocols of real providers unchanged, opcode by opcode."""

import base64
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from tests.support.harness import config_of, running
from tests.support.raw_client import UPGRADE, connect_raw, frame
from tests.support.realtime_harness import BINARY, CLOSE, TEXT, AcceptingProvider, client_close_frame, close_payload
from tests.support.socket_provider import Provider

ACCOUNT = "0123456789abcdef0123456789abcdef"
AUDIO = bytes(range(256)) * 2 + b"\x00" * 128
SPOKEN = base64.b64encode(AUDIO).decode()

CLIENT, PROVIDER = "client", "provider"

Turn = tuple[str, int, bytes]


def says(who: str, message: object) -> Turn:
    return who, TEXT, orjson.dumps(message)


def sends(who: str, data: bytes) -> Turn:
    return who, BINARY, data


def in_binary(message: object) -> Turn:
    """Return a binary message of JSON lines, as Google sends it."""
    return PROVIDER, BINARY, orjson.dumps(message, option=orjson.OPT_INDENT_2)


@dataclass(frozen=True)
class Talk:
    slug: str
    url: str
    """What follows the gateway's name."""
    headers: dict[str, str]
    target: str
    """What the provider is asked for."""
    key: tuple[str, str]
    turns: tuple[Turn, ...]
    close: tuple[str, int, bytes]
    """Who says goodbye, and how."""


TALKS = [
    Talk(
        "openai",
        "openai?model=gpt-realtime",
        {"Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.sk-1"},
        "/v1/realtime?model=gpt-realtime",
        ("authorization", "Bearer sk-1"),
        (
            says(PROVIDER, {"type": "session.created", "event_id": "event_1", "session": {}}),
            says(CLIENT, {"type": "session.update", "session": {"type": "realtime", "instructions": "Be brief."}}),
            says(PROVIDER, {"type": "session.updated", "event_id": "event_2", "session": {}}),
            says(CLIENT, {"type": "input_audio_buffer.append", "audio": SPOKEN}),
            says(PROVIDER, {"type": "error", "event_id": "event_3", "error": {"type": "invalid_request_error"}}),
            says(PROVIDER, {"type": "response.output_audio.delta", "event_id": "event_4", "delta": SPOKEN}),
            says(PROVIDER, {"type": "response.done", "response": {"usage": {"input_tokens": 3, "output_tokens": 5}}}),
        ),
        (CLIENT, 1000, b""),
    ),
    Talk(
        "google-ai-studio",
        "google?api_key=AIza",
        {},
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
        ("x-goog-api-key", "AIza"),
        (
            says(
                CLIENT,
                {"setup": {"model": "models/gemini-live", "inputAudioTranscription": {}}},
            ),
            in_binary({"setupComplete": {"sessionId": "16dbe99e"}}),
            says(
                CLIENT,
                {"clientContent": {"turns": [{"parts": [{"text": "Hi"}]}], "turnComplete": True}},
            ),
            in_binary({"toolCall": {"functionCalls": [{"name": "get_weather", "args": {"city": "London"}}]}}),
            says(CLIENT, {"toolResponse": {"functionResponses": [{"id": "1", "response": {"result": "Sunny"}}]}}),
            in_binary({"serverContent": {"modelTurn": {"parts": [{"inlineData": {"data": SPOKEN}}]}}}),
            in_binary({"serverContent": {"turnComplete": True}, "usageMetadata": {"promptTokenCount": 1}}),
            in_binary({"goAway": {"timeLeft": "10s"}}),
        ),
        (PROVIDER, 1011, b"Deadline expired before operation could complete."),
    ),
    Talk(
        "cartesia",
        "cartesia?cartesia_version=2024-06-10&api_key=sk_car",
        {},
        "/tts/websocket?cartesia_version=2024-06-10",
        ("x-api-key", "sk_car"),
        (
            says(CLIENT, {"model_id": "sonic", "transcript": "Hello", "context_id": "c", "continue": True}),
            says(PROVIDER, {"type": "chunk", "data": SPOKEN, "done": False, "status_code": 206, "context_id": "c"}),
            says(PROVIDER, {"type": "timestamps", "context_id": "c", "word_timestamps": {"words": ["Hello"]}}),
            says(PROVIDER, {"type": "done", "done": True, "status_code": 200, "context_id": "c"}),
        ),
        (PROVIDER, 1000, b""),
    ),
    Talk(
        "elevenlabs",
        "elevenlabs?agent_id=agent_1",
        {"Sec-WebSocket-Protocol": "xi-api-key.sk_xi"},
        "/v1/convai/conversation?agent_id=agent_1",
        ("xi-api-key", "sk_xi"),
        (
            says(CLIENT, {"type": "conversation_initiation_client_data"}),
            says(PROVIDER, {"type": "conversation_initiation_metadata", "conversation_initiation_metadata_event": {}}),
            says(PROVIDER, {"type": "ping", "ping_event": {"event_id": 1, "ping_ms": 50}}),
            says(CLIENT, {"type": "pong", "event_id": 1}),
            says(CLIENT, {"user_audio_chunk": SPOKEN}),
            says(PROVIDER, {"type": "audio", "audio_event": {"audio_base_64": SPOKEN, "event_id": 2}}),
            says(PROVIDER, {"type": "agent_response", "agent_response_event": {"agent_response": "Hello there."}}),
        ),
        (CLIENT, 1000, b""),
    ),
    Talk(
        "fal",
        "fal/fal-ai/fast-lcm-diffusion",
        {"Sec-WebSocket-Protocol": "fal-api-key.id%3Asecret"},
        "/fal-ai/fast-lcm-diffusion",
        ("authorization", "Key id:secret"),
        (
            says(CLIENT, {"prompt": "a cat flying an aeroplane"}),
            says(PROVIDER, {"type": "start", "request_id": "r", "status": 200, "headers": {}}),
            sends(PROVIDER, AUDIO),
            says(PROVIDER, {"type": "end", "request_id": "r", "status": 200, "time_to_first_byte_seconds": 0.1}),
        ),
        (CLIENT, 1001, b""),
    ),
    Talk(
        "workers-ai",
        "workers-ai?model=@cf/deepgram/nova-3&encoding=linear16&sample_rate=16000&interim_results=true",
        {"Authorization": "Bearer cf"},
        f"/accounts/{ACCOUNT}/ai/run/@cf/deepgram/nova-3?encoding=linear16&sample_rate=16000&interim_results=true",
        ("authorization", "Bearer cf"),
        (
            sends(CLIENT, AUDIO),
            says(PROVIDER, {"type": "Results", "is_final": False, "channel": {"alternatives": [{"transcript": "en"}]}}),
            sends(CLIENT, AUDIO),
            says(CLIENT, {"type": "KeepAlive"}),
            says(PROVIDER, {"type": "Results", "is_final": True, "channel": {"alternatives": []}}),
            says(CLIENT, {"type": "CloseStream"}),
            says(PROVIDER, {"type": "Metadata", "request_id": "4b21fb93", "channels": 1}),
        ),
        (PROVIDER, 1000, b""),
    ),
    Talk(
        "deepgram",
        "deepgram/v1/listen?model=nova-3&encoding=linear16",
        {"Sec-WebSocket-Protocol": "token, dg"},
        "/v1/listen?model=nova-3&encoding=linear16",
        ("authorization", "Token dg"),
        (
            sends(CLIENT, AUDIO),
            says(PROVIDER, {"type": "SpeechStarted", "channel": [0], "timestamp": 0.5}),
            sends(CLIENT, b""),  # ends the stream: it has to arrive
        ),
        (PROVIDER, 1011, b"NET-0001"),
    ),
    Talk(
        "deepgram",
        "deepgram/v1/agent/converse",
        {"Sec-WebSocket-Protocol": "token, dg"},
        "/v1/agent/converse",
        ("authorization", "Token dg"),
        (
            says(PROVIDER, {"type": "Welcome", "request_id": "b17f0618"}),
            says(CLIENT, {"type": "Settings", "audio": {"input": {"encoding": "linear16"}}}),
            says(PROVIDER, {"type": "SettingsApplied"}),
            sends(CLIENT, AUDIO),
            says(PROVIDER, {"type": "ConversationText", "role": "assistant", "content": "4"}),
            sends(PROVIDER, AUDIO),
            says(PROVIDER, {"type": "AgentAudioDone"}),
        ),
        (CLIENT, 1000, b""),
    ),
]

BASES = {"openai": "/v1", "workers-ai": "/accounts/{account_id}/ai"}
"""The paths of base URLs."""


@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.url.partition("?")[0])
async def test_a_session_of_each_provider_passes_unchanged(tmp_path: Path, talk: Talk) -> None:
    base = BASES.get(talk.slug, "")
    sockets = AcceptingProvider()
    async with Provider(sockets.script) as provider:
        text = f'[providers.{talk.slug}]\nbase_url = "http://127.0.0.1:{provider.port}{base}"\n'
        async with running(config_of(text, tmp_path)) as server, connect_raw(server, receive_bytes=65_536) as client:
            response = await client.request(f"/v1/{ACCOUNT}/gateway/{talk.url}", {**UPGRADE, **talk.headers})
            assert response.status == 101
            side = await sockets.next_session()
            assert side.target == talk.target
            assert side.headers[talk.key[0]] == talk.key[1]
            for who, opcode, data in talk.turns:
                if who == CLIENT:
                    await client.send(frame(data, opcode))
                    assert await side.next_frame() == (opcode, data)
                else:
                    await side.send(data, opcode)
                    assert await client.next_frame() == (opcode, data)
            who, code, reason = talk.close
            if who == CLIENT:
                await client.send(frame(close_payload(code, reason), CLOSE))
                assert await side.close_frame() == (code, reason.decode())
            else:
                await side.send(close_payload(code, reason), CLOSE)
                assert await client_close_frame(client) == (code, reason.decode())
            side.line.drop()
