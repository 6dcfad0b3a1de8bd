"""The built-in providers, as data: base URL, key header, and the host that belongs to an endpoint.

Sources: developers.cloudflare.com/ai-gateway/usage/providers/SLUG, and the table of Cloudflare's own client,
github.com/cloudflare/ai packages/gateway-core/src/gateway-providers.ts. Other sources are named at their rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

from bridge.providers.endpoints import Base, validate_base_url

EndedWithoutMark = Literal["broken", "done"]


@dataclass(frozen=True, slots=True)
class Credential:
    """The header of a provider's key. Used for stored keys; clients send their own header."""

    header: str
    scheme: str = ""

    def value(self, key: str) -> str:
        return f"{self.scheme} {key}" if self.scheme else key


@dataclass(frozen=True, slots=True)
class Route:
    """Maps endpoints that begin with `prefix` to a base URL; `{name}` in it is any one segment."""

    base: Base
    prefix: tuple[str, ...] = ()
    keep_prefix: bool = False
    """True if the segments of `prefix` stay in the path; otherwise they are removed."""
    insert: str = ""
    """A segment to insert between the base and an endpoint without it."""
    last_segment: str = ""
    """The required last segment of the path; empty for any."""


@dataclass(frozen=True, slots=True)
class Realtime:
    """Provider data for WebSocket handshakes; used by `providers.realtime`."""

    endpoint: str = ""
    """The endpoint of a URL that ends with the provider's name. Empty: the URL must contain an endpoint."""
    routes: tuple[Route, ...] = ()
    """Replace the provider's routes if not empty; http and https stand for ws and wss."""
    key_parameters: tuple[str, ...] = ("api_key",)
    """URL parameters whose value is the key. It is sent in the provider's header."""
    key_protocols: tuple[str, ...] = ()
    """Prefixes of subprotocols that are keys. They are sent in the provider's header."""
    key_pair: bool = False
    """True if the key may be the subprotocol after `token` or `bearer`."""
    model_in_path: bool = False
    """True if the parameter `model` is the endpoint."""


@dataclass(frozen=True, slots=True)
class CostReport:
    """The location of the cost in the usage object of an answer."""

    member: tuple[str, ...]
    """The path inside the usage object."""
    per_usd: float = 1.0
    """The number of its units per US dollar."""


ANY_KEY: Final = Realtime(key_protocols=("openai-insecure-api-key.", "xi-api-key.", "fal-api-key."), key_pair=True)
"""For providers without known WebSocket data."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider with its routes, credential and limits."""

    slug: str
    base_url: str
    credential: Credential
    routes: tuple[Route, ...]
    """Tried in order; the first match wins. Most providers have one route that matches all endpoints."""
    target_header: str = ""
    """A request header whose URL replaces base URL and endpoint if it is below one of `target_hosts`."""
    target_hosts: tuple[str, ...] = ()
    ended_without_mark: EndedWithoutMark = "broken"
    """The result of a stream of a known dialect whose body ends cleanly without its end mark."""
    max_connections: int = 1024
    realtime: Realtime = ANY_KEY
    cost_report: CostReport | None = None
    """None for a provider that does not report costs; reported costs are then ignored."""
    compat_path: str | None = None
    """The endpoint of OpenAI-style chat completions, if a model's name is enough to call it."""

    def __hash__(self) -> int:
        """Return a hash that is cheap to compute: providers are keys of caches."""
        return hash((self.slug, self.base_url))


CHAT = "chat/completions"


def _route(
    base_url: str, prefix: str = "", *, keep_prefix: bool = False, insert: str = "", last_segment: str = ""
) -> Route:
    segments = tuple(prefix.split("/")) if prefix else ()
    names = frozenset(segment[1:-1] for segment in segments if segment[0] == "{")
    return Route(validate_base_url(base_url, names | {"account_id"}), segments, keep_prefix, insert, last_segment)


def plain(slug: str, base_url: str, credential: Credential, compat_path: str | None = None) -> Provider:
    """Create a provider with all endpoints below one base. Raises ValueError for an invalid base URL."""
    return Provider(slug, base_url, credential, (_route(base_url),), compat_path=compat_path)


BEARER = Credential("authorization", "Bearer")
_X_API_KEY = Credential("x-api-key")

