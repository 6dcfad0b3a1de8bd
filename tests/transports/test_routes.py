"""A URL becomes the place from which the bridge makes the same URL again, or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.providers import REGISTRY, resolve
from bridge.transports.routes import Address, NoProvider, ProviderPlace, Routes

ACCOUNT = "0123456789abcdef0123456789abcdef"
BRIDGE = f"wss://bridge.example/v1/{ACCOUNT}/my-gateway"

KNOWN = {
    "https://api.openai.com/v1/chat/completions": ("openai", "chat/completions"),
    "https://api.openai.com/v1/files?limit=2&after=a%2Fb": ("openai", "files?limit=2&after=a%2Fb"),
    "https://api.openai.com/v1/v1/odd": ("openai", "v1/v1/odd"),
    "https://api.openai.com/v1": ("openai", ""),
    "https://api.anthropic.com/v1/messages?beta=true": ("anthropic", "v1/messages?beta=true"),
    "https://api.groq.com/openai/v1/chat/completions": ("groq", "chat/completions"),
    "https://api.cohere.com/v2/chat": ("cohere", "v2/chat"),
    "https://api.mistral.ai/v1/chat/completions": ("mistral", "v1/chat/completions"),
    "https://generativelanguage.googleapis.com/v1beta/models/g:streamGenerateContent?alt=sse": (
        "google-ai-studio",
        "v1beta/models/g:streamGenerateContent?alt=sse",
    ),
    "https://my-own.openai.azure.com/openai/deployments/gpt-4.1/chat/completions?api-version=1": (
        "azure-openai",
        "my-own/gpt-4.1/chat/completions?api-version=1",
    ),
    "https://my-own.openai.azure.com/openai/v1/responses": ("azure-openai", "my-own/openai/v1/responses"),
    "https://my-own.openai.azure.com/openai/deployments/openai/chat/completions": (
        "azure-openai",
        "my-own/openai/deployments/openai/chat/completions",
    ),
    "https://router.huggingface.co/v1/chat/completions": ("huggingface-router", "v1/chat/completions"),
    "https://api.together.xyz/v1/chat/completions": ("together", "chat/completions"),
    "https://bedrock-runtime.us-east-1.amazonaws.com/model/a.b%3A0/invoke": (
        "aws-bedrock",
        "bedrock-runtime/us-east-1/model/a.b%3A0/invoke",
    ),
    "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5/publishers/x": (
        "google-vertex-ai",
        "v1/projects/p/locations/us-east5/publishers/x",
    ),
    "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/x": (
        "google-vertex-ai",
        "v1/projects/p/locations/global/publishers/x",
    ),
    f"https://api.cloudflare.com/client/v4/accounts/{ACCOUNT}/ai/run/@cf/m": ("workers-ai", "run/@cf/m"),
    f"https://api.cloudflare.com/client/v4/accounts/{ACCOUNT}/ai/v1/responses": ("workers-ai", "v1/responses"),
    "https://model-abc.api.baseten.co/production/predict": ("baseten", "model/abc/"),
}

UNKNOWN = {
    "another host": "https://llm.example/v1/chat/completions",
    "another port": "https://api.openai.com:8443/v1/files",
    "in the clear": "http://api.openai.com/v1/files",
    "beside the base path": "https://api.openai.com/v10/files",
    "above the base path": "https://api.groq.com/status",
    "another account than the gateway's": "https://api.cloudflare.com/client/v4/accounts/" + "f" * 32 + "/ai/run/@cf/m",
    "a location that the host is not for": "https://eu-aiplatform.googleapis.com/v1/projects/p/locations/us/x",
    "no HTTP": "wss://api.openai.com/v1/realtime",
}


def address(url: str) -> Address:
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    host, _, port = authority.partition(":")
    return Address(scheme, host, int(port) if port else None, slash + path)


@pytest.mark.parametrize(("url", "place"), KNOWN.items())
def test_the_hosts_of_the_built_in_providers_are_known(url: str, place: tuple[str, str]) -> None:
    assert Routes(BRIDGE).place(address(url)) == place
    target = resolve(REGISTRY[place[0]], place[1], account=ACCOUNT, headers={})
    assert f"{target.scheme}://{target.host}{target.raw_path.decode()}" == url


@pytest.mark.parametrize("url", UNKNOWN.values(), ids=UNKNOWN)
def test_an_endpoint_that_resolves_to_another_url_is_no_place(url: str) -> None:
    with pytest.raises(NoProvider, match="give the transport provider='SLUG'"):
        Routes(BRIDGE).place(address(url))


@given(
    slug=st.sampled_from(sorted(REGISTRY)),
    path=st.from_regex(r"[a-z0-9_/-]{0,20}(\?[a-z=&%0-9]{0,9})?", fullmatch=True),
)
def test_every_place_that_is_found_leads_back(slug: str, path: str) -> None:
    url = address(f"{REGISTRY[slug].base_url.replace('{account_id}', ACCOUNT)}/{path}")
    try:
        place = Routes(BRIDGE).place(url)
    except NoProvider:
        return
    target = resolve(REGISTRY[place.provider], place.endpoint, account=ACCOUNT, headers={})
    assert (target.host, target.raw_path.decode()) == (url.host, url.raw_path)


def test_own_routes_come_first_and_the_longest_of_them_before_the_others() -> None:
    own = {
        "https://api.openai.com/v1": "custom-proxy",
        "http://127.0.0.1:9000": "custom-plain",
        "http://127.0.0.1:9000/v1/": "custom-v1",
        "http://[::1]:9000/v1": "custom-six",
    }
    routes = Routes(BRIDGE, own)
    assert routes.place(address("https://api.openai.com/v1/files")) == ("custom-proxy", "files")
    assert routes.place(address("http://127.0.0.1:9000/v2/chat")) == ("custom-plain", "v2/chat")
    assert routes.place(address("http://127.0.0.1:9000/v1/v1/chat")) == ("custom-v1", "v1/v1/chat")
    assert routes.place(Address("http", "::1", 9000, "/v1/chat")) == ("custom-six", "chat")


def test_an_unknown_url_belongs_to_the_default_provider() -> None:
    routes = Routes(BRIDGE, provider="custom-own")
    assert routes.place(address("http://anything/v1/chat?x=1")) == ProviderPlace("custom-own", "v1/chat?x=1")
    assert routes.place(address("https://api.groq.com/openai/v1/models")) == ("groq", "models")


def test_an_invalid_base_url_raises_at_once() -> None:
    with pytest.raises(ValueError, match="must not contain a query"):
        Routes(BRIDGE, {"https://a.example/?x=1": "custom-a"})
