"""Targets and keys of realtime handshakes: every form of Cloudflare's page, and the providers' own."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadField, EndpointRefused
from bridge.providers import REGISTRY, Provider, lookup, make_provider, opening, select_subprotocol, socket_target
from bridge.providers.realtime import plain_value

ACCOUNT = "0123456789abcdef0123456789abcdef"
TOKEN = "cf-aig-authorization.cf-token"
LIVE = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
RUN = f"/client/v4/accounts/{ACCOUNT}/ai/run/@cf/deepgram"


def target_and_key(slug: str, path: str = "", query: str = "", offered: tuple[str, ...] = ()) -> tuple[str, object]:
    """The URL that is dialled, without its scheme, and the key's header."""
    provider = lookup(slug, REGISTRY)
    found = opening(provider, path, query, offered)
    target = socket_target(provider, found.endpoint, ACCOUNT)
    return target.host + target.raw_path.decode(), found.key


def coded(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("slug", "path", "query", "offered", "url", "key"),
    [
        # Cloudflare's page, in its order.
        (
            "openai",
            "",
            "model=gpt-4o-realtime-preview-2024-12-17",
            (),
            "api.openai.com/v1/realtime?model=gpt-4o-realtime-preview-2024-12-17",
            None,
        ),
        (
            "google",
            "",
            "api_key=AIza",
            (TOKEN,),
            f"generativelanguage.googleapis.com{LIVE}",
            ("x-goog-api-key", "AIza"),
        ),
        (
            "cartesia",
            "",
            "cartesia_version=2024-06-10&api_key=sk_car",
            (TOKEN,),
            "api.cartesia.ai/tts/websocket?cartesia_version=2024-06-10",
            ("x-api-key", "sk_car"),
        ),
        (
            "elevenlabs",
            "",
            "agent_id=agent_1",
            ("xi-api-key.sk_xi", TOKEN),
            "api.elevenlabs.io/v1/convai/conversation?agent_id=agent_1",
            ("xi-api-key", "sk_xi"),
        ),
        (
            "fal",
            "fal-ai/fast-lcm-diffusion",
            "",
            ("fal-api-key.key", TOKEN),
            "ws.fal.run/fal-ai/fast-lcm-diffusion",
            ("authorization", "Key key"),
        ),
        (
            "workers-ai",
            "",
            "model=@cf/deepgram/nova-3&encoding=linear16&sample_rate=16000&interim_results=true",
            (),
            f"api.cloudflare.com{RUN}/nova-3?encoding=linear16&sample_rate=16000&interim_results=true",
            None,
        ),
        ("workers-ai", "", "model=@cf/deepgram/aura-1", (), f"api.cloudflare.com{RUN}/aura-1", None),
        # The page's providers in other forms of theirs.
        ("openai", "realtime", "model=gpt-realtime", (), "api.openai.com/v1/realtime?model=gpt-realtime", None),
        ("openai", "v1/realtime", "call_id=rtc_1", (), "api.openai.com/v1/realtime?call_id=rtc_1", None),
        ("openai", "realtime", "intent=transcription", (), "api.openai.com/v1/realtime?intent=transcription", None),
        ("openai", "responses", "", (), "api.openai.com/v1/responses", None),
        (
            "openai",
            "",
            "model=m",
            ("realtime", "openai-insecure-api-key.sk-1"),
            "api.openai.com/v1/realtime?model=m",
            ("authorization", "Bearer sk-1"),
        ),
        (
            "openai",
            "",
            "model=m&api_key=sk-1",
            (),
            "api.openai.com/v1/realtime?model=m",
            ("authorization", "Bearer sk-1"),
        ),
        (
            "google-ai-studio",
            "",
            "key=AIza",
            (),
            f"generativelanguage.googleapis.com{LIVE}",
            ("x-goog-api-key", "AIza"),
        ),
        (
            "google-ai-studio",
            "ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained",
            "access_token=auth_tokens/1",
            (),
            "generativelanguage.googleapis.com/ws/google.ai.generativelanguage.v1alpha.GenerativeService."
            "BidiGenerateContentConstrained?access_token=auth_tokens/1",
            None,
        ),
        ("cartesia", "stt/websocket", "model=ink-whisper", (), "api.cartesia.ai/stt/websocket?model=ink-whisper", None),
        (
            "elevenlabs",
            "v1/text-to-speech/voice/stream-input",
            "model_id=eleven_flash_v2_5",
            (),
            "api.elevenlabs.io/v1/text-to-speech/voice/stream-input?model_id=eleven_flash_v2_5",
            None,
        ),
        (
            "fal",
            "fal-ai/fast-lcm-diffusion/realtime",
            "fal_jwt_token=jwt&max_buffering=1",
            (),
            "fal.run/fal-ai/fast-lcm-diffusion/realtime?fal_jwt_token=jwt&max_buffering=1",
            None,
        ),
        (
            "workers-ai",
            "@cf/deepgram/flux",
            "encoding=linear16",
            (),
            f"api.cloudflare.com{RUN}/flux?encoding=linear16",
            None,
        ),
        ("workers-ai", "", "model=%40cf%2Fdeepgram%2Fflux", (), f"api.cloudflare.com{RUN}/flux", None),
        (
            "workers-ai",
            "",
            "model=@cf/deepgram/flux&api_key=cf",
            (),
            f"api.cloudflare.com{RUN}/flux",
            ("authorization", "Bearer cf"),
        ),
        (
            "workers-ai",
            "",
            "model=@cf/deepgram/flux",
            ("token", "cf"),
            f"api.cloudflare.com{RUN}/flux",
            ("authorization", "Bearer cf"),
        ),
        # Deepgram itself.
        (
            "deepgram",
            "v1/listen",
            "model=nova-3",
            ("token", "dg"),
            "api.deepgram.com/v1/listen?model=nova-3",
            ("authorization", "Token dg"),
        ),
        (
            "deepgram",
            "v2/listen",
            "model=flux-general-en",
            ("bearer", "jwt"),
            "api.deepgram.com/v2/listen?model=flux-general-en",
            ("authorization", "Bearer jwt"),
        ),
        ("deepgram", "v1/speak", "model=aura-2", (), "api.deepgram.com/v1/speak?model=aura-2", None),
        (
            "deepgram",
            "v1/agent/converse",
            "",
            ("token", "dg"),
            "agent.deepgram.com/v1/agent/converse",
            ("authorization", "Token dg"),
        ),
        # One of which nothing is known.
        ("grok", "realtime", "model=grok-voice", (), "api.x.ai/v1/realtime?model=grok-voice", None),
    ],
)
def test_a_realtime_url_has_the_providers_target_and_its_key_in_a_header(
    slug: str, path: str, query: str, offered: tuple[str, ...], url: str, key: object
) -> None:
    assert target_and_key(slug, path, query, offered) == (url, key)


