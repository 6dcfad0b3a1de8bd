"""Read the limits of a gateway or token, with the key names of Cloudflare's REST API.

developers.cloudflare.com/api/resources/ai_gateway/methods/create; `max_concurrent…` and `max_wait` are the bridge's
own.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from bridge.config.limits import DEFAULT_MAX_WAIT_MS, Dimension, Limits, RateLimit, SpendRule
from bridge.config.problems import Converters
from bridge.config.reader import Reader
from bridge.settings.kinds import LONGEST_MS, Choice, Flag, Number, Text, refusal

MAX_SPEND_RULES: Final = 20
_TECHNIQUE: Final = Choice(("fixed", "sliding"))


def limit_converters(reader: Reader) -> Converters:
    return {
        "rate_limiting_limit": Number(0).convert,
        "rate_limiting_interval": Number(0, None, "seconds").convert,
        "rate_limiting_technique": _TECHNIQUE.convert,
        "spend_limits": partial(_spend_rules, reader.below("spend_limits")),
        "max_concurrent": Number(0).convert,
        "max_concurrent_by_provider": partial(_by_provider, reader.below("max_concurrent_by_provider")),
        "max_wait": Number(0, LONGEST_MS, "milliseconds").convert,
    }


def limits_from(reader: Reader, values: dict[str, Any]) -> Limits:
    """Remove the limit keys from `values` and return the limits."""
    spend: _Spend = values.pop("spend_limits", _NO_SPEND)
    rate = {name: values.pop(f"rate_limiting_{name}", None) for name in ("limit", "interval", "technique")}
    _check_rate(reader, rate)
    return Limits(
        rate=RateLimit(rate["limit"], rate["interval"], rate["technique"] or "fixed")
        if rate["limit"] and rate["interval"]
        else None,
        spend=spend.rules,
        allow_unpriced=spend.allow_unpriced,
        max_concurrent=values.pop("max_concurrent", 0),
        max_concurrent_by_provider=values.pop("max_concurrent_by_provider", {}),
        max_wait_ms=values.pop("max_wait", DEFAULT_MAX_WAIT_MS),
    )


def _check_rate(reader: Reader, rate: dict[str, Any]) -> None:
    """Report incomplete rate limits.

    Cloudflare always sets all three keys, with 0 for none; a missing one was forgotten or already reported.
    """
    for name, other in (("limit", "interval"), ("interval", "limit"), ("technique", "limit")):
        if rate[name] and rate[other] is None:
            reader.problem(f"requires rate_limiting_{other}", f"rate_limiting_{name}")


def _by_provider(reader: Reader, value: object) -> dict[str, int]:
    limits = {}
    for name, limit in reader.table(value).items():
        try:
            limits[reader.slug(name)] = Number(1).convert(limit)
        except ValueError as error:
            reader.problem(str(error), name)
    return limits


# Spend limits.


class _Spend(NamedTuple):
    rules: tuple[SpendRule, ...] = ()
    allow_unpriced: bool = False


_NO_SPEND: Final = _Spend()


def _spend_rules(reader: Reader, value: object) -> _Spend:
    """Return the enabled rules."""
    converters: Converters = {
        "enabled": Flag().convert,
        "rules": partial(_rules, reader.below("rules")),
        "unpriced": Choice(("refuse", "allow")).convert,
    }
    values = reader.take(value, converters)
    rules: tuple[SpendRule, ...] = values.get("rules", ()) if values.get("enabled", True) else ()
    return _Spend(rules, values.get("unpriced") == "allow")


def _rules(reader: Reader, value: object) -> tuple[SpendRule, ...]:
    tables = reader.tables(value)
    if len(tables) > MAX_SPEND_RULES:
        reader.problem(f"{len(tables)} rules; at most {MAX_SPEND_RULES} are allowed")
    rules = [rule for element, table in tables if (rule := _rule(element, table)) is not None]
    for duplicate in (id_ for id_, count in Counter(rule.id for rule in rules).items() if count > 1):
        reader.problem(f"more than one rule has the id {duplicate!r}")
    return tuple(rules)


def _rule(reader: Reader, value: Mapping[str, object]) -> SpendRule | None:
    """Return the rule; None if it is disabled or invalid."""
    converters: Converters = {
        "id": Text("a name").convert,
        "enabled": Flag().convert,
        "limitType": Choice(("cost",)).convert,
        "limit": _usd,
        "window": Number(1, None, "seconds").convert,
        "technique": _TECHNIQUE.convert,
        "metadata": partial(_dimensions, reader.below("metadata")),
        "provider": partial(_provider_dimension, reader.below("provider")),
        "model": partial(_dimension, reader.below("model")),
    }
    values = reader.take(value, converters)
    missing = [name for name in ("id", "limitType", "limit", "window") if name not in value]
    if missing:
        reader.problem(f"missing {' and '.join(missing)}; example: {_EXAMPLE}")
    if missing or not values.get("enabled", True) or not {"id", "limit", "window"} <= values.keys():
        return None
    return SpendRule(
        values["id"],
        values["limit"],
        values["window"],
        values.get("technique", "sliding"),
        values.get("metadata", {}),
        values.get("provider"),
        values.get("model"),
    )


_EXAMPLE: Final = '{ id = "day", limitType = "cost", limit = 5.0, window = 86400 }'


def _usd(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise refusal(value, "an amount of US dollars, 0 or more")
    return float(value)


def _dimensions(reader: Reader, value: object) -> dict[str, Dimension]:
    found = {key: _dimension(reader.below(key), dimension) for key, dimension in reader.table(value).items()}
    return {key: dimension for key, dimension in found.items() if dimension is not None}


def _provider_dimension(reader: Reader, value: object) -> Dimension | None:
    dimension = _dimension(reader, value)
    if dimension is None or not dimension.values:
        return dimension
    return Dimension(dimension.mode, reader.slugs(list(dimension.values)))


def _dimension(reader: Reader, value: object) -> Dimension | None:
    table = reader.take(value, {"mode": Choice(("partition", "filter")).convert, "values": _values})
    mode, values = table.get("mode"), table.get("values", frozenset())
    if "mode" not in reader.table(value) or (mode == "filter" and not values):
        reader.problem('must be { mode = "partition" } or { mode = "filter", values = ["…"] }')
    return None if mode is None else Dimension(mode, values)


def _values(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise refusal(value, "a list of strings")
    return frozenset(value)
