"""The described configuration keys are those that the configuration accepts."""

from pathlib import Path

import pytest

from bridge.config import ConfigError, load
from bridge.docs import keys
from bridge.settings.step import SETTINGS

STEP = {setting.name for setting in SETTINGS if setting.of_gateway}
CLOUDFLARE = {
    *("retry_max_attempts", "retry_backoff", "collect_logs"),
    *("cache_invalidate_on_update", "dlp", "guardrails", "id", "logpush", "logpush_public_key", "store_id", "stripe"),
    *("workers_ai_billing_mode", "zdr"),
}
"""Names of Cloudflare's REST API, which the page `cloudflare` describes."""


def accepted(table: str, folder: Path) -> set[str]:
    """The keys of a table, as the error for an unknown key lists them."""
    path = folder / "bridge.toml"
    path.write_text(f"{table}\n0 = 0\n")
    with pytest.raises(ConfigError) as refused:
        load(path, {}, {})
    [listed] = [
        message.partition("known keys: ")[2]
        for message in (problem.message for problem in refused.value.problems)
        if message.startswith("unknown key")
    ]
    return set(listed.split(", "))


@pytest.mark.parametrize(
    ("table", "described"),
    [
        ("[gateways.g]", {*keys.GATEWAY, *keys.LIMITS, *STEP, *CLOUDFLARE}),
        ("[gateways.g.tokens.t]", {*keys.TOKEN, *keys.LIMITS}),
        ("[[gateways.g.spend_limits.rules]]", {*keys.SPEND_RULE}),
        ("[gateways.g.spend_limits]", {"rules", "enabled", "unpriced"}),
        ("[[gateways.g.otel]]", {*keys.OTEL}),
        ("[providers.openai]", {*keys.PROVIDER}),
    ],
    ids=["gateway", "token", "rule", "spend_limits", "otel", "provider"],
)
def test_every_key_of_a_table_is_described_and_no_other(table: str, described: set[str], tmp_path: Path) -> None:
    assert described == accepted(table, tmp_path)