@pytest.mark.parametrize(
    ("slug", "path", "query", "model"),
    [
        ("openai", "", "model=gpt-realtime", "gpt-realtime"),
        ("google", "", "api_key=k", None),
        ("fal", "fal-ai/lcm", "", "fal-ai/lcm"),
        ("workers-ai", "", "model=@cf/deepgram/nova-3", "@cf/deepgram/nova-3"),
        ("workers-ai", "@cf/deepgram/nova-3", "", "@cf/deepgram/nova-3"),
        ("deepgram", "v1/listen", "model=nova-3", "nova-3"),
    ],
)
def test_the_model_is_read_from_the_url(slug: str, path: str, query: str, model: str | None) -> None:
    assert opening(lookup(slug, REGISTRY), path, query, ()).model == model


@pytest.mark.parametrize("slug", ["fal", "deepgram", "workers-ai", "anthropic"])
def test_a_url_without_an_endpoint_is_refused_if_the_provider_has_no_default(slug: str) -> None:
    with pytest.raises(EndpointRefused, match=slug):
        target_and_key(slug)


def test_what_a_url_says_beside_its_key_arrives_as_it_was_written() -> None:
    url, _ = target_and_key("cartesia", "", "b=%2F&a=1&api_key=k&empty=&flag&a=2")
    assert url == "api.cartesia.ai/tts/websocket?b=%2F&a=1&empty=&flag&a=2"


@pytest.mark.parametrize("path", ["../admin", "v1/%2e%2e/admin", "//evil", "https://evil/"])
def test_no_endpoint_leaves_its_provider(path: str) -> None:
    with pytest.raises(EndpointRefused):
        target_and_key("openai", path)


