"""The table of model endpoints decides for every rule if a request makes a model answer."""

import pytest

from bridge.providers.model_endpoints import is_model_endpoint, is_model_list, is_model_socket
from bridge.providers.registry import REGISTRY

MODEL_ENDPOINTS = """
chat/completions
v1/chat/completions
/v1/chat/completions
/openai/v1/chat/completions?x=1
V1/Chat/Completions/
chat%2Fcompletions
completions
beta/completions
v1/responses
responses/compact
v1/embeddings
v1/moderations
images/generations
images/edits
images/variations
audio/speech
audio/transcriptions
audio/translations
videos
threads/runs
threads/thread_1/runs
v1/messages
anthropic/v1/messages
v1/complete
v1beta/models/gemini-2.5-flash:generateContent
v1beta/models/gemini-2.5-flash%3AgenerateContent
v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse
v1beta/models/text-embedding-004:embedContent
v1beta/models/text-embedding-004:batchEmbedContents
v1beta/interactions
v1beta/openai/chat/completions
v1/projects/p/locations/r/publishers/google/models/m:generateContent
v1/projects/p/locations/r/publishers/google/models/m:predict
v1/projects/p/locations/r/publishers/google/models/m:predictLongRunning
v1/projects/p/locations/r/publishers/anthropic/models/m@20250101:rawPredict
v1/projects/p/locations/r/publishers/anthropic/models/m:streamRawPredict
v1/projects/p/locations/r/endpoints/openapi/chat/completions
resource/gpt-4.1/chat/completions?api-version=2023-05-15
resource/openai/responses?api-version=1
resource/openai/v1/responses
/openai/deployments/gpt/images/generations
/openai/deployments/gpt/extensions/chat/completions
bedrock-runtime/us-east-1/model/us.anthropic.claude-v1:0/invoke
bedrock-runtime/us-east-1/model/us.anthropic.claude-v1:0/invoke-with-response-stream
bedrock-runtime/us-east-1/model/arn%3Aaws%3Abedrock%3Aeu%3A1%3Ainference-profile%2Fx/converse
bedrock-runtime/us-east-1/model/x/converse-stream
bedrock-mantle/us-east-1/anthropic/v1/messages
bedrock-mantle/us-east-1/v1/responses
@cf/meta/llama-3.1-8b-instruct
/@cf/meta/llama-3.1-8b-instruct
@hf/thebloke/x
run/@cf/meta/llama-3.1-8b-instruct
/client/v4/accounts/0123456789abcdef0123456789abcdef/ai/run/@cf/meta/llama
/client/v4/accounts/0123456789abcdef0123456789abcdef/ai/v1/chat/completions
v1/fim/completions
v1/agents/completions
v1/ocr
v1/chat/moderations
v1/chat
v2/chat
v1/generate
v2/embed
v2/rerank
v1/classify
v1/summarize
compatibility/v1/chat/completions
predictions
v1/predictions
models/meta/llama/predictions
deployments/acme/app/predictions
/models/bigcode/starcoder
/models/gpt2
hf-inference/models/bigcode/starcoder
model/abc123
/production/predict
v1/tasks/runs
v1beta/search
v1beta/findall/ingest
tts/bytes
tts/sse
stt
voice-changer/bytes
v1/text-to-speech/voice?output_format=mp3_44100_128
v1/text-to-speech/voice/stream
v1/text-to-speech/voice/stream/with-timestamps
v1/speech-to-speech/voice
v1/speech-to-text
v1/sound-generation
v1/listen?model=nova-3
v1/speak
v1/read
fal-ai/fast-sdxl
fal-ai/flux/dev/stream
v1/ideogram-v3/generate
generate
remix
/inference/v1/chat/completions
workflows/accounts/fireworks/models/flux/text_to_image
api/generate
api/chat
"""

OTHER_ENDPOINTS = """
files
v1/files
v1/files/file-1/content
v1/uploads
batches
v1/batches
v1/messages/batches
v1/messages/count_tokens
models
v1/models
v1/responses/resp_1
v1/responses/resp_1/cancel
v1/responses/input_tokens
v1/chat/completions/chatcmpl-1
v1/threads
v1/threads/thread_1/messages
v1/threads/thread_1/runs/run_1/cancel
v1/assistants
v1/vector_stores
v1/vector_stores/vs_1/search
v1/conversations
v1/fine_tuning/jobs
v1/realtime/sessions
v1/realtime/client_secrets
v1/organization/admin_api_keys
v1beta/models/gemini-2.5-flash:countTokens
v1beta/models/gemini-2.5-flash:batchGenerateContent
v1beta/cachedContents
upload/v1beta/files
bedrock-runtime/us-east-1/async-invoke
bedrock-runtime/us-east-1/model/x/count-tokens
predictions/abc/cancel
v1/trainings
v1/voices/add
v1/auth/grant
v1/tokenize
chat/completions/files
"""


