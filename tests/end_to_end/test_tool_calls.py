"""Check with the pytest plugin, as a user would, that tool calls reach the client as each provider sends them."""

import orjson
import pytest

from bridge.tapes.transport import read_tape
from bridge.testing.frames import BridgeFrames
from tests.support.paths import FIXTURES

TAPES = FIXTURES / "tapes"
ENDPOINTS = {
    "openai": "chat/completions",
    "anthropic": "v1/messages",
    "mistral": "v1/chat/completions",
    "cohere": "v2/chat",
    "google-ai-studio": "v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
}


@pytest.mark.bridge_tapes("fixtures/tapes")
@pytest.mark.parametrize(
    "tape",
    [
        "openai/chat-plain-tools",
        "openai/chat-stream-tools",
        "anthropic/messages-stream-tools",
        "mistral/chat-stream-tools",
        "cohere/v2-chat-stream-tools",
        "google-ai-studio/generate-sse-tools",
    ],
)
def test_the_frames_of_a_tool_call_hold_the_name_of_the_tool(bridge_frames: BridgeFrames, tape: str) -> None:
    provider = tape.partition("/")[0]
    query = orjson.loads(read_tape(TAPES / f"{tape}.jsonl").request.body)
    frames = bridge_frames({"provider": provider, "endpoint": ENDPOINTS[provider], "query": query})
    assert frames[-1]["metadata"]["success"]
    assert "get_tide" in str([frame.get("response") for frame in frames])