_AZURE = "https://{resource}.openai.azure.com/openai"
_AZURE_DEPLOYMENT = f"{_AZURE}/deployments/{{deployment}}"
_BEDROCK = "https://bedrock-runtime.{region}.amazonaws.com"
_MANTLE = "https://bedrock-mantle.{region}.api.aws"
_VERTEX = "https://{location}-aiplatform.googleapis.com"
_VERTEX_LOCATIONS = "{version}/projects/{project}/locations/"
_WORKERS_AI = "https://api.cloudflare.com/client/v4/accounts/{account_id}/ai"
_BASETEN = "https://inference.baseten.co/v1"
_BASETEN_MODEL = "https://model-{model}.api.baseten.co/production/predict"

_ROWS: tuple[Provider, ...] = (
    plain("openai", "https://api.openai.com/v1", BEARER, CHAT),
    # OpenAI-shaped: platform.claude.com/docs/en/api/openai-sdk
    plain("anthropic", "https://api.anthropic.com", _X_API_KEY, f"v1/{CHAT}"),
    # OpenAI-shaped: ai.google.dev/gemini-api/docs/openai
    plain(
        "google-ai-studio",
        "https://generativelanguage.googleapis.com",
        Credential("x-goog-api-key"),
        f"v1beta/openai/{CHAT}",
    ),
    # Hosts: docs.cloud.google.com, "Generative AI on Vertex AI locations"; us, eu: also Anthropic's Vertex clients.
    Provider(
        "google-vertex-ai",
        _VERTEX,
        BEARER,
        (
            _route("https://aiplatform.googleapis.com", _VERTEX_LOCATIONS + "global", keep_prefix=True),
            _route("https://aiplatform.us.rep.googleapis.com", _VERTEX_LOCATIONS + "us", keep_prefix=True),
            _route("https://aiplatform.eu.rep.googleapis.com", _VERTEX_LOCATIONS + "eu", keep_prefix=True),
            _route(_VERTEX, _VERTEX_LOCATIONS + "{location}", keep_prefix=True),
        ),
    ),
    # The v1 API, responses and files are outside deployments: learn.microsoft.com/azure/ai-foundry/openai/reference
    Provider(
        "azure-openai",
        _AZURE_DEPLOYMENT,
        Credential("api-key"),
        (_route(_AZURE, "{resource}/openai"), _route(_AZURE_DEPLOYMENT, "{resource}/{deployment}")),
    ),
    # Mantle's host: docs.aws.amazon.com/bedrock/latest/userguide/inference-messages-api.html
    Provider(
        "aws-bedrock",
        _BEDROCK,
        BEARER,
        (_route(_BEDROCK, "bedrock-runtime/{region}"), _route(_MANTLE, "bedrock-mantle/{region}")),
    ),
    # v1: developers.cloudflare.com/workers-ai/configuration/open-ai-compatibility. Cloudflare's pages show @cf/…, other
    # sources run/@cf/…: both are accepted.
    Provider(
        "workers-ai",
        _WORKERS_AI,
        BEARER,
        (_route(_WORKERS_AI, "v1", keep_prefix=True), _route(_WORKERS_AI, insert="run")),
        compat_path=f"v1/{CHAT}",
    ),
    plain("groq", "https://api.groq.com/openai/v1", BEARER, CHAT),
    plain("mistral", "https://api.mistral.ai", BEARER, f"v1/{CHAT}"),
    # The page includes /v1 in the base, its examples do not, and v2 exists.
    # OpenAI-shaped: docs.cohere.com/docs/compatibility-api
    plain("cohere", "https://api.cohere.com", BEARER, f"compatibility/v1/{CHAT}"),
    plain("deepseek", "https://api.deepseek.com", BEARER, CHAT),
    plain("perplexity-ai", "https://api.perplexity.ai", BEARER, CHAT),
    plain("replicate", "https://api.replicate.com/v1", BEARER),
    # As documented by Cloudflare; the next row has Hugging Face's current address.
    plain("huggingface", "https://api-inference.huggingface.co/models", BEARER),
    # huggingface.co/docs/inference-providers: chat is below v1, other tasks below a name such as hf-inference
    plain("huggingface-router", "https://router.huggingface.co", BEARER, f"v1/{CHAT}"),
    plain("openrouter", "https://openrouter.ai/api/v1", BEARER, CHAT),
    plain("grok", "https://api.x.ai/v1", BEARER, CHAT),
    plain("cerebras", "https://api.cerebras.ai/v1", BEARER, CHAT),
    # Host: docs.baseten.co/quickstart; the path below model-{id} is Cloudflare's. Unverified: Cloudflare documents
    # Bearer, Baseten documents only `Api-Key`.
    Provider(
        "baseten",
        _BASETEN,
        BEARER,
        (_route(_BASETEN_MODEL, "model/{model}"), _route(_BASETEN)),
        compat_path=CHAT,
    ),
    # docs.parallel.ai/api-reference; OpenAI-shaped: docs.parallel.ai/chat-api/chat-quickstart
    plain("parallel", "https://api.parallel.ai", _X_API_KEY, CHAT),
    # The page includes /v1 in the base, but Cartesia's paths have none (github.com/cartesia-ai/cartesia-python).
    plain("cartesia", "https://api.cartesia.ai", _X_API_KEY),
    plain("elevenlabs", "https://api.elevenlabs.io", Credential("xi-api-key")),
    plain("deepgram", "https://api.deepgram.com", Credential("authorization", "Token")),
    # Unverified: all URLs in use are below these hosts. Without this list the header could name any host.
    Provider(
        "fal",
        "https://fal.run",
        Credential("authorization", "Key"),
        (_route("https://fal.run"),),
        target_header="x-fal-target-url",
        target_hosts=("fal.run", "fal.ai"),
    ),
    plain("ideogram", "https://api.ideogram.ai", Credential("api-key")),
    plain("together", "https://api.together.xyz/v1", BEARER, CHAT),  # docs.together.ai/docs/openai-api-compatibility
    # Only in Cloudflare's client, not in its documentation.
    plain("fireworks", "https://api.fireworks.ai/inference/v1", BEARER, CHAT),
)

