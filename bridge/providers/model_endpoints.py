"""The table of model endpoints: paths at which a POST makes a model answer. Pure.

Every rule about model endpoints (bridge/docs/protocol.md) uses `is_model_endpoint`. Files, batches, lists, token counts
and stored responses are not model endpoints. The paths are those of the providers' API references.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

MAX_PATH_CHARS: Final = 4096
"""Only the end of a longer path is checked: no pattern is longer."""

_CACHED_CHARS: Final = 256

_ANY: Final = "*"


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SUFFIXES: Final = _split("""
    chat/completions completions complete completion messages responses responses/compact embeddings embed embedding
    multimodalembeddings rerank moderations classifications classify ocr interactions
    images/generations images/generations:submit images/edits images/variations image_generation text_to_image
    videos videos/generations videos/edits videos/*/remix video_generation music_generation
    audio/speech audio/transcriptions audio/translations
    threads/runs threads/*/runs threads/*/runs/*/submit_tool_outputs
    chat generate generate_stream summarize text/chatcompletion_v2 t2a_v2
    text-generation/generation multimodal-generation/generation image-synthesis video-synthesis
    invoke invoke-with-response-stream invoke-with-bidirectional-stream converse converse-stream
    predict async_predict predictions
    models/* models/*/* pipeline/*/* pipeline/*/*/*
    tts tts/bytes tts/sse stt infill/bytes voice-changer/bytes voice-changer/sse
    text-to-speech/* text-to-speech/*/stream text-to-speech/*/with-timestamps text-to-speech/*/stream/with-timestamps
    speech-to-speech/* speech-to-speech/*/stream speech-to-text sound-generation
    audio-isolation audio-isolation/stream forced-alignment dubbing
    text-to-dialogue text-to-dialogue/stream text-to-dialogue/with-timestamps text-to-dialogue/stream/with-timestamps
    text-to-voice/design text-to-voice/create-previews music music/stream music/detailed music/plan
    listen speak
    ideogram-v3/* tasks/runs findall/ingest findall/runs
    workflows/*/*/models/* stable-image/generate/*
""")
"""Final segments of a path; `*` is any one segment without a colon."""

_COMPLETE_PATHS: Final = _split(
    "edit remix reframe upscale describe replace-background read search extract infill model/*"
)
"""Complete paths after the version prefix; these words are too common to be a suffix."""

_VERBS: Final = frozenset(
    _split("""
    generatecontent streamgeneratecontent generateanswer generatetext generatemessage
    embedcontent batchembedcontents embedtext batchembedtext
    predict predictlongrunning rawpredict streamrawpredict directpredict directrawpredict
    streamingpredict serverstreamingpredict streamingrawpredict
    """)
)
"""Methods after the colon in paths of Gemini and Vertex AI, in lower case."""

_NO_SUFFIXES: Final = (
    ("threads", _ANY, "messages"),  # adds a message to a stored thread; no model answers
)

_RUN: Final = re.compile(r"(?:.*/ai/)?(?:run/.|(?:run/)?@[a-z]+/.)")
"""Workers AI, with or without its base URL."""
_RUNNERS: Final = re.compile(r"fal-ai/.")
_RUN_BY_PATH: Final = frozenset({"fal", "huggingface", "huggingface-router"})
"""Providers whose paths are only model names: every POST makes the model answer."""

_SOCKETS: Final = frozenset(
    _split("realtime websocket ws responses listen speak converse conversation stream-input multi-stream-input")
)
"""Final segments of paths whose WebSocket talks to a model."""

_VERSION: Final = re.compile(r"v[0-9][0-9a-z.]*|api")


def is_model_endpoint(method: str, endpoint: str, provider: str = "") -> bool:
    """Return True if the request makes a model answer.

    `endpoint` is a step's endpoint or the path of a URL, with or without version prefix, leading or trailing slash, and
    query. `provider` is a slug: some providers use the path only for a model's name. The path is compared in lower case
    and percent-decoded, as lenient servers read it.
    """
    if method.upper() != "POST":
        return False
    if provider in _RUN_BY_PATH:
        return True
    path = _path(endpoint)[-MAX_PATH_CHARS:]
    return _is_model_path(path) if len(path) <= _CACHED_CHARS else _is_model_path.__wrapped__(path)


@lru_cache(maxsize=1024)
def _is_model_path(path: str) -> bool:
    segments = _segments(path)
    path = "/".join(segments)
    return bool(_RUN.match(path) or _RUNNERS.match(path)) or _is_listed(segments)


def is_model_list(method: str, endpoint: str) -> bool:
    """Return True if the request lists models. `endpoint` is as in `is_model_endpoint`."""
    return method.upper() == "GET" and _segments(endpoint)[-1:] == ["models"]


def is_model_socket(endpoint: str, provider: str = "") -> bool:
    """Return True if a WebSocket at the endpoint talks to a model, and not to a call in progress.

    The paths of `is_model_endpoint` do not qualify: a GET of some of them lists stored objects.
    """
    path, _, query = endpoint.partition("?")
    if provider == "fal":
        return True
    if any(pair.partition("=")[0] == "call_id" for pair in unquote(query).split("&")):
        return False
    segments = _segments(path)
    if not segments:
        return False
    is_run = provider == "workers-ai" and bool(_RUN.match("/".join(segments)))
    return is_run or segments[-1] in _SOCKETS or segments[-1].endswith("bidigeneratecontent")


def without_version(endpoint: str) -> str:
    """Return the path of an endpoint without surrounding slashes, query and version prefix."""
    return "/".join(_without_version([segment for segment in _path(endpoint).split("/") if segment]))


def _path(endpoint: str) -> str:
    return re.split(r"[?#]", endpoint, maxsplit=1)[0]


def _segments(endpoint: str) -> list[str]:
    return [segment for segment in unquote(_path(endpoint)[-MAX_PATH_CHARS:]).lower().split("/") if segment]


def _is_listed(segments: list[str]) -> bool:
    if not segments:
        return False
    if ":" in segments[-1] and segments[-1].rpartition(":")[2] in _VERBS:
        return True
    if any(_ends_with(segments, suffix) for suffix in _NO_SUFFIXES):
        return False
    if any(_ends_with(segments, suffix) for suffix in _by_last(segments[-1])):
        return True
    return any(_fits(_without_version(segments), complete) for complete in _COMPLETE)


def _table(suffixes: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    table: dict[str, list[tuple[str, ...]]] = {}
    for suffix in suffixes:
        segments = tuple(suffix.split("/"))
        table.setdefault(segments[-1], []).append(segments)
    return table


_BY_LAST: Final = _table(_SUFFIXES)
_COMPLETE: Final = tuple(tuple(complete.split("/")) for complete in _COMPLETE_PATHS)


def _by_last(segment: str) -> list[tuple[str, ...]]:
    return [*_BY_LAST.get(segment, ()), *_BY_LAST[_ANY]]


def _ends_with(segments: list[str], suffix: tuple[str, ...]) -> bool:
    return len(segments) >= len(suffix) and _fits(segments[-len(suffix) :], suffix)


def _fits(segments: list[str], pattern: tuple[str, ...]) -> bool:
    return len(segments) == len(pattern) and all(
        segment == expected or (expected == _ANY and ":" not in segment)
        for segment, expected in zip(segments, pattern, strict=True)
    )


def _without_version(segments: list[str]) -> list[str]:
    start = next((index for index, segment in enumerate(segments) if not _VERSION.fullmatch(segment)), len(segments))
    return segments[start:]
