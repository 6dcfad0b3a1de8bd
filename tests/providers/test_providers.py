"""Every slug has its documented base URL, and no endpoint leaves its base."""

import re
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.errors import EndpointRefused, UnknownProvider
from bridge.formats.request_fields import model_in
from bridge.providers import (
    ALIASES,
    REGISTRY,
    Target,
    lookup,
    make_provider,
    model_of,
    resolve,
    validate_base_url,
    with_overrides,
)

ACCOUNT = "0123456789abcdef0123456789ABCDEF"


def url_of(target: Target) -> str:
    port = "" if target.port is None else f":{target.port}"
    return f"{target.scheme}://{target.host}{port}{target.raw_path.decode()}"


def goes(slug: str, endpoint: str, account: str = ACCOUNT, **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return url_of(resolve(lookup(slug, REGISTRY), endpoint, account=account, headers=named))


def moved(slug: str, base_url: str, endpoint: str, account: str = ACCOUNT) -> str:
    return url_of(resolve(make_provider(slug, {"base_url": base_url}), endpoint, account=account, headers={}))


VERTEX = "publishers/google/models/gemini-2.5-flash:generateContent"
CLOUDFLARE = f"https://api.cloudflare.com/client/v4/accounts/{ACCOUNT}/ai"

EXAMPLES = [
    ("openai", "chat/completions", "https://api.openai.com/v1/chat/completions"),
    ("openai", "v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
    ("openai", "/v1/responses", "https://api.openai.com/v1/responses"),
    ("openai", "responses", "https://api.openai.com/v1/responses"),
    ("anthropic", "v1/messages", "https://api.anthropic.com/v1/messages"),
    (
        "google-ai-studio",
        "v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
    ),
    ("google", "v1/models", "https://generativelanguage.googleapis.com/v1/models"),
    *(
        (
            "google-vertex-ai",
            f"v1/projects/p/locations/{at}/{VERTEX}",
            f"https://{host}/v1/projects/p/locations/{at}/{VERTEX}",
        )
        for at, host in [
            ("us-central1", "us-central1-aiplatform.googleapis.com"),
            ("global", "aiplatform.googleapis.com"),
            ("us", "aiplatform.us.rep.googleapis.com"),
            ("eu", "aiplatform.eu.rep.googleapis.com"),
        ]
    ),
    (
        "azure-openai",
        "res/gpt-4o/chat/completions?api-version=2023-05-15",
        "https://res.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2023-05-15",
    ),
    (
        "azure-openai",
        "res/gpt-4.1_eu/responses",
        "https://res.openai.azure.com/openai/deployments/gpt-4.1_eu/responses",
    ),
    *(
        ("azure-openai", f"res/openai/{rest}", f"https://res.openai.azure.com/openai/{rest}")
        for rest in (
            "v1/responses?api-version=preview",
            "v1/chat/completions",
            "responses?api-version=2025-04-01-preview",
            "deployments/dep/chat/completions?api-version=2024-10-21",
            "files?api-version=2024-10-21",
        )
    ),
    ("huggingface-router", "v1/chat/completions", "https://router.huggingface.co/v1/chat/completions"),
    ("huggingface-router", "hf-inference/models/a/b", "https://router.huggingface.co/hf-inference/models/a/b"),
    ("together", "chat/completions", "https://api.together.xyz/v1/chat/completions"),
    ("together", "v1/images/generations", "https://api.together.xyz/v1/images/generations"),
    (
        "azure-openai",
        "res/chat/chat/completions",
        "https://res.openai.azure.com/openai/deployments/chat/chat/completions",
    ),
    (
        "aws-bedrock",
        "bedrock-runtime/us-east-1/model/us.anthropic.claude-haiku-v1:0/invoke",
        "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.claude-haiku-v1:0/invoke",
    ),
    (
        "aws-bedrock",
        "bedrock-mantle/eu-west-1/anthropic/v1/messages",
        "https://bedrock-mantle.eu-west-1.api.aws/anthropic/v1/messages",
    ),
    ("workers-ai", "@cf/meta/llama-3.1-8b-instruct", f"{CLOUDFLARE}/run/@cf/meta/llama-3.1-8b-instruct"),
    ("workers-ai", "run/@cf/meta/llama-3.1-8b-instruct", f"{CLOUDFLARE}/run/@cf/meta/llama-3.1-8b-instruct"),
    ("workers-ai", "v1/chat/completions", f"{CLOUDFLARE}/v1/chat/completions"),
    ("groq", "chat/completions", "https://api.groq.com/openai/v1/chat/completions"),
    ("groq", "v1/chat/completions", "https://api.groq.com/openai/v1/chat/completions"),
    ("mistral", "v1/chat/completions", "https://api.mistral.ai/v1/chat/completions"),
    ("cohere", "v2/chat", "https://api.cohere.com/v2/chat"),
    ("deepseek", "chat/completions", "https://api.deepseek.com/chat/completions"),
    ("deepseek", "v1/chat/completions", "https://api.deepseek.com/v1/chat/completions"),
    ("perplexity-ai", "chat/completions", "https://api.perplexity.ai/chat/completions"),
    ("perplexity", "chat/completions", "https://api.perplexity.ai/chat/completions"),
    ("replicate", "predictions", "https://api.replicate.com/v1/predictions"),
    ("replicate", "v1/predictions", "https://api.replicate.com/v1/predictions"),
    ("huggingface", "bigcode/starcoder", "https://api-inference.huggingface.co/models/bigcode/starcoder"),
    ("openrouter", "chat/completions", "https://openrouter.ai/api/v1/chat/completions"),
    ("openrouter", "v1/chat/completions", "https://openrouter.ai/api/v1/chat/completions"),
    ("grok", "chat/completions", "https://api.x.ai/v1/chat/completions"),
    ("grok", "v1/messages", "https://api.x.ai/v1/messages"),
    ("xai", "v1/messages", "https://api.x.ai/v1/messages"),
    ("cerebras", "chat/completions", "https://api.cerebras.ai/v1/chat/completions"),
    ("baseten", "v1/chat/completions", "https://inference.baseten.co/v1/chat/completions"),
    ("baseten", "chat/completions", "https://inference.baseten.co/v1/chat/completions"),
    ("baseten", "model/abc123", "https://model-abc123.api.baseten.co/production/predict"),
    ("parallel", "v1beta/search", "https://api.parallel.ai/v1beta/search"),
    ("cartesia", "tts/bytes", "https://api.cartesia.ai/tts/bytes"),
    (
        "elevenlabs",
        "v1/text-to-speech/v?output_format=mp3_44100_128",
        "https://api.elevenlabs.io/v1/text-to-speech/v?output_format=mp3_44100_128",
    ),
    ("deepgram", "v1/listen", "https://api.deepgram.com/v1/listen"),
    ("fal", "fal-ai/fast-sdxl", "https://fal.run/fal-ai/fast-sdxl"),
    ("ideogram", "v1/ideogram-v3/generate", "https://api.ideogram.ai/v1/ideogram-v3/generate"),
    ("fireworks", "chat/completions", "https://api.fireworks.ai/inference/v1/chat/completions"),
]


@pytest.mark.parametrize(("slug", "endpoint", "url"), EXAMPLES)
def test_an_endpoint_joins_its_base_with_or_without_the_version_prefix(slug: str, endpoint: str, url: str) -> None:
    assert goes(slug, endpoint) == url


def test_every_row_has_an_example() -> None:
    assert {ALIASES.get(slug, slug) for slug, _, _ in EXAMPLES} == set(REGISTRY)


@pytest.mark.parametrize(
    ("base_url", "endpoint", "path"),
    [
        ("http://h/v1", "", "/v1"),
        ("http://h/v1/", "v1", "/v1"),
        ("http://h/v1", "v1?a=b", "/v1?a=b"),
        ("http://h/v1", "?a=b", "/v1?a=b"),
        ("http://h/v1", "v1beta/x", "/v1/v1beta/x"),
        ("http://h/v1", "v1/v1/x", "/v1/v1/x"),
        ("http://h/openai/v1", "openai/v1/x", "/openai/v1/x"),
        ("http://h/openai/v1", "v1/x", "/openai/v1/x"),
        ("http://h/openai/v1", "openai/v1?x", "/openai/v1?x"),
        ("http://h/openai/v1", "openai/x", "/openai/v1/openai/x"),
        ("http://h/openai/v1", "openai/v1x", "/openai/v1/openai/v1x"),
        ("http://h/a/b/c", "b/c/x", "/a/b/c/x"),
        ("http://h/v1", "x/", "/v1/x/"),
        ("http://h", "", "/"),
        ("http://h", "/", "/"),
        ("http://h/", "?a=b", "/?a=b"),
        ("http://h/api/v1", "v1/x", "/api/v1/x"),
    ],
)
def test_a_repeated_prefix_is_used_once(base_url: str, endpoint: str, path: str) -> None:
    assert moved("custom-x", base_url, endpoint) == f"http://h{path}"


@pytest.mark.parametrize(
    "endpoint",
    [
        "models/x%3Agenerate",
        "models/x:generate",
        "@cf/meta/llama",
        "a+b/c%20d",
        "repos/owner%2Fname/x",
        "x?next=https://h/../y&at=%2F%2F&q=%0A",
        "v1/a...b/.well-known/..x/x..",
        "a(b)!$'*,;=~_-.c",
        "%E2%82%AC",
        "a/%253A",
    ],
)
def test_an_endpoint_is_sent_unchanged(endpoint: str) -> None:
    target = resolve(REGISTRY["anthropic"], endpoint, account="", headers={})
    assert target == Target("https", "api.anthropic.com", None, b"/" + endpoint.encode(), "https://api.anthropic.com")


HOSTILE = [
    ("..", "'..'"),
    (".", "'..'"),
    ("../x", "'..'"),
    ("v1/../../x", "'..'"),
    ("v1/./x", "'..'"),
    ("x/..?a=b", "'..'"),
    ("..;/x", "'..'"),
    ("x/..;a=b/y", "'..'"),
    ("%2e%2e/x", "'..'"),
    ("x/%2E%2e/y", "'..'"),
    (".%2e/x", "'..'"),
    ("x/..%2fy", "'..'"),
    ("x%2F..%2Fy", "'..'"),
    ("%252e%252e/x", "percent-decoded twice"),
    ("x%252f..%252fy", "percent-decoded twice"),
    ("//evil.example/x", "empty segment"),
    ("///evil.example", "empty segment"),
    ("x//y", "empty segment"),
    ("%2f%2fevil.example", "empty segment"),
    ("/%2fevil.example", "empty segment"),
    ("x%252F%252Fy", "empty segment"),
    ("http://evil.example/x", "absolute URL"),
    ("HTTPS://evil.example", "absolute URL"),
    ("https:%2F%2Fevil.example", "absolute URL"),
    ("https%3a%2f%2fevil.example", "absolute URL"),
    ("https%253a%252f%252fevil.example", "absolute URL"),
    ("x\\..\\y", "backslash"),
    ("\\\\evil.example", "backslash"),
    ("x%5c..%5Cy", "backslash"),
    ("x%255c", "backslash"),
    ("x%00", "control character"),
    ("x\x00", "control character"),
    ("x\r\nHost: evil.example", "control character"),
    ("x?a\r\nHost:", "control character"),
    ("x\ny", "control character"),
    ("x\n", "control character"),
    ("x%0d%0aHost:", "control character"),
    ("x%250A", "control character"),
    ("x\x7f", "control character"),
    ("%c0%ae%c0%ae/x", "overlong"),
    ("a b", "percent-encode it"),
    ("x?a b", "percent-encode it"),
    ("x#y", "percent-encode it"),
    ('x"y', "percent-encode it"),
    ("x{y}", "percent-encode it"),
    ("x<y>", "percent-encode it"),
    ("x?a[]=b", "percent-encode it"),
    ("caf\xe9", "percent-encode it"),
    ("x?\u2028", "percent-encode it"),
    ("\ud800", "percent-encode it"),
    ("100%", "%25"),
    ("x?a=%zz", "%25"),
    ("%u002e%u002e/x", "%25"),
    ("x" * 65_537, "longer than"),
]


@pytest.mark.parametrize(("endpoint", "message"), HOSTILE)
@pytest.mark.parametrize("slug", ["openai", "anthropic"])
def test_an_escape_is_refused_with_its_reason(slug: str, endpoint: str, message: str) -> None:
    with pytest.raises(EndpointRefused, match=re.escape(message)) as refused:
        goes(slug, endpoint)
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()


BASES = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "azure-openai": "https://res.openai.azure.com/openai/deployments/dep",
    "aws-bedrock": "https://bedrock-runtime.us-east-1.amazonaws.com",
    "workers-ai": CLOUDFLARE,
    "baseten": "https://inference.baseten.co/v1",
}
BEGINS = {"azure-openai": "res/dep/", "aws-bedrock": "bedrock-runtime/us-east-1/"}
PIECES = [
    *"/.%\\:@?#;25ef",
    "..",
    "//",
    "%2e",
    "%2F",
    "%252e",
    "%252f",
    "%5c",
    "%00",
    "v1",
    "run",
    "http:",
    "evil.example",
]


def lands_below(path: str, base: str) -> bool:
    """Return True if a server that normalises `path` carelessly still serves something below `base`."""
    kept: list[str] = []
    for segment in path.replace("\\", "/").split("/")[1:]:
        if segment.partition(";")[0] != "..":
            kept.append(segment)
        elif kept:
            kept.pop()
        else:
            return False
    return f"/{'/'.join(kept)}/".startswith(f"{base}/") and "//" not in path and "\n" not in path


@given(
    st.sampled_from(sorted(BASES)),
    st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.text(max_size=12)),
)
@example("openai", "v1/%2e%2e")
@example("openai", "x%3f/../y")
def test_every_endpoint_is_refused_or_stays_below_its_base(slug: str, endpoint: str) -> None:
    try:
        target = resolve(REGISTRY[slug], BEGINS.get(slug, "") + endpoint, account=ACCOUNT, headers={})
    except EndpointRefused:
        return
    base = urlsplit(BASES[slug])
    assert (target.scheme, target.host, target.port) == (base.scheme, base.hostname, None)
    path = target.raw_path.decode("ascii").partition("?")[0]
    for decoded in (path, unquote(path), unquote(unquote(path))):
        assert lands_below(decoded, base.path)


