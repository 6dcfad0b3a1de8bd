"""`[gateways.NAME]`: a gateway's settings, by our names and by those of Cloudflare's REST API.

developers.cloudflare.com/api/resources/ai_gateway/methods/create.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from bridge.config.gateways import ANY, Gateway, is_gateway_name
from bridge.config.key_toml import keys_of
from bridge.config.limit_toml import limit_takers, limits_from
from bridge.config.otel_toml import exporters_of
from bridge.config.problems import Takers
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
"""Keys of a gateway's table beside the settings of a step and its tables within."""

CLOUDFLARE_NAMES: Final = {
    "retry_max_attempts": "max_attempts",
    "retry_backoff": "backoff",
    "collect_logs": "collect_log",
}
"""Keys of Cloudflare's REST API that have another name here; other keys have the same name."""

_FIELDS: Final = {"log_management": "log_rows", "log_management_strategy": "log_strategy"}
"""What a key is called in `Gateway`, where that is another name."""

UNSUPPORTED: Final = {
    "cache_invalidate_on_update": "a cached answer lives for its cache_ttl, also when the configuration changes",
    "dlp": "the bridge does not search requests and answers for personal data",
    "guardrails": "the bridge does not judge the content of prompts and answers",
    "id": "the name of the gateway's table is its id",
    "logpush": "the request log is a database on this machine; `bridge logs export` writes it out",
    "logpush_public_key": "the request log is a database on this machine; `bridge logs export` writes it out",
    "store_id": "keys are given as env:NAME or file:PATH under [gateways.NAME.keys.PROVIDER]",
    "stripe": "the bridge bills nobody",
    "workers_ai_billing_mode": "the bridge bills nobody",
    "zdr": "zero data retention is agreed on with a provider; collect_log_payload = false keeps no bodies here",
}
"""Keys of Cloudflare's REST API that have no meaning here, and why. They are accepted only if switched off."""

_OFF: Final[tuple[object, ...]] = (False, 0, "", [], {})


def gateways_of(reader: Reader, given: object) -> dict[str, Gateway]:
    """Without any there is one, open and for any name."""
    tables = reader.table(given)
    return {name: _gateway(reader.below(name), name, value) for name, value in tables.items()} or {ANY: Gateway(ANY)}


def _gateway(reader: Reader, name: str, given: object) -> Gateway:
    if not is_gateway_name(name):
        reader.problem('a gateway\'s name is 1 to 64 of A-Z a-z 0-9 _ -, or "*" for any name')
    taken = reader.take(given, _takers(reader))
    _rename(reader, taken)
    limits = limits_from(reader, taken)
    wants_tokens = taken.pop("authentication", None)
    own = {_FIELDS.get(key, key): taken.pop(key) for key in ("tokens", "keys", "otel", *GATEWAY) if key in taken}
    gateway = Gateway(name, settings=StepSettings(**taken), limits=limits, **own)
    _check_tokens(reader, gateway, wants_tokens)
    return gateway


def _takers(reader: Reader) -> Takers:
    settings = {setting.name: setting.kind.convert for setting in SETTINGS if setting.of_gateway}
    return {
        **{name: kind.convert for name, kind in GATEWAY.items()},
        **settings,
        **{theirs: settings[ours] for theirs, ours in CLOUDFLARE_NAMES.items()},
        **{name: partial(_refuse, why) for name, why in UNSUPPORTED.items()},
        **limit_takers(reader),
        "tokens": partial(tokens_of, reader.below("tokens")),
        "keys": partial(keys_of, reader.below("keys")),
        "otel": partial(exporters_of, reader.below("otel")),
    }


def _refuse(why: str, given: object) -> None:
    if given not in _OFF:
        raise ValueError(f"is a setting of Cloudflare's service, not of this bridge: {why}")


def _rename(reader: Reader, taken: dict[str, Any]) -> None:
    """Leaves our own names in `taken`, and nothing of what is not here."""
    for name in UNSUPPORTED:
        taken.pop(name, None)
    for theirs, ours in CLOUDFLARE_NAMES.items():
        if theirs in taken:
            if ours in taken:
                reader.problem(f"is another name of {ours}; give one of them", theirs)
            taken[ours] = taken.pop(theirs)


def _check_tokens(reader: Reader, gateway: Gateway, wanted: bool | None) -> None:
    if gateway.is_open and gateway.keys:
        reader.problem("a gateway without tokens has no keys: whoever reaches it could use them", "keys")
    if wanted and gateway.is_open:
        reader.problem("true, and there are no tokens: define them under [gateways.NAME.tokens]", "authentication")
    if wanted is False and not gateway.is_open:
        reader.problem("false, and there are tokens: a gateway that has any wants one of them", "authentication")
