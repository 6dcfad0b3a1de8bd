"""The built-in providers, as data: base URL, header of the key, and what an endpoint says about its host.

Sources: developers.cloudflare.com/ai-gateway/usage/providers/SLUG, and the table of Cloudflare's own client,
github.com/cloudflare/ai packages/gateway-core/src/gateway-providers.ts. Where a row has others, they stand with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

from bridge.providers.endpoints import Base, validate_base_url

EndedWithoutMark = Literal["broken", "done"]


@dataclass(frozen=True, slots=True)
class Credential:
    """How a provider wants its key. For stored keys; a client brings its own header and may use another form."""

    header: str
    scheme: str = ""

    def value(self, key: str) -> str:
        return f"{self.scheme} {key}" if self.scheme else key


@dataclass(frozen=True, slots=True)
class Route:
    """Where the endpoints go that begin as `begins` says: segments, of which `{name}` is any one."""

    base: Base
    begins: tuple[str, ...] = ()
    whole: bool = False
    """What `begins` took stays in the path; else it is cut off."""
    into: str = ""
    """A segment that comes between the base and an endpoint that does not bring it."""
    ends: str = ""
    """The last segment of the paths that go here; any, if it is empty."""


@dataclass(frozen=True, slots=True)
class Realtime:
    """What is different when a provider is called over a WebSocket; `providers.realtime` reads it."""

    endpoint: str = ""
    """Where a URL goes that ends with the provider's name. Empty: it has to name an endpoint."""
    routes: tuple[Route, ...] = ()
    """In place of the provider's own, if there are any; http and https stand for ws and wss."""
    key_parameters: tuple[str, ...] = ("api_key",)
    """Parameters of the URL whose value is the key. It goes on in the provider's header."""
    key_protocols: tuple[str, ...] = ()
    """What subprotocols begin with that are keys. They go on in the provider's header."""
    key_pair: bool = False
    """A key may also be the subprotocol that follows `token` or `bearer`."""
    model_in_path: bool = False
    """The parameter `model` is an endpoint."""


@dataclass(frozen=True, slots=True)
class CostReport:
    """Where the usage of an answer says what the answer cost."""

    member: tuple[str, ...]
    """The path inside the usage object."""
    per_usd: float = 1.0
    """So many of its units are one US dollar."""


ANY_KEY: Final = Realtime(key_protocols=("openai-insecure-api-key.", "xi-api-key.", "fal-api-key."), key_pair=True)
"""Of providers of whose sockets nothing is known."""


@dataclass(frozen=True, slots=True)
class Provider:
    slug: str
    base_url: str
    credential: Credential
    routes: tuple[Route, ...]
    """Tried in order; the first that fits has the endpoint. Most providers have one, which fits all."""
    target_header: str = ""
    """A request header whose URL stands for base URL and endpoint together, if it is below one of `target_hosts`."""
    target_hosts: tuple[str, ...] = ()
    ended_without_mark: EndedWithoutMark = "broken"
    """What a stream of a known dialect is whose body ended cleanly but without its mark."""
    max_connections: int = 1024
    realtime: Realtime = ANY_KEY
    cost_report: CostReport | None = None
    """None for a provider that is not known to report costs: what a body says of them is not believed."""
    compat_path: str | None = None
    """Its endpoint that is OpenAI's chat completions, where a model's name is all it takes to call that."""


CHAT = "chat/completions"


def _route(base_url: str, begins: str = "", *, whole: bool = False, into: str = "", ends: str = "") -> Route:
    segments = tuple(begins.split("/")) if begins else ()
    names = frozenset(segment[1:-1] for segment in segments if segment[0] == "{")
    return Route(validate_base_url(base_url, names | {"account_id"}), segments, whole, into, ends)


