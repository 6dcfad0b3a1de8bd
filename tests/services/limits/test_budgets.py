"""Which budgets an event draws on, and what is told when one is used up."""

import pytest

from bridge.config.limits import Dimension, SpendRule
from bridge.services.limits.budgets import (
    SOON_MS,
    BudgetUsage,
    Owner,
    SpendContext,
    is_exhausted,
    matching_budgets,
    refusal,
)

GATEWAY = Owner("main")
DAY = 86_400


def rule(**value: object) -> SpendRule:
    return SpendRule("day", 10.0, DAY, **value)  # type: ignore[arg-type]  # what the test says


def split(*values: str) -> Dimension:
    return Dimension("partition", frozenset(values))


def only(*values: str) -> Dimension:
    return Dimension("filter", frozenset(values))


def spender(provider: str = "openai", model: str | None = "gpt", **metadata: str | int | float | bool) -> SpendContext:
    return SpendContext(metadata or None, provider, model)


def whose(rule: SpendRule, spender: SpendContext) -> list[str]:
    return [budget.whose for budget in matching_budgets(GATEWAY, [rule], spender)]


def key(rule: SpendRule, spender: SpendContext, owner: Owner = GATEWAY) -> str:
    (budget,) = matching_budgets(owner, [rule], spender)
    return budget.key


FITS = {
    "a rule without dimensions": (rule(), spender(), True),
    "split by a value that is there": (rule(metadata={"team": split()}), spender(team="red"), True),
    "split by one that is not": (rule(metadata={"team": split()}), spender(user="eve"), False),
    "split by one, without any metadata": (rule(metadata={"team": split()}), spender(), False),
    "split by some values, of these": (rule(metadata={"team": split("red")}), spender(team="red"), True),
    "split by some values, of others": (rule(metadata={"team": split("red")}), spender(team="blue"), False),
    "one of its values": (rule(metadata={"team": only("red", "blue")}), spender(team="blue"), True),
    "none of its values": (rule(metadata={"team": only("red")}), spender(team="blue"), False),
    "a number, as text": (rule(metadata={"seat": only("7")}), spender(seat=7), True),
    "a boolean, as JSON has it": (rule(metadata={"paid": only("true")}), spender(paid=True), True),
    "its provider": (rule(provider=only("openai")), spender(), True),
    "another provider": (rule(provider=only("groq")), spender(), False),
    "its model": (rule(model=only("gpt")), spender(), True),
    "no model": (rule(model=split()), spender(model=None), False),
    "all of several": (rule(provider=only("openai"), metadata={"team": split()}), spender(team="x"), True),
    "not all of several": (rule(provider=only("groq"), metadata={"team": split()}), spender(team="x"), False),
}


@pytest.mark.parametrize(("rule", "spender", "fits"), FITS.values(), ids=FITS)
def test_a_rule_matches_events_that_fit_all_of_its_dimensions(rule: SpendRule, spender: SpendContext, fits: bool):
    assert bool(whose(rule, spender)) is fits


def test_each_value_of_a_partition_has_its_own_budget():
    by_team = rule(metadata={"team": split()})
    assert key(by_team, spender(team="red")) == key(by_team, spender(team="red", user="eve"))
    assert key(by_team, spender(team="red")) != key(by_team, spender(team="blue"))


def test_the_values_of_a_filter_share_one_budget():
    some = rule(metadata={"team": only("red", "blue")})
    assert key(some, spender(team="red")) == key(some, spender(team="blue"))


def test_a_gateway_and_its_tokens_have_separate_budgets():
    owners = [Owner("main"), Owner("main", "ci"), Owner("main", "cd"), Owner("other"), Owner("mainci")]
    assert len({key(rule(), spender(), owner) for owner in owners}) == len(owners)


def test_a_budget_continues_with_another_limit_and_restarts_with_another_window():
    dearer, longer = SpendRule("day", 99.0, DAY), SpendRule("day", 10.0, 2 * DAY)
    assert key(rule(), spender()) == key(dearer, spender())
    assert key(rule(), spender()) != key(longer, spender())


def test_a_budget_key_hides_the_values_and_has_a_fixed_length():
    by_user = rule(metadata={"user": split()})
    for value in ("eve@example.com", "x" * 30_000, "\ud800"):
        found = key(by_user, spender(user=value))
        assert len(found) == 32
        assert value not in found


def test_spent_and_reserved_money_together_exhaust_a_budget():
    (budget,) = matching_budgets(GATEWAY, [rule()], spender())
    assert not is_exhausted(budget, BudgetUsage(spent=6.0, reserved=3.99))
    assert is_exhausted(budget, BudgetUsage(spent=6.0, reserved=4.0))
    assert is_exhausted(budget, BudgetUsage(spent=6.0, previous=8.0, weight=0.5))


def test_the_refusal_uses_cloudflares_words():
    by_team = rule(metadata={"team": split()}, provider=only("openai"))
    (budget,) = matching_budgets(Owner("main", "ci"), [by_team], spender(team="red"))
    error = refusal(budget, BudgetUsage(spent=11.0))
    assert str(error) == (
        "Spend limit exceeded: rule 'day' (cost limit 10 per 86400s, sliding) for token 'ci', team 'red'"
    )
    assert (error.code, error.status, error.retryable) == (2041, 429, False)


def test_a_long_value_is_cut_in_messages():
    (shown,) = whose(rule(metadata={"user": split()}), spender(user="x" * 9000))
    assert len(shown) < 120


STEPS = {
    "of the whole event": (rule(metadata={"team": split()}), False),
    "of a provider": (rule(provider=split()), True),
    "of a model": (rule(model=only("gpt")), True),
}


@pytest.mark.parametrize(("rule", "of_step"), STEPS.values(), ids=STEPS)
def test_a_refusal_states_if_another_step_may_have_money_left(rule: SpendRule, of_step: bool):
    (budget,) = matching_budgets(GATEWAY, [rule], spender(team="red"))
    assert refusal(budget, BudgetUsage(spent=10.0)).is_per_step is of_step


AGAIN = {
    "a fixed window ends": (rule(technique="fixed"), BudgetUsage(spent=10.0, left_s=60.0), 60_001),
    "a sliding one moves on": (rule(), BudgetUsage(previous=20.0, weight=0.6, left_s=51_840.0), 8_640_001),
    "events in flight may cost less than was reserved": (rule(), BudgetUsage(spent=9.0, reserved=2.0), SOON_MS),
    "a budget of nothing is for ever": (SpendRule("none", 0.0, DAY), BudgetUsage(), None),
}


@pytest.mark.parametrize(("rule", "drawn", "again_ms"), AGAIN.values(), ids=AGAIN)
def test_the_refusal_suggests_a_retry_delay(rule: SpendRule, drawn: BudgetUsage, again_ms: int | None):
    (budget,) = matching_budgets(GATEWAY, [rule], spender())
    assert refusal(budget, drawn).retry_after_ms == again_ms