@given(st.text("abcv1@:+,=!$&'()*~_-./?%2eEfF \\#", max_size=40))
def test_an_endpoint_is_never_changed(endpoint: str) -> None:
    try:
        target = resolve(REGISTRY["anthropic"], endpoint, account="", headers={})
    except EndpointRefused:
        return
    assert target.raw_path.decode() == "/" + endpoint.removeprefix("/")


@pytest.mark.parametrize(
    ("slug", "endpoint", "account", "named"),
    [
        ("workers-ai", "@cf/x", "demo", "account id"),
        ("workers-ai", "@cf/x", ACCOUNT[:-1], "account id"),
        ("workers-ai", "@cf/x", ACCOUNT + "/../x", "account id"),
        ("workers-ai", "@cf/x", ACCOUNT + "\n", "account id"),
        ("aws-bedrock", "bedrock-runtime/us.evil/x", ACCOUNT, "region"),
        ("aws-bedrock", "bedrock-runtime/x@evil/x", ACCOUNT, "region"),
        ("aws-bedrock", "bedrock-runtime/us%2Deast/x", ACCOUNT, "region"),
        ("aws-bedrock", "bedrock-runtime/evil:80/x", ACCOUNT, "region"),
        ("aws-bedrock", "bedrock-mantle/a_b/x", ACCOUNT, "region"),
        ("aws-bedrock", "bedrock-runtime/s3/x", ACCOUNT, "region"),
        ("aws-bedrock", "bedrock-runtime/s3-us-west-2/x", ACCOUNT, "region"),
        ("aws-bedrock", "bedrock-mantle/lambda/x", ACCOUNT, "region"),
        ("aws-bedrock", "bedrock-runtime/s3-accesspoint/x", ACCOUNT, "region"),
        ("aws-bedrock", "bedrock-runtime/" + "a" * 64, ACCOUNT, "63"),
        ("azure-openai", "evil.example/dep/x", ACCOUNT, "resource"),
        ("azure-openai", "res/a%2Fb/x", ACCOUNT, "deployment"),
        ("azure-openai", "res/...x/x", ACCOUNT, "deployment"),
        ("google-vertex-ai", "v1/projects/p/locations/evil.example/x", ACCOUNT, "location"),
        ("baseten", "model/evil.example", ACCOUNT, "model"),
        ("baseten", "model/" + "a" * 60, ACCOUNT, "63"),
    ],
)
def test_a_placeholder_value_must_be_a_plain_name(slug: str, endpoint: str, account: str, named: str) -> None:
    with pytest.raises(EndpointRefused, match=named):
        goes(slug, endpoint, account)


