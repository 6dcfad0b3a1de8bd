"""The table of a gateway: tokens, keys, limits, logs and traces, and the report of its mistakes."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge.config import ConfigError, Configuration, Gateway, load
from bridge.config.describe import describe
from bridge.config.gateways import authenticate
from bridge.config.keys import AwsKey, GoogleAccount, StoredKey
from bridge.config.limits import Dimension, Limits, RateLimit, SpendRule
from bridge.config.otel import OtelExporter
from bridge.settings.step import StepSettings

SECRET = "sk-the-secret-itself"
ACCOUNT = json.dumps(
    {"client_email": "a@b", "private_key": "-----", "token_uri": "https://oauth2.googleapis.com/token"}
)
AWS = json.dumps({"accessKeyId": "AKIA", "secretAccessKey": SECRET, "region": "eu-west-1", "sessionToken": "session"})
ENVIRON = {"TOKEN": "one", "OTHER": "two", "KEY": SECRET, "ID": "AKIA", "ACCOUNT": ACCOUNT, "AWS": AWS, "EMPTY": " "}
TOKENS = '[gateways.prod.tokens]\nci = "env:TOKEN"\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bridge.toml"


def loaded(path: Path, text: str, environ: Mapping[str, str] = ENVIRON) -> Configuration:
    path.write_text(text)
    return load(path, environ, {})


def gateway(path: Path, text: str) -> Gateway:
    return loaded(path, text).gateways["prod"]


def problems(path: Path, text: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(ConfigError) as caught:
        loaded(path, text)
    return [(problem.line, problem.key, problem.message) for problem in caught.value.problems]


# Cloudflare's names.


def test_settings_have_cloudflares_names_too(path: Path) -> None:
    found = gateway(
        path,
        """
        [gateways.prod]
        retry_max_attempts = 3
        retry_delay = 1000
        retry_backoff = "linear"
        collect_logs = false
        cache_ttl = 300
        authentication = false
        log_management = 50_000
        log_management_strategy = "STOP_INSERTING"
        """,
    )
    settings = StepSettings(max_attempts=3, retry_delay=1000, backoff="linear", collect_log=False, cache_ttl=300)
    assert found == Gateway("prod", settings=settings, log_rows=50_000, log_strategy="STOP_INSERTING")


@pytest.mark.parametrize(
    ("theirs", "ours", "value"),
    [
        ("retry_max_attempts", "max_attempts", "2"),
        ("retry_backoff", "backoff", '"linear"'),
        ("collect_logs", "collect_log", "true"),
    ],
)
def test_a_setting_is_refused_under_both_of_its_names(path: Path, theirs: str, ours: str, value: str) -> None:
    [problem] = problems(path, f"[gateways.prod]\n{ours} = {value}\n{theirs} = {value}")
    assert problem == (3, f"gateways.prod.{theirs}", f"is another name of {ours}; set only one of them")


REFUSED = {
    "cache_invalidate_on_update": "true",
    "dlp": "{ enabled = true }",
    "guardrails": "{ prompt = {}, response = {} }",
    "id": '"prod"',
    "logpush": "true",
    "logpush_public_key": '"a key"',
    "store_id": '"store"',
    "stripe": '{ authorization = "sk" }',
    "workers_ai_billing_mode": '"postpaid"',
    "zdr": "true",
}


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_unsupported_cloudflare_settings_are_refused_with_a_reason(path: Path, name: str, value: str) -> None:
    [(line, key, message)] = problems(path, f"[gateways.prod]\n{name} = {value}")
    assert (line, key) == (2, f"gateways.prod.{name}")
    assert message.startswith("is not supported: ")


@pytest.mark.parametrize(("name", "value"), [("zdr", "false"), ("logpush", "false"), ("store_id", '""'), ("dlp", "{}")])
def test_an_unsupported_setting_may_be_switched_off(path: Path, name: str, value: str) -> None:
    assert gateway(path, f"[gateways.prod]\n{name} = {value}") == Gateway("prod")


def test_authentication_must_agree_with_the_tokens(path: Path) -> None:
    assert not gateway(path, f"[gateways.prod]\nauthentication = true\n{TOKENS}").is_open
    [(line, key, message)] = problems(path, "[gateways.prod]\nauthentication = true")
    assert (line, key) == (2, "gateways.prod.authentication")
    assert "there are no tokens" in message
    [(_, key, message)] = problems(path, f"[gateways.prod]\nauthentication = false\n{TOKENS}")
    assert (key, "there are tokens" in message) == ("gateways.prod.authentication", True)


# Limits.

LIMITS = """
rate_limiting_limit = 100
rate_limiting_interval = 60
rate_limiting_technique = "sliding"
max_concurrent = 8
spend_limits.enabled = true
spend_limits.rules = [
    { id = "day", limitType = "cost", limit = 5, window = 86_400, technique = "fixed" },
    { id = "user", limitType = "cost", limit = 0.5, window = 3600, metadata = { user = { mode = "partition" } } },
    { id = "dear", limitType = "cost", limit = 1, window = 60, model.mode = "filter", model.values = ["gpt-5"], \
provider.mode = "filter", provider.values = ["google"] },
    { id = "off", enabled = false, limitType = "cost", limit = 1, window = 60 },
]
max_concurrent_by_provider = { openai = 4, google = 2 }
"""
READ = Limits(
    RateLimit(100, 60, "sliding"),
    (
        SpendRule("day", 5.0, 86_400, "fixed"),
        SpendRule("user", 0.5, 3600, "sliding", {"user": Dimension("partition")}),
        SpendRule(
            "dear",
            1.0,
            60,
            provider=Dimension("filter", frozenset({"google-ai-studio"})),
            model=Dimension("filter", frozenset({"gpt-5"})),
        ),
    ),
    8,
    {"openai": 4, "google-ai-studio": 2},
)


def test_gateways_and_tokens_have_the_same_limit_keys(path: Path) -> None:
    assert gateway(path, "[gateways.prod]" + LIMITS).limits == READ
    [token] = gateway(path, f'[gateways.prod.tokens.ci]\ntoken = "env:TOKEN"{LIMITS}').tokens
    assert (token.name, token.source, token.limits) == ("ci", "env:TOKEN", READ)


@pytest.mark.parametrize(
    "text",
    ["rate_limiting_limit = 0\nrate_limiting_interval = 0", "max_concurrent = 0", "spend_limits.enabled = false"],
)
def test_zero_is_no_limit(path: Path, text: str) -> None:
    assert gateway(path, f"[gateways.prod]\n{text}").limits == Limits()


def test_disabled_spend_limits_are_no_limits(path: Path) -> None:
    rule = '{ id = "day", limitType = "cost", limit = 5, window = 60 }'
    text = f"[gateways.prod]\nspend_limits = {{ enabled = false, rules = [{rule}] }}"
    assert gateway(path, text).limits == Limits()


RULE = 'id = "day", limitType = "cost", limit = 5, window = 60'
MISTAKES: dict[str, tuple[str, str, str]] = {
    "an interval alone": ("rate_limiting_interval = 60", "rate_limiting_interval", "requires rate_limiting_limit"),
    "a limit alone": ("rate_limiting_limit = 60", "rate_limiting_limit", "requires rate_limiting_interval"),
    "a technique alone": ('rate_limiting_technique = "fixed"', "rate_limiting_technique", "requires rate_limiting"),
    "another technique": ('rate_limiting_technique = "x"', "rate_limiting_technique", '"fixed" or "sliding"'),
    "too few rows": ("log_management = 9999", "log_management", "from 10000 to 10000000"),
    "another strategy": ('log_management_strategy = "x"', "log_management_strategy", "STOP_INSERTING"),
    "a negative number": ("max_concurrent = -1", "max_concurrent", "0 or more"),
    "nobody's concurrency": ("max_concurrent_by_provider.openia = 1", "max_concurrent_by_provider.openia", "neither"),
    "no concurrency": ("max_concurrent_by_provider.openai = 0", "max_concurrent_by_provider.openai", "1 or more"),
    "rules that are no list": ("spend_limits.rules = 1", "spend_limits.rules", "1 is not a list of tables"),
    "a rule that is no table": ("spend_limits.rules = [1]", "spend_limits.rules.0", "1 is not a table"),
    "a rule of tokens": (
        'spend_limits.rules = [{ id = "a", limitType = "tokens", limit = 1, window = 1 }]',
        "spend_limits.rules.0.limitType",
        "'tokens' is not",
    ),
    "a rule without a name": (
        'spend_limits.rules = [{ limitType = "cost", limit = 1, window = 1 }]',
        "spend_limits.rules.0",
        "missing id",
    ),
    "a rule of no window": (
        'spend_limits.rules = [{ id = "a", limitType = "cost", limit = 1, window = 0 }]',
        "spend_limits.rules.0.window",
        "1 or more",
    ),
    "a debt": (
        'spend_limits.rules = [{ id = "a", limitType = "cost", limit = -1, window = 1 }]',
        "spend_limits.rules.0.limit",
        "an amount of US dollars, 0 or more",
    ),
    "a rule twice": (f"spend_limits.rules = [{{ {RULE} }}, {{ {RULE} }}]", "spend_limits.rules", "the id 'day'"),
    "too many rules": (f"spend_limits.rules = [{', '.join([f'{{ {RULE}, enabled = false }}'] * 21)}]",
                       "spend_limits.rules", "21 rules; at most 20"),
    "another mode": (
        f'spend_limits.rules = [{{ {RULE}, metadata.user.mode = "each" }}]',
        "spend_limits.rules.0.metadata.user.mode",
        '"partition" or "filter"',
    ),
    "no mode": (
        f"spend_limits.rules = [{{ {RULE}, model = {{}} }}]", "spend_limits.rules.0.model", 'mode = "partition"'),
    "a filter for nothing": (
        f'spend_limits.rules = [{{ {RULE}, model.mode = "filter" }}]', "spend_limits.rules.0.model", "values ="),
    "a rule for nobody": (
        f'spend_limits.rules = [{{ {RULE}, provider = {{ mode = "filter", values = ["x"] }} }}]',
        "spend_limits.rules.0.provider",
        "neither built in nor configured",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "key", "message"), MISTAKES.values(), ids=MISTAKES)
def test_an_invalid_limit_is_reported_with_key_and_line(path: Path, text: str, key: str, message: str) -> None:
    [(line, where, reported)] = problems(path, f"[gateways.prod]\n{text}")
    assert (line, where) == (2, f"gateways.prod.{key}")
    assert message in reported


def test_unpriced_calls_are_refused_unless_they_are_allowed(path: Path) -> None:
    rule = f"spend_limits.rules = [{{ {RULE} }}]\n"
    assert not gateway(path, f"[gateways.prod]\n{rule}").limits.allow_unpriced
    assert gateway(path, f'[gateways.prod]\n{rule}spend_limits.unpriced = "allow"').limits.allow_unpriced
    assert not gateway(path, f'[gateways.prod]\n{rule}spend_limits.unpriced = "refuse"').limits.allow_unpriced


# Tokens with scopes.


def test_a_token_may_be_limited_to_providers_by_slug_or_alias(path: Path) -> None:
    text = '[providers.custom-mine]\nbase_url = "https://a.b"\n[gateways.prod.tokens.ci]\ntoken = "env:TOKEN"\n'
    [token] = gateway(path, text + 'providers = ["openai", "google", "custom-mine"]').tokens
    assert token.providers == {"openai", "google-ai-studio", "custom-mine"}


def test_a_token_may_be_limited_to_models_endpoints_and_methods(path: Path) -> None:
    scopes = 'models = ["GPT-4o", "claude-*"]\nendpoints = ["v1/chat"]\nmethods = ["POST"]\nstored_key_access = "full"'
    text = f'[gateways.prod]\nstored_key_access = "full"\n[gateways.prod.tokens.ci]\ntoken = "env:TOKEN"\n{scopes}'
    found = gateway(path, text)
    [token] = found.tokens
    assert (token.models, token.endpoints, token.methods) == ({"GPT-4o", "claude-*"}, {"v1/chat"}, {"POST"})
    assert (token.stored_key_access, found.stored_key_access) == ("full", "full")


def test_without_scopes_a_token_is_limited_only_for_stored_keys(path: Path) -> None:
    found = gateway(path, '[gateways.prod.tokens]\nci = "env:TOKEN"')
    [token] = found.tokens
    assert (token.models, token.endpoints, token.methods, token.stored_key_access) == (None, None, None, None)
    assert found.stored_key_access == "models"


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ('token = "env:TOKEN"\nmodels = []', ".models", "a list of models"),
        ('token = "env:TOKEN"\nmodels = ["*-mini"]', ".models", "a list of models"),
        ('token = "env:TOKEN"\nendpoints = "v1/chat"', ".endpoints", "a list of beginnings of endpoints"),
        ('token = "env:TOKEN"\nendpoints = ["/v1/chat"]', ".endpoints", "a list of beginnings of endpoints"),
        ('token = "env:TOKEN"\nmethods = ["post"]', ".methods", "a list of methods"),
        ('token = "env:TOKEN"\nstored_key_access = "all"', ".stored_key_access", "full"),
        ('providers = ["openai"]', "", "has no token"),
        ('token = "sk-the-secret-itself"', ".token", "bridge token --hash"),
        ('token = "env:TOKEN"\nproviders = []', ".providers", "a list of providers"),
        ('token = "env:TOKEN"\nproviders = "openai"', ".providers", "a list of providers"),
        ('token = "env:TOKEN"\nproviders = ["openia"]', ".providers", "neither built in nor configured"),
        ('token = "env:TOKEN"\nmax_concurent = 1', ".max_concurent", "did you mean max_concurrent?"),
        ('token = "env:TOKEN"\nmax_attempts = 1', ".max_attempts", "unknown key"),
    ],
)
def test_an_invalid_token_is_reported_and_the_gateway_stays_closed(
    path: Path, text: str, key: str, message: str
) -> None:
    """It has no open gateway for a second problem."""
    path.write_text(f"[gateways.prod.tokens.ci]\n{text}")
    with pytest.raises(ConfigError) as caught:
        load(path, ENVIRON, {"host": "0.0.0.0"})
    [problem] = caught.value.problems
    assert problem.key == f"gateways.prod.tokens.ci{key}"
    assert message in problem.message
    assert SECRET not in problem.message


# Keys.


def test_keys_are_stored_by_provider_and_alias(path: Path) -> None:
    (path.parent / "secrets").mkdir()
    (path.parent / "secrets" / "anthropic").write_text("sk-ant\n")
    text = """
        [gateways.prod.keys.openai]
        default = "env:KEY"
        team-b = "env:KEY"
        [gateways.prod.keys.anthropic]
        default = "file:secrets/anthropic"
        [gateways.prod.keys.google]
        default = "env:KEY"
        """
    config = loaded(path, TOKENS + text)
    assert config.gateways["prod"].keys == {
        ("openai", "default"): StoredKey("openai", "default", SECRET, "env:KEY"),
        ("openai", "team-b"): StoredKey("openai", "team-b", SECRET, "env:KEY"),
        ("anthropic", "default"): StoredKey("anthropic", "default", "sk-ant", "file:secrets/anthropic"),
        ("google-ai-studio", "default"): StoredKey("google-ai-studio", "default", SECRET, "env:KEY"),
    }
    assert config.files == (path, path.parent / "secrets" / "anthropic")


def test_a_byte_order_mark_before_a_secret_is_removed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path.parent / "token").write_bytes(b"\xef\xbb\xbfa-token\r\n")
    (path.parent / "key").write_bytes(b"\xef\xbb\xbfsk-ant\r\n")
    text = """
        [gateways.prod.tokens]
        ci = "file:token"
        [gateways.prod.keys.anthropic]
        default = "file:key"
        """
    gateway = loaded(path, text).gateways["prod"]
    assert authenticate(gateway, "a-token") == "ci"
    assert gateway.keys["anthropic", "default"].secret == "sk-ant"


def test_a_key_file_in_another_encoding_is_refused(path: Path) -> None:
    (path.parent / "key").write_bytes("sk-ant".encode("utf-16"))
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        loaded(path, TOKENS + '[gateways.prod.keys.anthropic]\ndefault = "file:key"\n')


@pytest.mark.parametrize(
    ("slug", "value", "secret"),
    [
        ("aws-bedrock", '"env:AWS"', AwsKey("AKIA", SECRET, "session", "eu-west-1")),
        ("aws-bedrock", '"env:KEY"', SECRET),
        ("aws-bedrock", '{ access_key_id = "env:ID", secret_access_key = "env:KEY" }', AwsKey("AKIA", SECRET)),
        (
            "aws-bedrock",
            '{ access_key_id = "env:ID", secret_access_key = "env:KEY", session_token = "env:TOKEN", region = "x-1" }',
            AwsKey("AKIA", SECRET, "one", "x-1"),
        ),
        ("google-vertex-ai", '"env:ACCOUNT"', GoogleAccount(ACCOUNT)),
        ("google-vertex-ai", '"env:KEY"', SECRET),
    ],
)
def test_a_key_may_be_structured(path: Path, slug: str, value: str, secret: object) -> None:
    [key] = gateway(path, f"{TOKENS}[gateways.prod.keys.{slug}]\ndefault = {value}").keys.values()
    assert key.secret == secret


@pytest.mark.parametrize(
    ("slug", "value", "message"),
    [
        ("openai", f'"{SECRET}"', 'given as "env:NAME" or "file:PATH", never as plain text'),
        ("openai", "1234", "never as plain text"),
        ("openai", '"sha256:abcd"', "never as plain text"),
        ("openai", '"env:MISSING"', "MISSING is not set"),
        ("openai", '"env:EMPTY"', "env:EMPTY is empty"),
        ("openai", '"file:missing"', "cannot be read: No such file"),
        ("openai", '"file:two-lines"', "is not valid in a header"),
        ("openai", '"env:ACCOUNT"', "env:ACCOUNT contains JSON, but a key of openai is plain text"),
        ("aws-bedrock", '"env:ACCOUNT"', "no AWS credentials"),
        ("google-vertex-ai", '"env:AWS"', "is not a service account: missing client_email"),
        ("google-vertex-ai", '"file:broken"', "begins like JSON but is not valid JSON"),
        ("aws-bedrock", '{ access_key_id = "env:ID" }', "missing secret_access_key"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused_and_never_repeated(
    path: Path, slug: str, value: str, message: str
) -> None:
    (path.parent / "two-lines").write_text(f"{SECRET}\n{SECRET}")
    (path.parent / "broken").write_text(f'{{"private_key": "{SECRET}"')
    [(line, key, reported)] = problems(path, f"{TOKENS}[gateways.prod.keys.{slug}]\ndefault = {value}")
    assert (line, key) == (4, f"gateways.prod.keys.{slug}.default")
    assert message in reported
    assert SECRET not in reported


@pytest.mark.parametrize(
    ("slug", "value", "module", "extra"),
    [("aws-bedrock", '"env:AWS"', "botocore", "aws"), ("google-vertex-ai", '"env:ACCOUNT"', "google.auth", "gcp")],
)
def test_a_key_without_its_package_names_the_extra(
    path: Path, monkeypatch: pytest.MonkeyPatch, slug: str, value: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    [(line, key, reported)] = problems(path, f"{TOKENS}[gateways.prod.keys.{slug}]\ndefault = {value}")
    assert (line, key) == (4, f"gateways.prod.keys.{slug}.default")
    assert reported.endswith(f"needs the extra {extra}: pip install 'universal-bridge[{extra}]'")


def test_each_invalid_part_of_an_aws_key_is_reported_at_its_place(path: Path) -> None:
    text = (
        f'{TOKENS}[gateways.prod.keys.aws-bedrock]\ndefault = {{ access_key_id = "x", secret_access_key = "{SECRET}" }}'
    )
    reported = problems(path, text)
    where = "gateways.prod.keys.aws-bedrock.default"
    assert [(line, key) for line, key, _ in reported] == [
        (4, f"{where}.access_key_id"),
        (4, f"{where}.secret_access_key"),
    ]
    assert SECRET not in str(reported)


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        (f'{TOKENS}[gateways.prod.keys.openia]\na = "env:KEY"', "gateways.prod.keys.openia", "neither built in"),
        (f'{TOKENS}[gateways.prod.keys.openai]\n"a b" = "env:KEY"', 'gateways.prod.keys.openai."a b"', "an alias of"),
        (f"{TOKENS}[gateways.prod.keys]\nopenai = 1", "gateways.prod.keys.openai", "1 is not a table"),
        ('[gateways.prod.keys.openai]\na = "env:KEY"', "gateways.prod.keys", "cannot have keys"),
    ],
)
def test_keys_need_a_known_provider_and_a_gateway_with_tokens(path: Path, text: str, key: str, message: str) -> None:
    [(_, where, reported)] = problems(path, text)
    assert (where, message in reported) == (key, True)


def test_a_key_is_never_shown() -> None:
    shown = repr([StoredKey("openai", "default", each, "env:KEY") for each in (SECRET, AwsKey("AKIA", SECRET, SECRET))])
    assert SECRET not in shown
    assert "private" not in repr(GoogleAccount('{"private_key": "x"}'))


# Traces.


def test_collectors_have_cloudflares_names(path: Path) -> None:
    found = gateway(
        path,
        """
        [[gateways.prod.otel]]
        url = "https://collector.example.com/v1/traces"
        content_type = "protobuf"
        authorization = "env:KEY"
        headers = { x-api-key = "env:TOKEN", x-team = "blue" }
        [[gateways.prod.otel]]
        url = "http://127.0.0.1:4318/v1/traces"
        """,
    )
    first = OtelExporter(
        "https://collector.example.com/v1/traces", {"x-api-key": "one", "x-team": "blue"}, SECRET, "protobuf"
    )
    assert found.otel == (first, OtelExporter("http://127.0.0.1:4318/v1/traces"))
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("{}", "otel.0", "missing url"),
        ('{ url = "collector" }', "otel.0.url", "must be an http:// or https:// URL"),
        ('{ url = "https://me:pw@a.b" }', "otel.0.url", "without user and password"),
        (f'{{ url = "https://a.b", authorization = "{SECRET}" }}', "otel.0.authorization", "never as plain text"),
        (f'{{ url = "https://a.b", headers.x-api-key = "{SECRET}" }}', "otel.0.headers.x-api-key", "never as plain"),
        ('{ url = "https://a.b", content_type = "xml" }', "otel.0.content_type", '"json" or "protobuf"'),
    ],
)
def test_an_invalid_collector_is_reported_without_its_secrets(path: Path, text: str, key: str, message: str) -> None:
    [(line, where, reported)] = problems(path, f"[gateways.prod]\notel = [{text}]")
    assert (line, where) == (2, f"gateways.prod.{key}")
    assert message in reported
    assert SECRET not in reported


# What it means.


def test_a_description_contains_scopes_limits_and_keys_and_no_secret(path: Path) -> None:
    text = f"""
        [gateways.prod]
        cache_shared = true
        collect_log_locked = true
        log_management = 20_000
        {LIMITS}
        [[gateways.prod.otel]]
        url = "https://collector.example.com/v1/traces?token=abcdef123456"
        [gateways.prod.tokens]
        ci = "env:TOKEN"
        [gateways.prod.tokens.guest]
        token = "env:OTHER"
        providers = ["openai"]
        max_concurrent = 1
        max_wait = 500
        rate_limiting_limit = 5
        rate_limiting_interval = 10
        [gateways.prod.keys.openai]
        default = "env:KEY"
        [gateways.prod.keys.aws-bedrock]
        default = {{ access_key_id = "env:ID", secret_access_key = "env:KEY" }}
        """
    lines = describe(loaded(path, text))
    assert lines[1:] == [
        "gateway prod: tokens ci (env:TOKEN), guest (env:OTHER)",
        "  cache_shared = True (default False)",
        "  collect_log_locked = True (default False)",
        "  log_management = 20000 (default 0)",
        "  limit: 100 events in 60 s, sliding",
        "  limit: 5 USD in 86400 s, fixed (day)",
        "  limit: 0.5 USD in 3600 s, sliding, for each metadata user (user)",
        "  limit: 1 USD in 60 s, sliding, for provider google-ai-studio, for model gpt-5 (dear)",
        "  limit: 8 events at once",
        "  limit: 4 events at once with openai",
        "  limit: 2 events at once with google-ai-studio",
        "  token guest: may call openai",
        "  token guest: 5 events in 10 s, fixed",
        "  token guest: 1 events at once",
        "  token guest: events wait at most 500 ms for a slot",
        "  key of openai: default (env:KEY)",
        "  key of aws-bedrock: default (env:ID)",
        "  traces to https://collector.example.com/v1/traces?token=[redacted] (json)",
    ]
    assert not [line for line in lines if SECRET in line]


def test_all_problems_of_a_gateway_are_reported_in_one_pass(path: Path) -> None:
    reported: list[Any] = problems(
        path,
        """
        [gateways.prod]
        zdr = true
        rate_limiting_limit = -1
        spend_limits = { rules = [{ id = "a" }] }
        [gateways.prod.tokens]
        ci = "plain"
        [gateways.prod.keys.openai]
        default = "plain"
        """,
    )
    assert [line for line, _, _ in reported] == [3, 4, 5, 7, 9]
