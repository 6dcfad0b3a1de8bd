"""Read `[gateways.NAME]`: a gateway's settings, by the bridge's names and by those of Cloudflare's REST API.

developers.cloudflare.com/api/resources/ai_gateway/methods/create.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from bridge.config.gateways import ANY, Gateway, is_gateway_name
from bridge.config.key_toml import keys_of
from bridge.config.limit_toml import limit_converters, limits_from
from bridge.config.otel_toml import exporters_of
from bridge.config.problems import Converters
from bridge.config.reader import Reader
from bridge.config.token_toml import STORED_KEY_ACCESS, tokens_of
from bridge.settings.kinds import Choice, Converter, Flag, Number, Texts
from bridge.settings.step import SETTINGS, StepSettings

GATEWAY: Final[Mapping[str, Converter]] = {
    "compat": Flag(),
    "allowed_origins": Texts(
        r"[a-z][a-z0-9+.-]*://[^/\s]+", 'a list of origins such as "https://app.example.com", without a path'
    ),
    "allowed_hosts": Texts(r"[^/\s]+", 'a list of host names such as "bridge.example.com"'),
    "stored_key_access": STORED_KEY_ACCESS,
    "cache_shared": Flag(),
    "collect_log_locked": Flag(),
    "log_management": Number(10_000, 10_000_000, "rows"),
    "log_management_strategy": Choice(("STOP_INSERTING", "DELETE_OLDEST")),
    "authentication": Flag(),
}
"""Keys of a gateway's table, beside step settings and nested tables."""

CLOUDFLARE_NAMES: Final = {
    "retry_max_attempts": "max_attempts",
    "retry_backoff": "backoff",
    "collect_logs": "collect_log",
}
"""Keys of Cloudflare's REST API that have another name here; other keys have the same name."""

_FIELDS: Final = {"log_management": "log_rows", "log_management_strategy": "log_strategy"}
"""The attribute of `Gateway` for keys with another name."""

UNSUPPORTED: Final = {
    "cache_invalidate_on_update": "a cached answer lives for its cache_ttl, also when the configuration changes",
    "dlp": "the bridge does not search requests and answers for personal data",
    "guardrails": "the bridge does not evaluate the content of prompts and answers",
    "id": "the name of the gateway's table is its id",
    "logpush": "the request log is a database on this machine; `bridge logs export` writes it out",
    "logpush_public_key": "the request log is a database on this machine; `bridge logs export` writes it out",
    "store_id": "keys are given as env:NAME or file:PATH under [gateways.NAME.keys.PROVIDER]",
    "stripe": "the bridge has no billing",
    "workers_ai_billing_mode": "the bridge has no billing",
    "zdr": "zero data retention is agreed on with a provider; collect_log_payload = false keeps no bodies here",
}
"""Keys of Cloudflare's REST API that have no meaning here, and why. They are accepted only if switched off."""

_OFF: Final[tuple[object, ...]] = (False, 0, "", [], {})


def gateways_of(reader: Reader, value: object) -> dict[str, Gateway]:
    """Read all gateways. Without any there is one open gateway for any name."""
    tables = reader.table(value)
    return {name: _gateway(reader.below(name), name, table) for name, table in tables.items()} or {ANY: Gateway(ANY)}


def _gateway(reader: Reader, name: str, value: object) -> Gateway:
    if not is_gateway_name(name):
        reader.problem('the name of a gateway is 1 to 64 of A-Z a-z 0-9 _ -, or "*" for any name')
    values = reader.take(value, _converters(reader))
    _rename(reader, values)
    limits = limits_from(reader, values)
    requires_tokens = values.pop("authentication", None)
    own = {_FIELDS.get(key, key): values.pop(key) for key in ("tokens", "keys", "otel", *GATEWAY) if key in values}
    gateway = Gateway(name, settings=StepSettings(**values), limits=limits, **own)
    _check_tokens(reader, gateway, requires_tokens)
    return gateway


def _converters(reader: Reader) -> Converters:
    settings = {setting.name: setting.kind.convert for setting in SETTINGS if setting.of_gateway}
    return {
        **{name: kind.convert for name, kind in GATEWAY.items()},
        **settings,
        **{cloudflare_name: settings[name] for cloudflare_name, name in CLOUDFLARE_NAMES.items()},
        **{name: partial(_refuse, reason) for name, reason in UNSUPPORTED.items()},
        **limit_converters(reader),
        "tokens": partial(tokens_of, reader.below("tokens")),
        "keys": partial(keys_of, reader.below("keys")),
        "otel": partial(exporters_of, reader.below("otel")),
    }


def _refuse(reason: str, value: object) -> None:
    if value not in _OFF:
        raise ValueError(f"is not supported: {reason}")


def _rename(reader: Reader, values: dict[str, Any]) -> None:
    """Replace Cloudflare's names in `values` and remove unsupported settings."""
    for name in UNSUPPORTED:
        values.pop(name, None)
    for cloudflare_name, name in CLOUDFLARE_NAMES.items():
        if cloudflare_name in values:
            if name in values:
                reader.problem(f"is another name of {name}; set only one of them", cloudflare_name)
            values[name] = values.pop(cloudflare_name)


def _check_tokens(reader: Reader, gateway: Gateway, required: bool | None) -> None:
    if gateway.is_open and gateway.keys:
        reader.problem("a gateway without tokens cannot have keys: anyone who reaches it could use them", "keys")
    if required and gateway.is_open:
        reader.problem("is true, but there are no tokens: define them under [gateways.NAME.tokens]", "authentication")
    if required is False and not gateway.is_open:
        reader.problem("is false, but there are tokens: a gateway with tokens requires one of them", "authentication")