@pytest.mark.parametrize(
    ("slug", "endpoint", "form"),
    [
        ("aws-bedrock", "model/x/invoke", "bedrock-runtime/{region} or bedrock-mantle/{region}"),
        ("aws-bedrock", "bedrock-runtime", "bedrock-runtime/{region}"),
        ("azure-openai", "res", "{resource}/{deployment}"),
        ("google-vertex-ai", "v1/models", "{version}/projects/{project}/locations/{location}"),
    ],
)
def test_an_endpoint_without_a_route_is_refused_with_the_known_forms(slug: str, endpoint: str, form: str) -> None:
    with pytest.raises(EndpointRefused, match=re.escape(form)):
        goes(slug, endpoint)


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("https://queue.fal.run/fal-ai/x?a=b", "https://queue.fal.run/fal-ai/x?a=b"),
        ("https://FAL.run", "https://fal.run/"),
        ("https://rest.fal.ai:443/x", "https://rest.fal.ai/x"),
    ],
)
def test_fals_header_selects_the_target(given_url: str, url: str) -> None:
    assert goes("fal", "", X_Fal_Target_Url=given_url) == url


@pytest.mark.parametrize(
    "given_url",
    [
        "http://fal.run/x",
        "https://evil.example/x",
        "https://evilfal.run/x",
        "https://fal.run.evil.example/x",
        "https://fal.run@evil.example/x",
        "https://user:pass@fal.run/x",
        "https://fal.run:8443/x",
        "https://evil.example\\.fal.run/x",
        "https://evil.example#.fal.run/x",
        "https://fal.run/../x",
        "https://fal.run/x\r\nHost: evil.example",
        "//fal.run/x",
        "",
    ],
)
def test_fals_header_selects_only_its_own_hosts(given_url: str) -> None:
    with pytest.raises(EndpointRefused):
        goes("fal", "", x_fal_target_url=given_url)


