"""Describe the configuration keys whose tables in the code hold no help text: of gateways, tokens and providers.

A test holds these tables and the keys that the configuration accepts against each other.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class DocumentedKey(NamedTuple):
    """One configuration key: its default and its meaning, both as Markdown."""

    default: str
    help: str


GATEWAY: Final[Mapping[str, DocumentedKey]] = {
    "tokens": DocumentedKey("none", "Tables of token name and token, see [tokens and keys](tokens-and-keys.md)."),
    "keys": DocumentedKey(
        "none", "Tables of alias and provider key, one per provider, see [tokens and keys](tokens-and-keys.md)."
    ),
    "authentication": DocumentedKey(
        "", "`true`: refuse to start without tokens. `false`: refuse to start with tokens."
    ),
    "stored_key_access": DocumentedKey(
        "`models`", "`full`: stored keys are used for every endpoint, not only for model endpoints."
    ),
    "cache_shared": DocumentedKey("`false`", "Answer from the cache across tokens and credentials."),
    "collect_log_locked": DocumentedKey("`false`", "Ignore the clients' `collectLog` and `collectLogPayload`."),
    "log_management": DocumentedKey(
        "no limit", "Rows of this gateway that the request log keeps, 10,000 to 10,000,000."
    ),
    "log_management_strategy": DocumentedKey(
        "`DELETE_OLDEST`", "`STOP_INSERTING`: a full log keeps no new rows, in place of deleting the oldest."
    ),
    "otel": DocumentedKey("none", "A list of collectors of spans, see [tracing](tracing.md)."),
    "allowed_origins": DocumentedKey(
        "none", "Origins of web pages that may call an open gateway, beside loopback ones."
    ),
    "allowed_hosts": DocumentedKey("none", "Host names by which an open gateway may be called, beside loopback ones."),
    "compat": DocumentedKey("`false`", "Send every client the frames that `?compat=cloudflare` asks for."),
}
"""Keys of `[gateways.NAME]`, beside the settings of a step and the limits."""

LIMITS: Final[Mapping[str, DocumentedKey]] = {
    "rate_limiting_limit": DocumentedKey("no limit", "Requests per window."),
    "rate_limiting_interval": DocumentedKey("none", "Length of the window in seconds."),
    "rate_limiting_technique": DocumentedKey(
        "`fixed`", "`fixed`: windows begin at multiples of the interval. `sliding`: the window moves."
    ),
    "spend_limits": DocumentedKey(
        "none", "Budgets in US dollars: a table of `rules`, `enabled` and `unpriced`, see [limits](limits.md)."
    ),
    "max_concurrent": DocumentedKey("no limit", "Events in flight at the same time; further events wait."),
    "max_concurrent_by_provider": DocumentedKey(
        "no limit", "The same for each provider: a table of provider and number."
    ),
    "max_wait": DocumentedKey("`10000`", "Milliseconds that an event waits for a slot. 0: it is refused at once."),
}
"""Keys of a gateway and of a token's table that limit it."""

SPEND_RULE: Final[Mapping[str, DocumentedKey]] = {
    "id": DocumentedKey("required", "The name of the rule, unique in its list."),
    "limitType": DocumentedKey("required", "`cost`, the only type."),
    "limit": DocumentedKey("required", "US dollars per window."),
    "window": DocumentedKey("required", "Length of the window in seconds."),
    "technique": DocumentedKey("`sliding`", "`fixed` or `sliding`."),
    "enabled": DocumentedKey("`true`", "`false` switches the rule off."),
    "provider": DocumentedKey("all", 'The providers that the rule counts: `{ mode = "filter", values = ["openai"] }`.'),
    "model": DocumentedKey("all", "The models that the rule counts, in the same form."),
    "metadata": DocumentedKey("all", 'Keys of the events\' metadata: `{ team = { mode = "partition" } }`.'),
}
"""Keys of one of the `rules` of `spend_limits`."""

TOKEN: Final[Mapping[str, DocumentedKey]] = {
    "token": DocumentedKey("required", "The token, as `sha256:HEX`, `env:NAME` or `file:PATH`."),
    "providers": DocumentedKey("all", "The token may call these providers."),
    "models": DocumentedKey(
        "all",
        'The token may name these models (`"llama-*"`: every model with this prefix), and list the models. '
        "A request, or the URL of a realtime session, in which no model can be read is refused.",
    ),
    "endpoints": DocumentedKey(
        "all",
        "The token may call endpoints that begin with one of these: whole segments, with or without the version "
        "prefix. For `compat` the provider's own endpoint counts.",
    ),
    "methods": DocumentedKey("all", "The token may use these methods. A realtime session is a `GET`."),
    "stored_key_access": DocumentedKey("the gateway's", "`models` or `full`, in place of the gateway's value."),
}
"""Keys of `[gateways.NAME.tokens.TOKEN]`, beside the limits."""

PROVIDER: Final[Mapping[str, DocumentedKey]] = {
    "base_url": DocumentedKey("the built-in one", "The URL that endpoints are joined to. Required for `custom-NAME`."),
    "realtime_base_url": DocumentedKey("`base_url`", "The base URL of realtime sessions, where their host is another."),
    "ended_without_mark": DocumentedKey(
        "`broken`", "`done`: a stream that ends cleanly without any end mark is complete."
    ),
    "max_connections": DocumentedKey("`1024`", "Calls in flight to one host; further calls wait."),
}
"""Keys of `[providers.NAME]`."""

OTEL: Final[Mapping[str, DocumentedKey]] = {
    "url": DocumentedKey("required", "The collector's URL for traces (OTLP over HTTP)."),
    "headers": DocumentedKey("none", "A table of header and value; secret values as `env:NAME` or `file:PATH`."),
    "authorization": DocumentedKey("none", "The header Authorization, as `env:NAME` or `file:PATH`."),
    "content_type": DocumentedKey("`json`", "`json`, or `protobuf`, which costs the bridge five times as much."),
}
"""Keys of one of `[[gateways.NAME.otel]]`."""
