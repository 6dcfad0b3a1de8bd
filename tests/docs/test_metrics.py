"""The pages `metrics` and `tracing` agree with the code, and their example works."""

import re
from pathlib import Path

import pytest
import yaml

from bridge.docs import pages
from bridge.server.app import App
from bridge.server.health import HealthRoutes
from bridge.services.metrics.metrics import _MAX_STEP
from bridge.services.metrics.shared_counters import MAX_ROWS
from bridge.services.tracing import spans
from bridge.services.tracing.tracing import _ENDPOINTS
from tests.support.harness import config_of, running
from tests.support.raw_client import connect_raw

METRICS = pages.read("metrics").markdown
TRACING = pages.read("tracing").markdown


def test_every_path_of_the_health_routes_is_described() -> None:
    described = set(re.findall(r"^\| `(/\w+)` \|", METRICS, re.MULTILINE))
    assert described == {"/metrics", "/healthz", "/readyz"}
    for path in described:
        assert f'"{path}"' in Path(HealthRoutes.__init__.__code__.co_filename).read_text()
    assert ".routes()" in Path(App.__init__.__code__.co_filename).read_text()


def test_the_bounds_of_labels_are_those_of_the_code() -> None:
    assert f"from {_MAX_STEP} on `{_MAX_STEP}+`" in " ".join(METRICS.split())
    assert f"{MAX_ROWS:,}" in METRICS


async def test_prometheus_can_be_configured_as_shown(tmp_path: Path) -> None:
    [example] = re.findall(r"^```yaml\n(.*?)^```$", METRICS, re.MULTILINE | re.DOTALL)
    [job] = yaml.safe_load(example)["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["127.0.0.1:8787"]
    (tmp_path / "token").write_text("a-token")
    assert list(job["authorization"]) == ["credentials_file"]  # its type is Bearer by default
    config = config_of('[server]\nmetrics_token = "file:token"\n', tmp_path)
    async with running(config) as server, connect_raw(server) as client:
        answered = await client.request("/metrics", {"Host": "127.0.0.1", "Authorization": "Bearer a-token"})
    assert answered.status == 200


@pytest.mark.parametrize("name", ["gen_ai", "bridge", "server", "http", "error"])
def test_every_attribute_of_a_span_is_described(name: str) -> None:
    source = Path(spans.__file__).read_text()
    for attribute in set(re.findall(rf'"({name}\.[a-z_.]+)"', source)):
        assert f"`{attribute}`" in TRACING, attribute


def test_every_environment_variable_of_collectors_is_described() -> None:
    for variable in _ENDPOINTS:
        assert variable.removeprefix("OTEL_EXPORTER_OTLP") in TRACING