def test_fals_header_does_not_bypass_a_configured_base() -> None:
    provider = make_provider("fal", {"base_url": "http://127.0.0.1:9000"})
    with pytest.raises(EndpointRefused):
        resolve(provider, "", account="", headers={"x-fal-target-url": "https://fal.run/x"})


def test_other_providers_ignore_fals_header() -> None:
    assert goes("openai", "x", x_fal_target_url="https://fal.run/x") == "https://api.openai.com/v1/x"


@pytest.mark.parametrize(
    ("slug", "base_url", "endpoint", "url"),
    [
        ("openai", "http://127.0.0.1:9000/v1", "v1/x", "http://127.0.0.1:9000/v1/x"),
        ("openai", "http://[::1]:9000", "x", "http://::1:9000/x"),
        ("custom-mine", "https://h/api", "v1/x?y=z", "https://h/api/v1/x?y=z"),
        ("custom-mine", "https://h/{account_id}", "x", f"https://h/{ACCOUNT}/x"),
        ("azure-openai", "http://h", "res/dep/x", "http://h/res/dep/x"),
        (
            "azure-openai",
            "https://{resource}.h/openai/deployments/{deployment}",
            "r/openai/v1/x",
            "https://r.h/openai/v1/x",
        ),
        (
            "azure-openai",
            "https://{resource}.h/openai/deployments/{deployment}",
            "r/dep/x",
            "https://r.h/openai/deployments/dep/x",
        ),
        ("azure-openai", "http://{resource}.h/{deployment}", "res/dep/x", "http://res.h/dep/x"),
        ("aws-bedrock", "http://h/aws", "bedrock-runtime/us/x", "http://h/aws/bedrock-runtime/us/x"),
        ("aws-bedrock", "http://{region}.h", "bedrock-runtime/us/x", "http://us.h/x"),
        ("google-vertex-ai", "http://h", "v1/projects/p/locations/l/x", "http://h/v1/projects/p/locations/l/x"),
        (
            "google-vertex-ai",
            "http://{location}.h",
            "v1/projects/p/locations/l/x",
            "http://l.h/v1/projects/p/locations/l/x",
        ),
        ("workers-ai", "http://h/ai/run", "run/@cf/x", "http://h/ai/run/@cf/x"),
        ("workers-ai", "http://h", "@cf/x", "http://h/@cf/x"),
        ("workers-ai", "http://h/{account_id}/ai", "@cf/x", f"http://h/{ACCOUNT}/ai/run/@cf/x"),
        ("workers-ai", "http://h/{account_id}/ai/run/", "@cf/x", f"http://h/{ACCOUNT}/ai/run/@cf/x"),
        ("workers-ai", "http://h/{account_id}/ai", "v1/x", f"http://h/{ACCOUNT}/ai/v1/x"),
        ("baseten", "http://h/v1", "model/abc", "http://h/v1/model/abc"),
        ("baseten", "http://{model}.h", "model/abc", "http://abc.h/"),
        ("fal", "http://h", "fal-ai/x", "http://h/fal-ai/x"),
    ],
)
def test_endpoints_go_to_a_configured_base_url(slug: str, base_url: str, endpoint: str, url: str) -> None:
    assert moved(slug, base_url, endpoint) == url