def plain(slug: str, base_url: str, credential: Credential, compat_path: str | None = None) -> Provider:
    """A provider all of whose endpoints go below one base. Raises ValueError for a bad base URL."""
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
            _route("https://aiplatform.googleapis.com", _VERTEX_LOCATIONS + "global", whole=True),
            _route("https://aiplatform.us.rep.googleapis.com", _VERTEX_LOCATIONS + "us", whole=True),
            _route("https://aiplatform.eu.rep.googleapis.com", _VERTEX_LOCATIONS + "eu", whole=True),
            _route(_VERTEX, _VERTEX_LOCATIONS + "{location}", whole=True),
        ),
    ),
    # Beside deployments there are the v1 API, responses, files: learn.microsoft.com/azure/ai-foundry/openai/reference
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
    # v1: developers.cloudflare.com/workers-ai/configuration/open-ai-compatibility. A user's note says that models are
    # called as run/@cf/…, Cloudflare's pages show @cf/…: both are taken.
    Provider(
        "workers-ai",
        _WORKERS_AI,
        BEARER,
        (_route(_WORKERS_AI, "v1", whole=True), _route(_WORKERS_AI, into="run")),
        compat_path=f"v1/{CHAT}",
    ),
    plain("groq", "https://api.groq.com/openai/v1", BEARER, CHAT),
    plain("mistral", "https://api.mistral.ai", BEARER, f"v1/{CHAT}"),
    # The page counts /v1 to the base, its own examples do not, and v2 exists.
    # OpenAI-shaped: docs.cohere.com/docs/compatibility-api
    plain("cohere", "https://api.cohere.com", BEARER, f"compatibility/v1/{CHAT}"),
    plain("deepseek", "https://api.deepseek.com", BEARER, CHAT),
    plain("perplexity-ai", "https://api.perplexity.ai", BEARER, CHAT),
    plain("replicate", "https://api.replicate.com/v1", BEARER),
    # As Cloudflare documents it; Hugging Face's present address is the next row's.
    plain("huggingface", "https://api-inference.huggingface.co/models", BEARER),
    # huggingface.co/docs/inference-providers: chat below v1, other tasks below the name of a provider, as hf-inference
    plain("huggingface-router", "https://router.huggingface.co", BEARER, f"v1/{CHAT}"),
    plain("openrouter", "https://openrouter.ai/api/v1", BEARER, CHAT),
    plain("grok", "https://api.x.ai/v1", BEARER, CHAT),
    plain("cerebras", "https://api.cerebras.ai/v1", BEARER, CHAT),
    # Host: docs.baseten.co/quickstart; the path below model-{id} is Cloudflare's. Unverified: that Baseten, whose own
    # form is `Api-Key`, takes Bearer there too, as Cloudflare says.
    Provider(
        "baseten",
        _BASETEN,
        BEARER,
        (_route(_BASETEN_MODEL, "model/{model}"), _route(_BASETEN)),
        compat_path=CHAT,
    ),
    # docs.parallel.ai/api-reference; OpenAI-shaped: docs.parallel.ai/chat-api/chat-quickstart
    plain("parallel", "https://api.parallel.ai", _X_API_KEY, CHAT),
    # The page counts /v1 to the base, but Cartesia's paths have none (github.com/cartesia-ai/cartesia-python).
    plain("cartesia", "https://api.cartesia.ai", _X_API_KEY),
    plain("elevenlabs", "https://api.elevenlabs.io", Credential("xi-api-key")),
    plain("deepgram", "https://api.deepgram.com", Credential("authorization", "Token")),
    # Unverified: that all the URLs in use are below these hosts. Unbound, the header would reach any host at all.
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
    # In Cloudflare's client only, not among its pages.
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
    # docs.fal.ai/model-apis/model-endpoints/websockets; what ends so is of fal's own client: github.com/fal-ai/fal-js
    "fal": Realtime(
        routes=(_route("https://fal.run", ends="realtime"), _route("https://ws.fal.run")),
        key_protocols=("fal-api-key.",),
    ),
    "workers-ai": Realtime(key_pair=True, model_in_path=True),
    # developers.deepgram.com/reference; the agent's host: github.com/deepgram/deepgram-python-sdk
    "deepgram": Realtime(
        routes=(_route("https://agent.deepgram.com", "v1/agent", whole=True), _route("https://api.deepgram.com")),
        key_pair=True,
    ),
}
"""Source: developers.cloudflare.com/ai-gateway/usage/websockets-api/realtime-api, and what stands with a row."""

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
