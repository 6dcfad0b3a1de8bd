"""One table of model endpoints: the paths at which a POST makes a model answer. Pure.

Every rule of PROTOCOL.md that says "model endpoint" asks `is_model_endpoint`. Files, batches, lists, token counts and
stored responses are no model endpoints. The forms are those of the providers' API references.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

MAX_PATH_CHARS: Final = 4096
"""A longer path is looked at by its end alone: no pattern is longer."""

_REMEMBERED_CHARS: Final = 256

_ANY: Final = "*"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SUFFIXES: Final = _words("""
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
"""The last segments of a path; `*` is any one segment without a colon."""

_WHOLE: Final = _words("edit remix reframe upscale describe replace-background read search extract infill model/*")
"""Words too common to be a suffix: all of a path, but for its version prefix."""

_VERBS: Final = frozenset(
    _words("""
    generatecontent streamgeneratecontent generateanswer generatetext generatemessage
    embedcontent batchembedcontents embedtext batchembedtext
    predict predictlongrunning rawpredict streamrawpredict directpredict directrawpredict
    streamingpredict serverstreamingpredict streamingrawpredict
    """)
)
"""The words behind the colon in paths of Gemini and Vertex AI, in lower case."""

_NO_SUFFIXES: Final = (
    ("threads", _ANY, "messages"),  # adds a message to a stored thread, and nobody answers
)

_RUN: Final = re.compile(r"(?:.*/ai/)?(?:run/.|(?:run/)?@[a-z]+/.)")
"""Workers AI, below its base URL or with it."""
_RUNNERS: Final = re.compile(r"fal-ai/.")
_RUN_BY_PATH: Final = frozenset({"fal", "huggingface", "huggingface-router"})
"""Providers at which the path is nothing but a model's name: every POST makes it answer."""

_SOCKETS: Final = frozenset(
    _words("realtime websocket ws responses listen speak converse conversation stream-input multi-stream-input")
)
"""How paths end at which a WebSocket talks to a model."""

_VERSION: Final = re.compile(r"v[0-9][0-9a-z.]*|api")


def is_model_endpoint(method: str, endpoint: str, provider: str = "") -> bool:
    """True if the request makes a model answer.

    `endpoint` is a step's endpoint or the path of a URL, with or without a version prefix, a slash before or behind,
    and a query. The slug of its `provider` decides where a path is a model's name and nothing else. The path is
    compared in lower case and percent-decoded, as lenient servers read it.
    """
    if method.upper() != "POST":
        return False
    if provider in _RUN_BY_PATH:
        return True
    path = _path(endpoint)[-MAX_PATH_CHARS:]
    return _answers(path) if len(path) <= _REMEMBERED_CHARS else _answers.__wrapped__(path)


@lru_cache(maxsize=1024)
def _answers(path: str) -> bool:
    segments = _segments(path)
    path = "/".join(segments)
    return bool(_RUN.match(path) or _RUNNERS.match(path)) or _is_listed(segments)


def is_model_list(method: str, endpoint: str) -> bool:
    """True if the request asks which models there are. `endpoint` as above."""
    return method.upper() == "GET" and _segments(endpoint)[-1:] == ["models"]


def is_model_socket(endpoint: str, provider: str = "") -> bool:
    """True if a WebSocket at the endpoint talks to a model, and not to somebody's call that is going on.

    The paths of `is_model_endpoint` are none: a GET of some of them lists what is stored.
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
    """The path of an endpoint as it was written, without slashes around it, query and version prefix."""
    return "/".join(_without_version([each for each in _path(endpoint).split("/") if each]))


def _path(endpoint: str) -> str:
    return re.split(r"[?#]", endpoint, maxsplit=1)[0]


def _segments(endpoint: str) -> list[str]:
    return [each for each in unquote(_path(endpoint)[-MAX_PATH_CHARS:]).lower().split("/") if each]


def _is_listed(segments: list[str]) -> bool:
    if not segments:
        return False
    if ":" in segments[-1] and segments[-1].rpartition(":")[2] in _VERBS:
        return True
    if any(_ends_with(segments, suffix) for suffix in _NO_SUFFIXES):
        return False
    if any(_ends_with(segments, suffix) for suffix in _by_last(segments[-1])):
        return True
    return any(_fits(_without_version(segments), whole) for whole in _WHOLES)


def _table(suffixes: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    table: dict[str, list[tuple[str, ...]]] = {}
    for suffix in suffixes:
        segments = tuple(suffix.split("/"))
        table.setdefault(segments[-1], []).append(segments)
    return table


_BY_LAST: Final = _table(_SUFFIXES)
_WHOLES: Final = tuple(tuple(whole.split("/")) for whole in _WHOLE)


def _by_last(segment: str) -> list[tuple[str, ...]]:
    return [*_BY_LAST.get(segment, ()), *_BY_LAST[_ANY]]


def _ends_with(segments: list[str], suffix: tuple[str, ...]) -> bool:
    return len(segments) >= len(suffix) and _fits(segments[-len(suffix) :], suffix)


def _fits(segments: list[str], pattern: tuple[str, ...]) -> bool:
    return len(segments) == len(pattern) and all(
        segment == each or (each == _ANY and ":" not in segment)
        for segment, each in zip(segments, pattern, strict=True)
    )


def _without_version(segments: list[str]) -> list[str]:
    begins = next((at for at, each in enumerate(segments) if not _VERSION.fullmatch(each)), len(segments))
    return segments[begins:]