def test_only_a_base_with_an_account_placeholder_needs_an_account() -> None:
    assert moved("workers-ai", "http://h", "@cf/x", account="demo") == "http://h/@cf/x"


def test_an_override_keeps_the_rest_of_the_registry() -> None:
    providers = with_overrides(
        {
            "google": {"base_url": "http://h"},
            "openai": {"ended_without_mark": "done", "max_connections": 7},
            "custom-mine": {"base_url": "https://mine.example"},
        }
    )
    assert set(providers) == {*REGISTRY, "custom-mine"}
    assert lookup("google", providers) is lookup("google-ai-studio", providers)
    assert providers["google-ai-studio"].base_url == "http://h"
    assert (providers["openai"].ended_without_mark, providers["openai"].max_connections) == ("done", 7)
    assert providers["openai"].base_url == REGISTRY["openai"].base_url
    assert (providers["custom-mine"].ended_without_mark, providers["custom-mine"].max_connections) == ("broken", 1024)
    assert {slug for slug in REGISTRY if providers[slug] == REGISTRY[slug]} == {*REGISTRY} - {
        "google-ai-studio",
        "openai",
    }


@pytest.mark.parametrize(
    ("slug", "table", "message"),
    [
        ("nebius", {"base_url": "https://h"}, "custom-NAME"),
        ("custom-", {"base_url": "https://h"}, "custom-NAME"),
        ("custom-a/b", {"base_url": "https://h"}, "custom-NAME"),
        ("custom-mine", {}, "needs a base_url"),
        ("openai", {"base_url": "api.openai.com"}, "http://"),
        ("openai", {"max_connections": 0}, "max_connections"),
        ("openai", {"ended_without_mark": "maybe"}, "ended_without_mark"),
        ("openai", {"colour": "red"}, "colour"),
        ("openai", {"base_url": "https://{region}.h"}, "{region}"),
        ("azure-openai", {"base_url": "https://{resource}.h"}, "all placeholders"),
    ],
)
def test_an_invalid_table_is_refused_with_its_reason(slug: str, table: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        with_overrides({slug: table})


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "http://"),
        ("ftp://h", "http://"),
        ("//h", "http://"),
        (" https://h", "http://"),
        ("https://user:hunter2@h", "user or password"),
        ("https://h/x?key=hunter2", "query"),
        ("https://h/x?", "query"),
        ("https://h/#x", "fragment"),
        ("https://", "is not a valid URL"),
        ("https://h:0", "is not a valid URL"),
        ("https://h:65536", "is not a valid URL"),
        ("https://h:", "is not a valid URL"),
        ("https://h x", "is not a valid URL"),
        ("https://h\n", "is not a valid URL"),
        ("https://h\u212a/", "is not a valid URL"),
        ("https://caf\xe9", "is not a valid URL"),
        ("https://h/{}", "is not a valid URL"),
        ("https://h/100%", "is not a valid URL"),
        ("https://h/../x", "'..'"),
        ("https://h/%2e%2e/x", "'..'"),
        ("https://h/a//b", "empty segment"),
        ("https://h/{nobody}", "{nobody}"),
    ],
)
def test_an_invalid_base_url_is_refused_and_not_repeated(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        validate_base_url(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "slug", ["nebius", "compat", "custom-mine", "OpenAI", "", "adobe-firefly", "x\r\ny", "\u20ac" * 99]
)
def test_an_unknown_provider_is_named_safely(slug: str) -> None:
    with pytest.raises(UnknownProvider, match="neither built in nor configured") as unknown:
        lookup(slug, REGISTRY)
    message = str(unknown.value)
    assert ascii(slug[:10])[1:-1] in message
    assert message.isprintable()
    assert len(message) < 600


def test_a_stored_key_is_sent_in_the_providers_header() -> None:
    assert REGISTRY["openai"].credential.value("k") == "Bearer k"
    assert REGISTRY["anthropic"].credential.value("k") == "k"


@pytest.mark.parametrize(
    ("endpoint", "body", "model"),
    [
        ("v1/chat/completions", b'{"messages": [{"model": "inner"}], "model": "gpt-4o"}', "gpt-4o"),
        ("v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", b'{"contents": []}', "gemini-2.5-flash"),
        ("v1/projects/p/locations/l/publishers/google/models/g:generateContent", b"", "g"),
        ("bedrock-runtime/us-east-1/model/us.anthropic.claude-v1%3A0/invoke", b"{}", "us.anthropic.claude-v1:0"),
        ("bedrock-runtime/us-east-1/model/us.anthropic.claude-v1:0/converse-stream", b"{}", "us.anthropic.claude-v1:0"),
        ("/run/@cf/meta/llama", b'{"prompt": "hi"}', "@cf/meta/llama"),
        ("v1beta/models/pro:generateContent", b'{"model": "flash"}', "pro"),
        ("v1beta/models/pro%3AgenerateContent", b'{"model": "flash"}', "pro"),
        ("bedrock-runtime/us-east-1/model/a:0/invoke", b'{"model": "b"}', "a:0"),
        (
            "bedrock-runtime/us-east-1/model/arn%3Aaws%3A1%3Aprofile%2Fa/converse",
            b'{"model": "b"}',
            "arn:aws:1:profile/a",
        ),
        ("@cf/meta/llama", b'{"model": "small"}', "@cf/meta/llama"),
        ("v1/models", b'{"model": "small"}', "small"),
        ("res/gpt-4o/chat/completions?api-version=1", b'{"messages": []}', "gpt-4o"),
        ("openai/deployments/gpt-4o/chat/completions", b"{}", "gpt-4o"),
        ("api/v1/chat/completions", b"{}", None),
        ("v1/chat/completions", b"{}", None),
        ("beta/chat/completions", b"{}", None),
        ("v1/audio/images/edits", b"{}", None),
        ("fal-ai/fast-sdxl", b"{}", "fal-ai/fast-sdxl"),
        ("v1/listen?language=en&model=nova-3", b"RIFF\x00\xff", "nova-3"),
        ("model/abc123", b"[]", "abc123"),
        ("chat/completions", b'{"model": 3}', None),
        ("chat/completions", b'{"model": null}', None),
        ("chat/completions", b'{"model": ""}', None),
        ("chat/completions", b'{"model": "\xff"}', None),
        ("chat/completions", b"[" * 100_000, None),
        ("chat/completions", b"", None),
        ("", b"", None),
        ("chat/completions", b'{"model": "' + b"x" * 1000 + b'"}', "x" * 256),
    ],
)
def test_the_model_is_read_from_body_or_endpoint(endpoint: str, body: bytes, model: str | None) -> None:
    assert model_of(endpoint, model_in(body)) == model


@given(st.text(), st.binary())
def test_reading_the_model_never_raises(endpoint: str, body: bytes) -> None:
    model_of(endpoint, model_in(body))
