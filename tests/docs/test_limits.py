"""The README's example of limits does what its section says."""

import hashlib
from pathlib import Path

from tests.services.limits.test_limiter import bearer, code, costing
from tests.support.event_harness import Frame, step
from tests.support.harness import config_of, connected, running
from tests.support.paths import README as README_FILE
from tests.support.provider_script import ScriptedProvider, answers
from tests.support.wall_clock import Wall

README = README_FILE.read_text()
EXAMPLE = """\
[gateways.prod]
rate_limiting_limit = 600             # requests ...
rate_limiting_interval = 60           # ... in so many seconds
rate_limiting_technique = "sliding"   # or "fixed": the clock's own windows
max_concurrent = 100                  # events at once; more wait their turn
max_concurrent_by_provider = { openai = 20 }
max_wait = 10_000                     # for so many milliseconds

[[gateways.prod.spend_limits.rules]]
id = "month"
limitType = "cost"
limit = 500.0                         # US dollars ...
window = 2_592_000                    # ... in so many seconds
technique = "fixed"

[[gateways.prod.spend_limits.rules]]
id = "each team's day"
limitType = "cost"
limit = 20.0
window = 86_400
metadata = { team = { mode = "partition" } }

[gateways.prod.tokens.ci]
token = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
rate_limiting_limit = 60
rate_limiting_interval = 60
"""


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


def test_it_is_what_the_readme_shows():
    """As soon as it shows any."""
    section = README.partition("\n## Limits\n")[2]
    assert not section or f"```toml\n{EXAMPLE}```" in section