_REALTIME: Mapping[str, Realtime] = {
    "openai": Realtime("realtime", key_protocols=("openai-insecure-api-key.",)),
    # ai.google.dev/gemini-api/docs/live-api/get-started-websocket
    "google-ai-studio": Realtime(
        "ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
        key_parameters=("api_key", "key"),
    ),
    "cartesia": Realtime("tts/websocket"),  # docs.cartesia.ai/api-reference/tts/websocket
    "elevenlabs": Realtime("v1/convai/conversation", key_protocols=("xi-api-key.",)),
    # docs.fal.ai/model-apis/model-endpoints/websockets; the suffix is from fal's client: github.com/fal-ai/fal-js
    "fal": Realtime(
        routes=(_route("https://fal.run", last_segment="realtime"), _route("https://ws.fal.run")),
        key_protocols=("fal-api-key.",),
    ),
    "workers-ai": Realtime(key_pair=True, model_in_path=True),
    # developers.deepgram.com/reference; the agent's host: github.com/deepgram/deepgram-python-sdk
    "deepgram": Realtime(
        routes=(_route("https://agent.deepgram.com", "v1/agent", keep_prefix=True), _route("https://api.deepgram.com")),
        key_pair=True,
    ),
}
"""Source: developers.cloudflare.com/ai-gateway/usage/websockets-api/realtime-api, and the comments at the rows."""

_COST_REPORTS: Mapping[str, CostReport] = {
    "openrouter": CostReport(("cost",)),  # openrouter.ai/docs, "Usage accounting": credits, of one US dollar each
    "perplexity-ai": CostReport(("cost", "total_cost")),  # docs.perplexity.ai, API reference, "chat completions"
    "grok": CostReport(("cost_in_usd_ticks",), 1e10),  # docs.x.ai, REST API reference, "usage"
}

REGISTRY: Mapping[str, Provider] = MappingProxyType(
    {
        row.slug: replace(row, realtime=_REALTIME.get(row.slug, ANY_KEY), cost_report=_COST_REPORTS.get(row.slug))
        for row in _ROWS
    }
)

ALIASES: Mapping[str, str] = MappingProxyType(
    {"google": "google-ai-studio", "perplexity": "perplexity-ai", "xai": "grok"}
)
