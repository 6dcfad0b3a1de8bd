"""Text of answers: every dialect on the tapes, item by item and in one piece."""

from urllib.parse import urlsplit

import pytest

from bridge.formats.decoders import Shape, decoder_for, sniff
from bridge.formats.item import Item, ItemKind
from bridge.formats.json_parse import parse
from bridge.formats.text import text_of
from bridge.tapes.file import pairs
from bridge.tapes.transport import read_tape
from tests.support.paths import FIXTURES

TAPES = FIXTURES / "tapes"


def text_on(name: str) -> str | None:
    """Return the text of the answer on a tape; None if no item holds text."""
    tape = read_tape(TAPES / f"{name}.jsonl")
    assert tape.head is not None
    content_type = dict(pairs(tape.head.headers)).get("content-type", "").partition(";")[0]
    body = b"".join(chunk.data for chunk in tape.chunks)
    shape = sniff(content_type, urlsplit(tape.request.url).path, body, ended=True)
    assert shape is not None
    if shape is Shape.SINGLE:
        return text_of(parse(body))
    decoder = decoder_for(shape, max_item_bytes=1 << 20)
    texts = [_text_in(item) for item in (*decoder.feed(body), *decoder.finish())]
    return "".join(text for text in texts if text) if any(text is not None for text in texts) else None


def _text_in(item: Item) -> str | None:
    match item.kind:
        case ItemKind.JSON:
            return text_of(parse(item.data))
        case ItemKind.TEXT:
            return text_of(item.data.decode())
        case _:
            return None


@pytest.mark.parametrize(
    ("tape", "text"),
    [
        ("openai/chat-plain", "Hello! The line is clear."),
        ("openai/chat-plain-tools", None),
        ("openai/chat-stream-whole", "Hello from the other side of the wire."),
        ("openai/chat-stream-two-choices-whole", "Hello, old friend."),
        ("openai/completions-stream-whole", " world, said the bridge."),
        ("openai/responses-plain", "Hello, in reply."),
        ("openai/responses-stream-whole", "Hello, in reply."),
        ("azure-openai/chat-stream-whole", "Hello from the other side of the wire."),
        ("deepseek/chat-stream-whole", "Hello from the café on the quai. 😀"),
        ("groq/chat-stream-whole", "Hello, and that was quick."),
        ("openrouter/chat-stream-whole", "Hello by way of a router."),
        ("perplexity-ai/chat-stream-crlf-whole", "Hello, says a source [1]."),
        ("mistral/chat-plain", "Bonjour!"),
        ("mistral/chat-stream-whole", "Bonjour, dit le mistral en passant."),
        ("anthropic/messages-plain", "Hello!"),
        ("anthropic/messages-stream-whole", "Hello, and mind the gap."),
        ("google-ai-studio/generate-plain", "Hello from the far bank."),
        ("google-ai-studio/generate-plain-blocked-prompt", None),
        ("google-ai-studio/generate-sse-whole", "Hello from the far bank.\n"),
        ("google-ai-studio/generate-array-whole", "Hello from the far bank.\n"),
        ("cohere/v2-chat-plain", "Hello!"),
        ("cohere/v2-chat-stream-whole", "Hello, plainly spoken."),
        ("cohere/v1-chat-ndjson-whole", "Hello, plainly spoken."),
        ("workers-ai/chat-stream-whole", "Hello from the edge."),
        ("workers-ai/run-native-plain", "Hello from the edge."),
        ("workers-ai/run-native-stream-whole", "Hello from the edge."),
        ("custom-ollama/chat-ndjson-whole", "Hello from my own machine."),
        ("custom-ollama/generate-ndjson-whole", "Hello, generated."),
        ("huggingface/generate-tgi-whole", "def hello(): return 'hello'"),
        ("replicate/stream-whole", "Hello,\nsaid the cog\n\nAnd 5"),
        ("aws-bedrock/converse-plain", "Hello from the bedrock."),
        ("aws-bedrock/converse-stream-whole", "Hello from the bedrock, layer by layer."),
        ("aws-bedrock/invoke-anthropic-stream-whole", "Hello from the bedrock, layer by layer."),
        ("aws-bedrock/invoke-nova-stream-whole", "Hello from the bedrock, layer by layer."),
        ("deepgram/listen-plain", None),
    ],
)
def test_the_text_of_an_answer_is_found(tape, text):
    assert text_on(tape) == text


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ("as it is", "as it is"),
        ({"choices": [{"delta": {"content": [{"type": "thinking"}, {"type": "text", "text": "so"}]}}]}, "so"),
        ({"choices": [{"delta": {"refusal": "I would rather not."}}]}, "I would rather not."),
        ({"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}, {"text": "Yes."}]}}]}, "Yes."),
        ({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}, None),
        ({"type": "response.function_call_arguments.delta", "delta": "{}"}, None),
        ({"token": {"text": "</s>", "special": True}, "generated_text": "all of it again"}, None),
        ([{"generated_text": "once"}], "once"),
        ({"results": [{"generated_text": "the sun"}]}, "the sun"),
        ({"generation": "lama", "stop_reason": None}, "lama"),
        ({"outputs": [{"text": "bise"}]}, "bise"),
        ({"outputText": "titan"}, "titan"),
        ({"choices": "none", "delta": 5, "message": [], "response": {"text": "deeper"}}, None),
        ([], None),
        (None, None),
        (5, None),
    ],
)
def test_text_is_found_only_in_known_places(response, text):
    assert text_of(response) == text
