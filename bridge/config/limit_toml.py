"""The keys that limit a gateway, or one of its tokens, in the vocabulary of Cloudflare's REST API.

developers.cloudflare.com/api/resources/ai_gateway/methods/create; `max_concurrent…` and `max_wait` are ours.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from bridge.config.limits import DEFAULT_MAX_WAIT_MS, Dimension, Limits, RateLimit, SpendRule
from bridge.config.problems import Takers
from bridge.config.reader import Reader
from bridge.settings.kinds import LONGEST_MS, Choice, Flag, Number, Text, refusal

MAX_SPEND_RULES: Final = 20
_TECHNIQUE: Final = Choice(("fixed", "sliding"))


def limit_takers(reader: Reader) -> Takers:
    return {
        "rate_limiting_limit": Number(0).convert,
        "rate_limiting_interval": Number(0, None, "seconds").convert,
        "rate_limiting_technique": _TECHNIQUE.convert,
        "spend_limits": partial(_spend_rules, reader.below("spend_limits")),
        "max_concurrent": Number(0).convert,
        "max_concurrent_by_provider": partial(_by_provider, reader.below("max_concurrent_by_provider")),
        "max_wait": Number(0, LONGEST_MS, "milliseconds").convert,
    }


def limits_from(reader: Reader, taken: dict[str, Any]) -> Limits:
    """Takes its own out of `taken`."""
    spend: _Spend = taken.pop("spend_limits", _NO_SPEND)
    rate = {name: taken.pop(f"rate_limiting_{name}", None) for name in ("limit", "interval", "technique")}
    _check_rate(reader, rate)
    return Limits(
        rate=RateLimit(rate["limit"], rate["interval"], rate["technique"] or "fixed")
        if rate["limit"] and rate["interval"]
        else None,
        spend=spend.rules,
        allow_unpriced=spend.allow_unpriced,
        max_concurrent=taken.pop("max_concurrent", 0),
        max_concurrent_by_provider=taken.pop("max_concurrent_by_provider", {}),
        max_wait_ms=taken.pop("max_wait", DEFAULT_MAX_WAIT_MS),
    )


def _check_rate(reader: Reader, rate: dict[str, Any]) -> None:
    """Cloudflare gives all three, and 0 for none; one that is not there was forgotten, or refused already."""
    for name, other in (("limit", "interval"), ("interval", "limit"), ("technique", "limit")):
        if rate[name] and rate[other] is None:
            reader.problem(f"is of no use without rate_limiting_{other}", f"rate_limiting_{name}")


def _by_provider(reader: Reader, given: object) -> dict[str, int]:
    limits = {}
    for name, value in reader.table(given).items():
        try:
            limits[reader.slug(name)] = Number(1).convert(value)
        except ValueError as error:
            reader.problem(str(error), name)
    return limits


# Spend limits.


class _Spend(NamedTuple):
    rules: tuple[SpendRule, ...] = ()
    allow_unpriced: bool = False


_NO_SPEND: Final = _Spend()


def _spend_rules(reader: Reader, given: object) -> _Spend:
    """Those that are in force."""
    takers: Takers = {
        "enabled": Flag().convert,
        "rules": partial(_rules, reader.below("rules")),
        "unpriced": Choice(("refuse", "allow")).convert,
    }
    taken = reader.take(given, takers)
    rules: tuple[SpendRule, ...] = taken.get("rules", ()) if taken.get("enabled", True) else ()
    return _Spend(rules, taken.get("unpriced") == "allow")


def _rules(reader: Reader, given: object) -> tuple[SpendRule, ...]:
    tables = reader.tables(given)
    if len(tables) > MAX_SPEND_RULES:
        reader.problem(f"{len(tables)} rules; at most {MAX_SPEND_RULES} are taken")
    rules = [rule for each, table in tables if (rule := _rule(each, table)) is not None]
    for twice in (id_ for id_, times in Counter(rule.id for rule in rules).items() if times > 1):
        reader.problem(f"more than one rule is called {twice!r}")
    return tuple(rules)


def _rule(reader: Reader, given: Mapping[str, object]) -> SpendRule | None:
    """None for one that is switched off, or cannot stand."""
    takers: Takers = {
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
    taken = reader.take(given, takers)
    missing = [name for name in ("id", "limitType", "limit", "window") if name not in given]
    if missing:
        reader.problem(f"{' and '.join(missing)} must be given, as in {_EXAMPLE}")
    if missing or not taken.get("enabled", True) or not {"id", "limit", "window"} <= taken.keys():
        return None
    return SpendRule(
        taken["id"],
        taken["limit"],
        taken["window"],
        taken.get("technique", "sliding"),
        taken.get("metadata", {}),
        taken.get("provider"),
        taken.get("model"),
    )


_EXAMPLE: Final = '{ id = "day", limitType = "cost", limit = 5.0, window = 86400 }'


def _usd(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise refusal(value, "an amount of US dollars, 0 or more")
    return float(value)


def _dimensions(reader: Reader, given: object) -> dict[str, Dimension]:
    table = reader.table(given)
    return {key: found for key, value in table.items() if (found := _dimension(reader.below(key), value)) is not None}


def _provider_dimension(reader: Reader, given: object) -> Dimension | None:
    found = _dimension(reader, given)
    return found and Dimension(found.mode, reader.slugs(list(found.values)) if found.values else frozenset())


def _dimension(reader: Reader, given: object) -> Dimension | None:
    taken = reader.take(given, {"mode": Choice(("partition", "filter")).convert, "values": _values})
    mode, values = taken.get("mode"), taken.get("values", frozenset())
    if "mode" not in reader.table(given) or (mode == "filter" and not values):
        reader.problem('is { mode = "partition" } or { mode = "filter", values = ["…"] }')
    return None if mode is None else Dimension(mode, values)


def _values(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise refusal(value, "a list of texts")
    return frozenset(value)
