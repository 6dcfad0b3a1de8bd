"""Loading, checking and describing a configuration; every mistake is reported with its place."""

import hashlib
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge.config import ConfigError, Configuration, Gateway, Token, authenticate, is_loopback, load, loading
from bridge.config.describe import describe
from bridge.errors import BadField
from bridge.providers import REGISTRY
from bridge.settings.overrides import from_config_object, from_headers
from bridge.settings.server import SERVER, ServerSettings
from bridge.settings.step import SETTINGS, StepSettings

TOKEN = "the-secret-of-ci"
BUDGET = '{ id = "day", limitType = "cost", limit = 5, window = 60 }'
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()
EMPTY_DIGEST = hashlib.sha256(b"").hexdigest()
BASE = StepSettings(request_timeout=7)


class Files:
    """A folder with one configuration and other files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, text: str, environ: Mapping[str, str] | None = None, **overrides: object) -> Configuration:
        path = self.folder / "bridge.toml"
        path.write_text(text, encoding="utf-8")
        return load(path, environ or {}, overrides)

    def problems(
        self, text: str, environ: Mapping[str, str] | None = None, **overrides: object
    ) -> list[tuple[str, int | None, str]]:
        with pytest.raises(ConfigError) as caught:
            self.load(text, environ, **overrides)
        return [(problem.key, problem.line, problem.message) for problem in caught.value.problems]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# The tables.


def test_the_tables_and_the_values_agree_on_every_name_and_default() -> None:
    assert [(row.name, row.default) for row in SERVER] == [(f.name, f.default) for f in fields(ServerSettings)]
    defaults = msgspec.structs.asdict(StepSettings())
    assert {row.name: row.default for row in SETTINGS} == defaults


def test_the_limits_are_those_of_the_protocol() -> None:
    """See bridge/docs/protocol.md, "Limits" and "Liveness"."""
    server = ServerSettings()
    assert (server.max_message_bytes, server.max_item_bytes) == (64 << 20, 64 << 20)
    assert server.max_buffered_bytes == 256 << 20
    assert (server.max_in_flight, server.max_steps, server.max_sockets) == (256, 32, 10_000)
    assert (server.max_headers, server.max_header_bytes, server.max_json_depth) == (100, 32 << 10, 512)
    assert (server.handshake_timeout, server.ping_interval) == (10_000, 20_000)
    assert (server.peer_timeout, server.slow_client_timeout) == (60_000, 60_000)


@pytest.mark.parametrize("row", [*SETTINGS, *SERVER], ids=lambda row: row.name)
def test_every_setting_has_a_help_sentence_and_a_default_that_is_allowed(row: Any) -> None:
    assert row.help[0].isupper()
    assert row.help.endswith(".")
    assert row.default is None or row.kind.convert(row.default) == row.default


def test_wire_names_are_the_camel_case_of_the_names() -> None:
    for row in SETTINGS:
        first, *rest = row.name.split("_")
        assert row.wire == first + "".join(part.capitalize() for part in rest)


def test_the_headers_are_cloudflares() -> None:
    assert [row.header for row in SETTINGS if row.header] == [
        "cf-aig-request-timeout",
        "cf-aig-max-attempts",
        "cf-aig-retry-delay",
        "cf-aig-backoff",
        "cf-aig-cache-ttl",
        "cf-aig-skip-cache",
        "cf-aig-cache-key",
        "cf-aig-byok-alias",
        "cf-aig-collect-log",
        "cf-aig-collect-log-payload",
        "cf-aig-metadata",
        "cf-aig-custom-cost",
        "cf-aig-otel-trace-id",
        "cf-aig-otel-parent-span-id",
    ]
    assert {row.name: row.old_header for row in SETTINGS if row.old_header} == {
        "cache_ttl": "cf-cache-ttl",
        "skip_cache": "cf-skip-cache",
    }


# Settings that come with a message.


@pytest.mark.parametrize(
    ("value", "changed"),
    [
        ({"requestTimeout": 5000, "maxAttempts": 3}, {"request_timeout": 5000, "max_attempts": 3}),
        ({"requestTimeout": 5000.0}, {"request_timeout": 5000}),
        ({"connectTimeout": 0}, {"connect_timeout": 0}),
        ({"backoff": "linear", "onBreak": "restart"}, {"backoff": "linear", "on_break": "restart"}),
        ({"onPolicy": "next", "frames": "raw"}, {"on_policy": "next", "frames": "raw"}),
        ({"idleTimeout": 1, "totalTimeout": 2}, {"idle_timeout": 1, "total_timeout": 2}),
        ({"maxRetryAfter": 3}, {"max_retry_after": 3}),
        ({"retryDelay": 5000, "temperature": None}, {"retry_delay": 5000}),
    ],
)  # fmt: skip
def test_config_fields_change_their_settings_and_no_other(value: dict[str, object], changed: dict[str, Any]) -> None:
    warnings: list[str] = []
    settings = from_config_object(BASE, value, "request.config", warnings)
    assert settings == msgspec.structs.replace(BASE, **changed)
    assert type(settings.request_timeout) is int
    assert warnings == []


@pytest.mark.parametrize("value", [{}, {"max_attempts": 3, "unknown": object()}])
def test_the_base_itself_is_returned_when_no_field_applies(value: dict[str, object]) -> None:
    assert from_config_object(BASE, value, "request.config", []) is BASE


def test_the_base_itself_is_returned_when_no_header_applies() -> None:
    assert from_headers(BASE, {"cf-aig-event-id": "3", "content-type": "x"}, "request.headers", []) is BASE


@pytest.mark.parametrize(
    ("wire", "value", "nearest"),
    [
        ("maxAttempts", 0, 1),
        ("maxAttempts", 6, 5),
        ("maxAttempts", 10**400, 5),
        ("retryDelay", 5001, 5000),
        ("requestTimeout", 1e300, 2**31 - 1),
    ],
)
def test_a_number_out_of_range_is_clamped_with_a_warning(wire: str, value: float, nearest: int) -> None:
    warnings: list[str] = []
    settings = from_config_object(BASE, {wire: value}, "request[1].config", warnings)
    assert nearest in msgspec.structs.astuple(settings)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"request[1].config.{wire}: ")
    assert warnings[0].endswith(f" {nearest} is used instead.")
    assert len(warnings[0]) < 200


@pytest.mark.parametrize(
    ("wire", "value", "message"),
    [
        ("maxAttempts", "three", "'three' is not a whole number from 1 to 5"),
        ("maxAttempts", True, "true is not a whole number from 1 to 5"),
        ("maxAttempts", None, "null is not a whole number from 1 to 5"),
        ("maxAttempts", 1.5, "1.5 is not a whole number from 1 to 5"),
        ("retryDelay", -1, "-1 is not a whole number of milliseconds from 0 to 5000"),
        ("requestTimeout", -1, "-1 is not a whole number of milliseconds from 0 to 2147483647"),
        ("connectTimeout", -5.0, "-5 is not a whole number of milliseconds from 0 to 2147483647"),
        ("idleTimeout", -1, "-1 is not a whole number of milliseconds from 0 to 2147483647"),
        ("totalTimeout", -2, "-2 is not a whole number of milliseconds from 0 to 2147483647"),
        ("maxRetryAfter", -1, "-1 is not a whole number of milliseconds from 0 to 2147483647"),
        ("cacheTtl", -1, "-1 is not a whole number of seconds from 60 to 2592000"),
        ("maxAttempts", [1], "a list is not a whole number from 1 to 5"),
        ("retryDelay", float("nan"), "nan is not a whole number of milliseconds from 0 to 5000"),
        ("retryDelay", "500", "'500' is not a whole number of milliseconds from 0 to 5000"),
        ("backoff", "Linear", '\'Linear\' is not "constant", "linear" or "exponential"'),
        ("backoff", 1, '1 is not "constant", "linear" or "exponential"'),
        ("frames", {}, 'an object is not "items" or "raw"'),
    ],
)
def test_a_value_of_the_wrong_type_is_a_bad_field_with_value_and_expected_type(
    wire: str, value: object, message: str
) -> None:
    with pytest.raises(BadField) as caught:
        from_config_object(BASE, {wire: value}, "request.config", [])
    assert str(caught.value) == f"request.config.{wire}: {message}"


def test_a_refused_value_is_not_repeated_at_length() -> None:
    with pytest.raises(BadField) as caught:
        from_config_object(BASE, {"backoff": "x" * 1_000_000}, "request.config", [])
    assert len(str(caught.value)) < 200


def test_headers_change_the_four_settings_they_name() -> None:
    headers = {
        "cf-aig-request-timeout": " 5000 ",
        "cf-aig-max-attempts": "3",
        "cf-aig-retry-delay": "9999",
        "cf-aig-backoff": "Constant",
    }
    warnings: list[str] = []
    settings = from_headers(BASE, headers, "request.headers", warnings)
    assert settings == StepSettings(request_timeout=5000, max_attempts=3, retry_delay=5000, backoff="constant")
    assert [warning.split(":")[0] for warning in warnings] == ["request.headers.cf-aig-retry-delay"]


@pytest.mark.parametrize("text", ["", "3s", "1_0", "٣", "1.5", "9" * 5000])
def test_a_header_that_does_not_parse_is_a_bad_field_that_names_it(text: str) -> None:
    with pytest.raises(BadField, match=r"^handshake\.cf-aig-max-attempts: "):
        from_headers(BASE, {"cf-aig-max-attempts": text}, "handshake", [])


@pytest.mark.parametrize("header", ["cf-aig-request-timeout", "cf-aig-retry-delay", "cf-aig-cache-ttl"])
def test_a_negative_duration_in_a_header_is_a_bad_field_too(header: str) -> None:
    with pytest.raises(BadField, match=header):
        from_headers(BASE, {header: "-1"}, "handshake", [])


@pytest.mark.parametrize(
    ("header", "suggestion"),
    [
        ("cf-aig-max-attempt", "; did you mean cf-aig-max-attempts?"),
        ("cf-aig-requesttimeout", "; did you mean cf-aig-request-timeout?"),
        ("cf-aig-????????", "."),
    ],
)
def test_an_unknown_bridge_header_is_ignored_with_a_warning(header: str, suggestion: str) -> None:
    warnings: list[str] = []
    known = {"cf-aig-authorization": "x", "cf-aig-gateway-id": "x", "cf-aig-max-attempts": "4", "cf-other": "x"}
    assert from_headers(BASE, {header: "3", **known}, "handshake", warnings) == msgspec.structs.replace(
        BASE, max_attempts=4
    )
    assert warnings == [f"handshake.{header}: unknown, and ignored{suggestion}"]


# Without a file, and where values come from.


def test_without_a_file_one_open_gateway_serves_any_name() -> None:
    config = load(None, {}, {})
    assert config.gateway("whatever") == Gateway("*", (), StepSettings())
    assert config.server == ServerSettings()
    assert config.providers == REGISTRY
    assert config.notes == ()


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("[gateways.prod]", False),
        (f"[gateways.prod]\nspend_limits.rules = [{BUDGET}]", True),
        (f'[gateways.prod.tokens.ci]\ntoken = "sha256:{DIGEST}"\nspend_limits.rules = [{BUDGET}]', True),
        (f'[gateways.prod]\nspend_limits = {{ rules = [{BUDGET}], unpriced = "allow" }}', False),
    ],
)
def test_a_note_reports_a_missing_price_list_and_its_effect_on_budgets(
    files: Files, monkeypatch: pytest.MonkeyPatch, text: str, reported: bool
) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda _: None)
    [note] = files.load(text).notes
    assert "universal-bridge[cost]" in note
    assert ("9027" in note) is reported


def test_a_file_without_gateways_has_an_open_one_and_a_note(files: Files) -> None:
    config = files.load("[server]\nport = 1")
    assert config.gateway("any") == Gateway("*")
    assert any("no gateway" in note for note in config.notes)


def test_a_named_gateway_comes_before_the_gateway_for_any_name(files: Files) -> None:
    config = files.load('[gateways."*"]\n[gateways.prod]')
    assert [config.gateway(name).name for name in ("prod", "dev")] == ["prod", "*"]  # type: ignore[union-attr]  # both are there
    assert config.notes == ()


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", "a\r\nb", "a\0", "caf\u00e9", "\udcff", "mine "])
def test_the_gateway_for_any_name_serves_only_valid_names(name: str) -> None:
    assert load(None, {}, {}).gateway(name) is None


def test_an_unknown_name_has_no_gateway_without_one_for_any_name(files: Files) -> None:
    assert files.load("[gateways.prod]").gateway("dev") is None


@pytest.mark.parametrize(
    ("text", "environ", "overrides", "port"),
    [
        ("", {}, {}, 8787),
        ("port = 1", {}, {}, 1),
        ("port = 1", {"BRIDGE_SERVER_PORT": "2"}, {}, 2),
        ("port = 1", {"BRIDGE_SERVER_PORT": "2"}, {"port": 3}, 3),
        ("port = 1", {"BRIDGE_SERVER_PORT": ""}, {"port": None}, 1),
    ],
)
def test_command_line_comes_before_environment_before_file_before_default(
    files: Files, text: str, environ: dict[str, str], overrides: dict[str, object], port: int
) -> None:
    assert files.load(f"[server]\n{text}", environ, **overrides).server.port == port


def test_every_server_setting_has_an_environment_variable(files: Files, tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("")
    samples = {"Number": "1024", "NumberOrZero": "1024", "Flag": "yes", "File": str(pem), "Text": "localhost"}
    special = {"ping_interval": "1", "max_json_depth": "9", "log_format": "json", "log_level": "debug"}
    special |= {"workers": "2", "redis_url": "redis://h", "redis_prefix": "p"}
    special |= {"metrics": "no", "metrics_token": f"sha256:{DIGEST}", "cache_file_bytes": "1048576"}
    environ = {row.variable: special.get(row.name) or samples[type(row.kind).__name__] for row in SERVER}
    server = files.load("", environ).server
    assert [row.name for row in SERVER if getattr(server, row.name) == row.default] == []


def test_a_byte_order_mark_and_carriage_returns_are_accepted(files: Files) -> None:
    assert files.load("\ufeff[server]\r\nport = 1\r\n").server.port == 1


def test_a_loaded_configuration_cannot_be_changed(files: Files) -> None:
    config = files.load("[gateways.prod]")
    with pytest.raises(FrozenInstanceError):
        config.server.port = 1  # type: ignore[misc]  # that is the test
    with pytest.raises(AttributeError):
        config.gateways["prod"].settings.max_attempts = 2  # type: ignore[misc]  # that is the test
    with pytest.raises(TypeError):
        config.gateways["new"] = Gateway("new")  # type: ignore[index]  # that is the test


# Gateways, tokens, providers.


def test_a_gateway_has_its_own_settings(files: Files) -> None:
    gateway = files.load(
        """
        [gateways.prod]
        max_attempts = 3
        on_break = "restart"
        compat = true
        allowed_origins = ["HTTPS://App.example.com", "chrome-extension://abc"]
        allowed_hosts = ["bridge.example.com:8787"]
        """
    ).gateways["prod"]
    assert gateway.settings == StepSettings(max_attempts=3, on_break="restart")
    assert gateway.compat
    assert gateway.allowed_origins == ("https://app.example.com", "chrome-extension://abc")
    assert gateway.allowed_hosts == ("bridge.example.com:8787",)


@pytest.mark.parametrize("value", [f"sha256:{DIGEST}", f"sha256:{DIGEST.upper()}", "env:CI_TOKEN", "file:secrets/ci"])
def test_a_token_is_known_in_every_configured_form(files: Files, value: str) -> None:
    (files.folder / "secrets").mkdir()
    (files.folder / "secrets" / "ci").write_text(TOKEN + "\n")
    gateway = files.load(f'[gateways.prod.tokens]\nci = "{value}"', {"CI_TOKEN": TOKEN}).gateways["prod"]
    assert not gateway.is_open
    assert authenticate(gateway, TOKEN) == "ci"


@pytest.mark.parametrize("presented", ["", "other", TOKEN + "\n", DIGEST, chr(0xD800), chr(0xDCFF), "é"])
def test_any_other_presented_text_authenticates_no_token(presented: str) -> None:
    gateway = Gateway(
        "prod", (Token("a", hashlib.sha256(b"one").digest()), Token("b", hashlib.sha256(b"two").digest()))
    )
    assert authenticate(gateway, presented) is None
    assert [authenticate(gateway, token) for token in ("one", "two")] == ["a", "b"]


def test_a_token_does_not_show_its_digest() -> None:
    assert DIGEST[:8] not in repr(Token("ci", bytes.fromhex(DIGEST))) + repr(Gateway("prod", (Token("ci", b"\xab"),)))
    assert "xab" not in repr(Token("ci", b"\xab"))


@pytest.mark.parametrize(
    ("value", "reported"),
    [
        (f'"{TOKEN}"', "bridge token --hash"),
        (f'"sha256:{TOKEN}"', "bridge token --hash"),
        (f'"env:{TOKEN}"', "env:NAME"),
        (f'"secret:{TOKEN}"', "bridge token --hash"),
        ("1234", "bridge token --hash"),
        (f'"sha256:{EMPTY_DIGEST}"', "empty token"),
        ('"env:MISSING"', "MISSING is not set"),
        ('"env:EMPTY"', "env:EMPTY is empty"),
        ('"file:missing"', "cannot be read: No such file"),
        ('"file:."', "cannot be read: Is a directory"),
        ('"file:binary"', "not UTF-8"),
    ],
)
def test_a_token_that_cannot_be_used_is_refused_and_never_repeated(files: Files, value: str, reported: str) -> None:
    (files.folder / "binary").write_bytes(b"\xff\xfe")
    text = f"\n[gateways.prod.tokens]\nci = {value}"
    [(key, line, message)] = files.problems(text, {"EMPTY": " \n"}, host="0.0.0.0")
    assert (key, line) == ("gateways.prod.tokens.ci", 3)
    assert reported in message
    assert TOKEN not in message


def test_a_provider_is_changed_and_another_added(files: Files) -> None:
    config = files.load(
        """
        [providers.openai]
        base_url = "http://127.0.0.1:9000/v1"
        [providers.custom-mine]
        base_url = "https://models.example.com/v1"
        ended_without_mark = "done"
        max_connections = 3
        """
    )
    assert config.providers["openai"].base_url == "http://127.0.0.1:9000/v1"
    mine = config.providers["custom-mine"]
    assert (mine.ended_without_mark, mine.max_connections) == ("done", 3)
    assert config.providers["anthropic"] == REGISTRY["anthropic"]


# What is wrong, and where.

MISTAKES = {
    "an unknown key": ("[gateways.a]\nmax_atempts = 3", "gateways.a.max_atempts", 2, "did you mean max_attempts?"),
    "an unknown table": ("[gateway.prod]", "gateway", 1, "did you mean gateways?"),
    "nothing like it": ("[server]\nzzz = 1", "server.zzz", 2, "known keys: allow_open, "),
    "a number too large": ("[server]\n\nport = 65536", "server.port", 3, "65536 is not a whole number from 0 to 65535"),
    "a number too small": ("[gateways.a]\nmax_attempts = 0", "gateways.a.max_attempts", 2, "0 is not a whole number"),
    "a text for a number": ('[server]\nport = "80"', "server.port", 2, "'80' is not a whole number"),
    "a wrong word": ('[server]\nlog_format = "xml"', "server.log_format", 2, 'is not "auto", "json" or "text"'),
    "an empty host": ('server.host = ""', "server.host", 1, "'' is not a non-empty string"),
    "no table": ("server = 1", "server", 1, "1 is not a table"),
    "no gateway table": ("[gateways]\nprod = true", "gateways.prod", 2, "true is not a table"),
    "no token table": ('[gateways.prod]\ntokens = "x"', "gateways.prod.tokens", 2, "is not a table"),
    "a gateway's bad name": ('[gateways."a b"]', 'gateways."a b"', 1, "1 to 64"),
    "a gateway's long name": (f"[gateways.{'a' * 65}]", f"gateways.{'a' * 65}", 1, "1 to 64"),
    "an origin with a path": ('gateways.a.allowed_origins = ["x://b/"]', "gateways.a.allowed_origins", 1, "path"),
    "one origin alone": ('gateways.a.allowed_origins = "https://a.b"', "gateways.a.allowed_origins", 1, "a list of"),
    "an unknown provider": ('[providers.openia]\nbase_url = "https://a.b"', "providers.openia", 1, "custom-NAME"),
    "a new provider's URL": ("[providers.custom-a]\nbase_url = 1", "providers.custom-a.base_url", 2, "1 is not a URL"),
    "a provider's bad URL": ('[providers.openai]\n\nbase_url = "nonsense"', "providers.openai.base_url", 3, "base_url"),
    "a provider's key": ("[providers.openai]\nurl = 1", "providers.openai.url", 2, "unknown key"),
    "a provider's number": ("providers.openai.max_connections = 0", "providers.openai.max_connections", 1, "1 or more"),
    "a certificate alone": ('[server]\ntls_cert = "bridge.toml"', "server.tls_cert", 2, "requires tls_key"),
    "a key alone": ('[server]\ntls_key = "bridge.toml"', "server.tls_key", 2, "requires tls_cert"),
    "an open gateway": ('[server]\nhost = "0.0.0.0"', "server.host", 2, "--allow-open"),
    "hasty liveness": ("[server]\nping_interval = 60000", "server.ping_interval", 2, "must be more than ping_interval"),
    "broken TOML": ("[server]\nport 1", "", 2, "is not TOML: Expected '=' after a key in a key/value pair"),
    "unfinished TOML": ("[server]\nport =", "", 2, "is not TOML: "),
    "a key twice": ("[server]\nport = 1\nport = 2", "", 3, "is not TOML: Cannot overwrite a value"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "key", "line", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_with_key_and_line(files: Files, text: str, key: str, line: int, message: str) -> None:
    [problem] = files.problems(text)
    assert problem[:2] == (key, line)
    assert message in problem[2]


def test_all_mistakes_are_reported_at_once_in_order_of_lines(files: Files) -> None:
    text = """
        [providers.openai]
        base_url = 1
        [gateways.prod]
        max_attempts = 9
        frames = "RAW"
        [gateways.prod.tokens]
        ci = "plain"
        [server]
        prot = 1
        tls_cert = "missing.pem"
        tls_key = "missing.key"
        """
    reported = files.problems(text, {"BRIDGE_SERVER_PROT": "1", "BRIDGE_SERVER_LOG_LEVEL": "loud"}, port="x")
    assert [(line, key) for key, line, _ in reported] == [
        (3, "providers.openai.base_url"),
        (5, "gateways.prod.max_attempts"),
        (6, "gateways.prod.frames"),
        (8, "gateways.prod.tokens.ci"),
        (10, "server.prot"),
        (11, "server.tls_cert"),
        (12, "server.tls_key"),
        (None, "BRIDGE_SERVER_PROT"),
        (None, "BRIDGE_SERVER_LOG_LEVEL"),
        (None, "--port"),
    ]


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "missing.toml", {}, {})
    [problem] = caught.value.problems
    assert problem.render("missing.toml") == "missing.toml: cannot be read: No such file or directory"


def test_a_file_that_is_not_text_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bridge.toml"
    path.write_bytes(b"[server]\n# caf\xe9\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {}, {})
    assert [problem.render("b.toml") for problem in caught.value.problems] == ["b.toml:2: is not UTF-8 text"]


def test_a_problem_is_rendered_with_its_file_only_if_it_is_in_the_file(files: Files) -> None:
    with pytest.raises(ConfigError) as caught:
        files.load("[server]\nprot = 1", {"BRIDGE_SERVER_PORT": "x"})
    assert [problem.render("b.toml") for problem in caught.value.problems] == [
        "b.toml:2: server.prot: unknown key; did you mean port?",
        "BRIDGE_SERVER_PORT: 'x' is not a whole number from 0 to 65535",
    ]


@pytest.mark.parametrize(
    ("text", "environ", "overrides", "key"),
    [
        ("", {}, {"host": "0.0.0.0"}, "--host"),
        ("", {"BRIDGE_SERVER_HOST": "::"}, {}, "BRIDGE_SERVER_HOST"),
        ("[gateways.a.tokens]", {}, {"host": "example.com"}, "--host"),
        (f'[gateways.a]\n[gateways.b.tokens]\nci = "sha256:{DIGEST}"', {}, {"host": "10.0.0.1"}, "--host"),
    ],
)
def test_an_open_gateway_is_not_put_on_the_network_by_accident(
    files: Files, text: str, environ: dict[str, str], overrides: dict[str, object], key: str
) -> None:
    [problem] = files.problems(text, environ, **overrides)
    assert problem[0] == key
    assert "no tokens" in problem[2]


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("", {"host": "0.0.0.0", "allow_open": True}),
        ("", {"host": "localhost"}),
        ("", {"host": "127.8.9.1"}),
        ("", {"host": "::1"}),
        (f'[gateways.a.tokens]\nci = "sha256:{DIGEST}"', {"host": "0.0.0.0"}),
    ],
)
def test_a_gateway_with_tokens_or_on_loopback_may_listen(files: Files, text: str, overrides: dict[str, Any]) -> None:
    assert files.load(text, **overrides).server.host == overrides["host"]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("::1", True), ("[::1]", True), ("LOCALHOST", True), ("app.localhost", True),
        ("0.0.0.0", False), ("::", False), ("", False), ("localhost.example.com", False), ("127.0.0.1.nip.io", False),
    ],
)  # fmt: skip
def test_loopback_addresses_are_recognized(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_relative_paths_are_relative_to_the_file(files: Files) -> None:
    for name in ("cert.pem", "key.pem"):
        (files.folder / name).write_text("")
    server = files.load('[server]\ntls_cert = "cert.pem"\ntls_key = "key.pem"').server
    assert (server.tls_cert, server.tls_key) == (files.folder / "cert.pem", files.folder / "key.pem")


# What it means.


def test_a_description_contains_all_differences_and_no_secret(files: Files) -> None:
    config = files.load(
        f"""
        [server]
        max_sockets = 5
        [gateways.prod]
        max_attempts = 3
        allowed_origins = ["https://a.b"]
        [gateways.prod.tokens]
        ci = "sha256:{DIGEST}"
        bot = "env:BOT_TOKEN"
        [gateways."*"]
        [providers.openai]
        max_connections = 7
        [providers.custom-mine]
        base_url = "https://models.example.com/v1"
        """,
        {"BOT_TOKEN": TOKEN},
    )
    assert describe(config) == [
        "listens on ws://127.0.0.1:8787 (this machine only)",
        "  max_sockets = 5 (default 10000)",
        "gateway prod: tokens ci (sha256), bot (env:BOT_TOKEN)",
        "  max_attempts = 3 (default 1)",
        "  allowed_origins = https://a.b",
        "gateway for any name: open to anyone who can reach it",
        "provider openai, changed",
        "  max_connections = 7 (default 1024)",
        "provider custom-mine, added",
        "  base_url = https://models.example.com/v1",
        "  ended_without_mark = broken",
        "  max_connections = 1024",
    ]


def test_a_description_contains_scopes_of_tokens_and_allowed_unpriced_calls(files: Files) -> None:
    text = f"""
        [gateways.prod]
        stored_key_access = "full"
        spend_limits = {{ rules = [{BUDGET}], unpriced = "allow" }}
        [gateways.prod.tokens.ci]
        token = "sha256:{DIGEST}"
        models = ["gpt-4o*"]
        endpoints = ["v1/chat"]
        methods = ["POST"]
        stored_key_access = "models"
        """
    assert describe(files.load(text))[1:9] == [
        "gateway prod: tokens ci (sha256)",
        "  stored_key_access = full (default models)",
        "  limit: 5 USD in 60 s, sliding (day)",
        "  limit: calls without a known price are allowed and not counted",
        "  token ci: models gpt-4o*",
        "  token ci: endpoints v1/chat",
        "  token ci: methods POST",
        "  token ci: stored_key_access = models",
    ]


def test_a_description_states_if_other_machines_can_reach_the_address(files: Files) -> None:
    first, *_, last = describe(files.load("", host="::", port=0, allow_open=True))
    assert first == "listens on ws://[::]:(any free port) (other machines too)"
    assert last.startswith("note: the file defines no gateway")


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (
            'base_url = "https://a.example"\nrealtime_base_url = "ftp://b"',
            "realtime_base_url must begin with ws:// or wss://",
        ),
        ('base_url = "ftp://a"\nrealtime_base_url = "wss://b"', "base_url must begin with http:// or https://"),
    ],
)
def test_an_invalid_base_url_is_reported_with_key_and_line(files: Files, table: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        files.load(f"[providers.custom-x]\n{table}")
    [found] = refused.value.problems
    key = problem.partition(" ")[0]
    assert (found.key, found.message) == (f"providers.custom-x.{key}", problem)
    assert found.line == (3 if key.startswith("realtime") else 2)
