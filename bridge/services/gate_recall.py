"""Budgets outlive a process that keeps them in memory: what was spent is in the request log, where there is one."""

from pathlib import Path

import orjson

from bridge.config import Config
from bridge.policy.ledger import Ledger
from bridge.policy.spending import Spender, purses
from bridge.policy.windows import number_of
from bridge.services.gate import scopes_of
from bridge.storage.request_sums import Spent, spent_since


def recall(ledger: Ledger, config: Config, log: Path, now_s: float) -> None:
    """Enters what this window and the one before have cost, for each rule. It reads as long as the log is: call it in
    a thread, before anything is spent. Raises LogUnusable.
    """
    for window_s in _windows(config):
        for spent in spent_since(log, window_s, number_of(now_s, window_s) - 1):
            _enter(ledger, config, window_s, spent)


def _windows(config: Config) -> set[int]:
    gateways = config.gateways.values()
    limits = [gateway.limits for gateway in gateways]
    limits += [token.limits for gateway in gateways for token in gateway.tokens]
    return {rule.window_s for each in limits for rule in each.spend}


def _enter(ledger: Ledger, config: Config, window_s: int, spent: Spent) -> None:
    gateway = config.gateway(spent.gateway)
    if gateway is None:
        return
    spender = Spender(orjson.loads(spent.metadata or "null"), spent.provider or "", spent.model)
    for scope in scopes_of(gateway, spent.token or ""):
        rules = [rule for rule in scope.limits.spend if rule.window_s == window_s]
        for purse in purses(scope.owner, rules, spender):
            ledger.add((purse.key, spent.window), spent.usd, 0.0)