@pytest.mark.parametrize("endpoint", MODEL_ENDPOINTS.split())
def test_a_post_that_makes_a_model_answer_is_to_a_model_endpoint(endpoint: str) -> None:
    assert is_model_endpoint("POST", endpoint)
    assert is_model_endpoint("post", endpoint)


@pytest.mark.parametrize("endpoint", ["", "/", *OTHER_ENDPOINTS.split()])
def test_files_batches_lists_and_stored_answers_are_not_model_endpoints(endpoint: str) -> None:
    assert not is_model_endpoint("POST", endpoint)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "FOO"])
def test_only_a_post_makes_a_model_answer(method: str) -> None:
    assert not is_model_endpoint(method, "v1/chat/completions")


def test_a_query_or_a_fragment_makes_no_model_endpoint() -> None:
    assert not is_model_endpoint("POST", "v1/files?x=/chat/completions")
    assert not is_model_endpoint("POST", "v1/files#/chat/completions")


@pytest.mark.parametrize(
    ("provider", "endpoint"), [("huggingface", "bigcode/starcoder"), ("fal", "bria/expand"), ("fal", "")]
)
def test_every_post_is_a_model_call_if_the_path_is_a_models_name(provider: str, endpoint: str) -> None:
    assert is_model_endpoint("POST", endpoint, provider)
    assert not is_model_endpoint("GET", endpoint, provider)


def test_the_chat_endpoint_of_every_provider_that_has_one_is_a_model_endpoint() -> None:
    assert all(is_model_endpoint("POST", row.compat_path, row.slug) for row in REGISTRY.values() if row.compat_path)


@pytest.mark.parametrize("endpoint", ["models", "v1/models?limit=5", "/v1beta/models", "openai/v1/models/"])
def test_a_get_of_models_lists_them(endpoint: str) -> None:
    assert is_model_list("GET", endpoint)
    assert not is_model_list("DELETE", endpoint)


@pytest.mark.parametrize("endpoint", ["", "v1/files", "v1/models/ft:mine", "v1/files?x=/models", "v1/modelsx"])
def test_other_paths_are_not_lists_of_models(endpoint: str) -> None:
    assert not is_model_list("GET", endpoint)


@pytest.mark.parametrize(
    ("provider", "endpoint"),
    [
        ("openai", "realtime?model=gpt-realtime"),
        ("openai", "v1/responses"),
        ("google-ai-studio", "ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"),
        ("cartesia", "tts/websocket"),
        ("elevenlabs", "v1/convai/conversation?agent_id=a"),
        ("elevenlabs", "v1/text-to-speech/voice/stream-input?model_id=m"),
        ("fal", "fal-ai/fast-lcm/realtime"),
        ("workers-ai", "@cf/deepgram/nova-3"),
        ("deepgram", "v1/listen?model=nova-3"),
        ("deepgram", "v1/agent/converse"),
    ],
)
def test_a_realtime_session_is_with_a_model(provider: str, endpoint: str) -> None:
    assert is_model_socket(endpoint, provider)


@pytest.mark.parametrize(
    "endpoint", ["", "v1/files", "v1/chat/completions", "predictions", "v1/realtime?a=b&call_id=c", "@cf/meta/llama"]
)
def test_other_handshakes_are_not_with_a_model(endpoint: str) -> None:
    assert not is_model_socket(endpoint, "openai")


def test_every_default_realtime_endpoint_is_a_models() -> None:
    rows = [row for row in REGISTRY.values() if row.realtime.endpoint]
    assert all(is_model_socket(row.realtime.endpoint, row.slug) for row in rows)


def test_a_long_path_is_decided_by_its_end() -> None:
    assert is_model_endpoint("POST", "a/" * 30_000 + "chat/completions")
    assert not is_model_endpoint("POST", "chat/completions/" + "a/" * 30_000)
