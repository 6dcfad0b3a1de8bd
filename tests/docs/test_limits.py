"""Run the example of the page on limits."""

import hashlib
from pathlib import Path

import pytest

from bridge.policy.cost_estimates import BYTES_PER_TOKEN, OUTPUT_TOKENS
from bridge.policy.reported import MAX_TIMES_ESTIMATE, MAX_TOKENS, UNPRICED_USD
from bridge.services.limits.concurrency import MAX_WAITING_PER_SLOT
from bridge.services.limits.reserving import WAIT_S
from bridge.services.limits.stored_budgets import LINGER_S
from tests.services.limits.test_limiter import bearer, code, costing
from tests.support.event_harness import Frame, step
from tests.support.examples import blocks, text_of
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import ScriptedProvider, answers
from tests.support.wall_clock import Wall

EXAMPLE = blocks("limits", "toml")[0]


def of_team(name: str) -> Frame:
    return step(metadata={"team": name})


async def test_the_example_limits_requests_and_money(tmp_path: Path, wall: Wall):
    assert hashlib.sha256(b"test").hexdigest() in EXAMPLE
    provider = ScriptedProvider(*[costing(2.0)] * 2, *[answers()] * 58)
    priced = EXAMPLE.replace(
        "[gateways.prod]\n", "[gateways.prod]\ncustom_cost = { per_token_in = 1e-5, per_token_out = 0.0 }\n"
    )
    async with (
        running(config_of(priced, tmp_path), provider) as server,
        connected(server, "/v1/me/prod", **bearer("test")) as client,
    ):

        async def call(number: int, request: Frame) -> int | None:
            return code((await client.call({"eventId": number, **request}))[-1])

        codes = [await call(number, of_team(team)) for number, team in enumerate(["red", "red", "blue"])]
        assert codes == [None, 2041, None]
        assert {await call(number, step()) for number in range(3, 60)} == {None}
        assert await call(60, step()) == 2003


@pytest.mark.parametrize(
    "sentence",
    [
        f"one input token for every {BYTES_PER_TOKEN} bytes of the request",
        f"{OUTPUT_TOKENS:,} without a bound",
        f"reserves {UNPRICED_USD:.0f} dollar",
        f"wait for a settlement, at most {WAIT_S:.0f} s",
        f"At most {MAX_TOKENS // 1_000_000} million tokens of each kind",
        f"It is written every {LINGER_S} s",
    ],
)
def test_the_numbers_are_those_of_the_code(sentence: str) -> None:
    assert sentence in text_of("limits")


def test_the_numbers_in_words_are_those_of_the_code() -> None:
    assert (MAX_WAITING_PER_SLOT, MAX_TIMES_ESTIMATE) == (4, 10)
    assert "At most four wait for each slot" in text_of("limits")
    assert "up to ten times the estimate" in text_of("limits")