@pytest.mark.parametrize("model", ["../../../x", "@cf/../../x"])
def test_no_model_leaves_its_provider(model: str) -> None:
    with pytest.raises(EndpointRefused):
        target_and_key("workers-ai", "", f"model={model}")


# Keys.


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("sk-plain_key.1", "sk-plain_key.1"),
        ("key-id%3Asecret", "key-id:secret"),
        (coded("key-id:secret"), "key-id:secret"),
        (coded("0c6b1c3e-1111-2222-3333-444455556666:012345"), "0c6b1c3e-1111-2222-3333-444455556666:012345"),
        (coded("harmless-as-it-is"), coded("harmless-as-it-is")),  # it need not have been coded, so it was not
        ("YWJjOmRlZg", "YWJjOmRlZg"),  # abc:def, but short: chance would have it too often
    ],
)
def test_a_key_that_is_no_valid_subprotocol_may_be_encoded(written: str, plain: str) -> None:
    assert plain_value(written) == plain


@given(st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=40, max_size=200))
def test_a_key_that_is_a_valid_subprotocol_is_unchanged(key: str) -> None:
    if plain_value(key) != key:  # then it could have been meant so
        assert coded(plain_value(key)) == key.rstrip("=")


def test_a_key_of_fal_works_as_a_browsers_subprotocol() -> None:
    key = "0c6b1c3e-1111-2222-3333-444455556666:0123456789abcdef"
    for written in (coded(key), key.replace(":", "%3A")):
        assert target_and_key("fal", "fal-ai/x", "", (f"fal-api-key.{written}",))[1] == ("authorization", f"Key {key}")


@pytest.mark.parametrize("query", ["api_key=a%0Ab", "api_key=a%20b", "api_key=%C3%A9"])
def test_a_key_that_is_invalid_in_a_header_is_refused_and_not_repeated(query: str) -> None:
    with pytest.raises(BadField) as refused:
        target_and_key("openai", "", query)
    assert str(refused.value) == "the parameter api_key contains no key that is valid in a header"


def test_an_empty_key_is_no_key() -> None:
    assert target_and_key("openai", "", "api_key=&model=m") == ("api.openai.com/v1/realtime?model=m", None)


def test_a_subprotocol_comes_before_the_url() -> None:
    assert target_and_key("openai", "", "api_key=url", ("openai-insecure-api-key.protocol",))[1] == (
        "authorization",
        "Bearer protocol",
    )


@pytest.mark.parametrize("offered", [("xi-api-key.k",), ("fal-api-key.k",), ("token", "k"), (TOKEN,)])
def test_a_key_for_another_provider_is_dropped(offered: tuple[str, ...]) -> None:
    found = opening(REGISTRY["openai"], "", "", offered)
    assert (found.key, found.protocols) == (None, ())


@pytest.mark.parametrize(
    ("query", "brings"),
    [
        ("agent_id=1", False),
        ("agent_id=1&conversation_signature=x", True),
        ("single_use_token=x", True),
        ("access_token=x", True),
        ("fal_jwt_token=x", True),
        ("keywords=x&max_tokens=3", False),
    ],
)
def test_a_secret_parameter_counts_as_a_supplied_key(query: str, brings: bool) -> None:
    assert opening(REGISTRY["elevenlabs"], "", query, ()).brings_key == brings


# Subprotocols.


@pytest.mark.parametrize(
    ("offered", "forwarded"),
    [
        ((), ()),
        (("realtime", "openai-insecure-api-key.k", TOKEN), ("realtime",)),
        (("realtime", "openai-beta.realtime-v1"), ("realtime", "openai-beta.realtime-v1")),
        (("token", "key"), ()),
        (("Token", "key", "chat"), ("chat",)),
        (("token",), ("token",)),
        (("token", TOKEN, "chat"), ("token", "chat")),
        (("token", "token", "chat"), ("chat",)),
    ],
)
def test_a_provider_is_offered_the_clients_subprotocols_without_credentials(
    offered: tuple[str, ...], forwarded: tuple[str, ...]
) -> None:
    assert opening(REGISTRY["openai"], "", "", offered).protocols == forwarded


