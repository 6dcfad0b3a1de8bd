"""Describe the configuration keys whose tables in the code hold no help text: of gateways, tokens and providers.

A test holds these tables and the keys that the configuration accepts against each other.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Key(NamedTuple):
    """One configuration key: its default and its meaning, both as Markdown."""

    default: str
    help: str


GATEWAY: Final[Mapping[str, Key]] = {
    "tokens": Key("none", "Tables of token name and token, see [tokens and keys](tokens-and-keys.md)."),
    "keys": Key(
        "none", "Tables of alias and provider key, one per provider, see [tokens and keys](tokens-and-keys.md)."
    ),
    "authentication": Key("", "`true`: refuse to start without tokens. `false`: refuse to start with tokens."),
    "stored_key_access": Key(
        "`models`", "`full`: stored keys are used for every endpoint, not only for model endpoints."
    ),
    "cache_shared": Key("`false`", "Answer from the cache across tokens and credentials."),
    "collect_log_locked": Key("`false`", "Ignore the clients' `collectLog` and `collectLogPayload`."),
    "log_management": Key("no limit", "Rows of this gateway that the request log keeps, 10,000 to 10,000,000."),
    "log_management_strategy": Key(
        "`DELETE_OLDEST`", "`STOP_INSERTING`: a full log keeps no new rows, in place of deleting the oldest."
    ),
    "otel": Key("none", "A list of collectors of spans, see [tracing](tracing.md)."),
    "allowed_origins": Key("none", "Origins of web pages that may call an open gateway, beside loopback ones."),
    "allowed_hosts": Key("none", "Host names by which an open gateway may be called, beside loopback ones."),
    "compat": Key("`false`", "Send every client the frames that `?compat=cloudflare` asks for."),
}
"""Keys of `[gateways.NAME]`, beside the settings of a step and the limits."""

LIMITS: Final[Mapping[str, Key]] = {
    "rate_limiting_limit": Key("no limit", "Requests per window."),
    "rate_limiting_interval": Key("none", "Length of the window in seconds."),
    "rate_limiting_technique": Key(
        "`fixed`", "`fixed`: windows begin at multiples of the interval. `sliding`: the window moves."
    ),
    "spend_limits": Key(
        "none", "Budgets in US dollars: a table of `rules`, `enabled` and `unpriced`, see [limits](limits.md)."
    ),
    "max_concurrent": Key("no limit", "Events in flight at the same time; further events wait."),
    "max_concurrent_by_provider": Key("no limit", "The same for each provider: a table of provider and number."),
    "max_wait": Key("`10000`", "How many milliseconds an event waits for its turn. 0: it is refused at once."),
}
"""Keys of a gateway and of a token's table that limit it."""

SPEND_RULE: Final[Mapping[str, Key]] = {
    "id": Key("required", "The name of the rule, unique in its list."),
    "limitType": Key("required", "`cost`, the only type."),
    "limit": Key("required", "US dollars per window."),
    "window": Key("required", "Length of the window in seconds."),
    "technique": Key("`sliding`", "`fixed` or `sliding`."),
    "enabled": Key("`true`", "`false` switches the rule off."),
    "provider": Key("all", 'The providers that the rule counts: `{ mode = "filter", values = ["openai"] }`.'),
    "model": Key("all", "The models that the rule counts, in the same form."),
    "metadata": Key("all", 'Keys of the events\' metadata: `{ team = { mode = "partition" } }`.'),
}
"""Keys of one of the `rules` of `spend_limits`."""

TOKEN: Final[Mapping[str, Key]] = {
    "token": Key("required", "The token, as `sha256:HEX`, `env:NAME` or `file:PATH`."),
    "providers": Key("all", "The token may call these providers."),
    "models": Key(
        "all",
        'The token may name these models (`"llama-*"`: every model with this prefix), and list the models. '
        "A request, or the URL of a realtime session, in which no model can be read is refused.",
    ),
    "endpoints": Key(
        "all",
        "The token may call endpoints that begin with one of these: whole segments, with or without the version "
        "prefix. For `compat` the provider's own endpoint counts.",
    ),
    "methods": Key("all", "The token may use these methods. A realtime session is a `GET`."),
    "stored_key_access": Key("the gateway's", "`models` or `full`, in place of the gateway's value."),
}
"""Keys of `[gateways.NAME.tokens.TOKEN]`, beside the limits."""

PROVIDER: Final[Mapping[str, Key]] = {
    "base_url": Key("the built-in one", "The URL that endpoints are joined to. Required for `custom-NAME`."),
    "realtime_base_url": Key("`base_url`", "The base URL of realtime sessions, where their host is another."),
    "ended_without_mark": Key("`broken`", "`done`: a stream that ends cleanly without any end mark is complete."),
    "max_connections": Key("`1024`", "Calls in flight to one host; further calls wait."),
}
"""Keys of `[providers.NAME]`."""

OTEL: Final[Mapping[str, Key]] = {
    "url": Key("required", "The collector's URL for traces (OTLP over HTTP)."),
    "headers": Key("none", "A table of header and value; secret values as `env:NAME` or `file:PATH`."),
    "authorization": Key("none", "The header Authorization, as `env:NAME` or `file:PATH`."),
    "content_type": Key("`json`", "`json`, or `protobuf`, which costs the bridge five times as much."),
}
"""Keys of one of `[[gateways.NAME.otel]]`."""