@pytest.mark.parametrize(
    ("offered", "picked", "one"),
    [
        ([], None, None),
        ([], "realtime", None),
        (["chat"], None, "chat"),
        (["chat", "superchat"], None, "chat"),
        (["chat", "superchat"], "superchat", "superchat"),
        (["chat", "realtime"], None, "realtime"),
        (["chat", "realtime"], "chat", "chat"),
        (["chat"], "of-another", "chat"),
        ([TOKEN], None, TOKEN),
        ([TOKEN, "chat"], None, "chat"),
        ([TOKEN, "openai-insecure-api-key.sk-1", "realtime"], None, "realtime"),
        (["xi-api-key.1", "fal-api-key.2"], None, "xi-api-key.1"),
        (["xi-api-key.1", "chat"], None, "chat"),
        (["fal-api-key.2", "chat"], None, "chat"),
        (["token", "secret", "chat"], None, "token"),
        ([TOKEN, "token", "secret"], None, "token"),
        (["bearer", "secret"], "secret", "bearer"),
    ],
)
def test_the_accepted_subprotocol_is_the_providers_choice_or_no_credential(
    offered: list[str], picked: str | None, one: str | None
) -> None:
    assert select_subprotocol(offered, picked) == one


# What a configuration changes.


def moved(slug: str, **table: object) -> Provider:
    return make_provider(slug, table)


def dialled(provider: Provider, path: str = "", query: str = "") -> tuple[str, str, int | None, str]:
    target = socket_target(provider, opening(provider, path, query, ()).endpoint, ACCOUNT)
    return target.scheme, target.host, target.port, target.raw_path.decode()


@pytest.mark.parametrize("slug", ["openai", "google-ai-studio", "cartesia", "elevenlabs"])
def test_a_base_url_moves_a_providers_sockets_too(slug: str) -> None:
    provider = moved(slug, base_url="http://127.0.0.1:9000/x")
    assert dialled(provider) == ("http", "127.0.0.1", 9000, f"/x/{REGISTRY[slug].realtime.endpoint}")


@pytest.mark.parametrize(
    ("slug", "path"), [("fal", "fal-ai/x/realtime"), ("fal", "fal-ai/x"), ("deepgram", "v1/agent/converse")]
)
def test_all_sockets_of_a_moved_provider_move(slug: str, path: str) -> None:
    assert dialled(moved(slug, base_url="http://127.0.0.1:9000"), path) == ("http", "127.0.0.1", 9000, f"/{path}")


@pytest.mark.parametrize(
    ("written", "scheme"), [("ws", "http"), ("wss", "https"), ("http", "http"), ("https", "https"), ("WSS", "https")]
)
def test_sockets_may_have_their_own_base(written: str, scheme: str) -> None:
    provider = moved("custom-x", base_url="https://api.example.com", realtime_base_url=f"{written}://s.example.com/v2")
    assert dialled(provider, "talk", "a=1") == (scheme, "s.example.com", None, "/v2/talk?a=1")
    assert provider.base_url == "https://api.example.com"


def test_a_socket_of_workers_ai_keeps_its_path_below_another_base() -> None:
    provider = moved("workers-ai", realtime_base_url="ws://127.0.0.1:9000/accounts/{account_id}/ai")
    assert dialled(provider, "", "model=@cf/deepgram/flux")[3] == f"/accounts/{ACCOUNT}/ai/run/@cf/deepgram/flux"


@pytest.mark.parametrize("url", ["ftp://x", "wss://user:pass@x", "wss://x?a=1", "wss://{host}/"])
def test_an_invalid_realtime_base_url_is_reported_by_name(url: str) -> None:
    with pytest.raises(ValueError, match="realtime_base_url"):
        moved("openai", realtime_base_url=url)


@pytest.mark.parametrize(
    "offered", [("openai-insecure-api-key.k",), ("xi-api-key.k",), ("fal-api-key.k",), ("token", "k")]
)
def test_a_custom_provider_accepts_a_key_in_any_known_form(offered: tuple[str, ...]) -> None:
    provider = moved("custom-x", base_url="https://api.example.com")
    assert opening(provider, "talk", "", offered).key == ("authorization", "Bearer k")
