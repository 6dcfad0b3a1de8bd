"""What the README says of metrics, probes and traces."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bridge.server.app import App
from bridge.server.health import HealthRoutes
from bridge.services.metrics import exposition
from bridge.services.metrics.metrics import _MOST_STEPS
from bridge.services.metrics.shared_counters import MAX_ROWS
from bridge.services.tracing import spans
from bridge.services.tracing.tracing import _ENDPOINTS
from tests.support.harness import config_of, running
from tests.support.paths import README as README_FILE
from tests.support.raw_client import dialled

README = README_FILE.read_text()
SECTION = README.partition("\n## Metrics, probes, traces\n")[2].partition("\n## ")[0]


def rows_of_metrics() -> Iterator[str]:
    for group in exposition.GROUPS.values():
        labels = ", ".join(f"`{label}`" for label in group.labels)
        for metric in group.metrics:
            yield f"| `{metric.name}` | {labels} | {metric.help} |"


def test_each_metric_is_told_as_the_code_has_it() -> None:
    table = "\n".join(rows_of_metrics())
    assert f"\n{table}\n\n" in SECTION, f"README.md should hold exactly:\n{table}"


def test_each_path_is_told(tmp_path: Path) -> None:
    told = set(re.findall(r"^\| `(/\w+)` \|", SECTION, re.MULTILINE))
    assert told == {"/metrics", "/healthz", "/readyz"}
    for path in told:
        assert f'"{path}"' in Path(HealthRoutes.__init__.__code__.co_filename).read_text()
    assert "self._probes.routes()" in Path(App.__init__.__code__.co_filename).read_text()


def test_the_bounds_are_those_of_the_code() -> None:
    assert f"from {_MOST_STEPS} on `{_MOST_STEPS}+`" in SECTION
    assert f"{MAX_ROWS:,}" in SECTION


async def test_prometheus_can_be_configured_as_shown(tmp_path: Path) -> None:
    [example] = re.findall(r"^```yaml\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    [job] = yaml.safe_load(example)["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["127.0.0.1:8787"]
    (tmp_path / "token").write_text("a-token")
    assert list(job["authorization"]) == ["credentials_file"]  # whose type is Bearer, where no other is said
    config = config_of('[server]\nmetrics_token = "file:token"\n', tmp_path)
    async with running(config) as server, dialled(server) as client:
        answered = await client.get("/metrics", {"Host": "127.0.0.1", "Authorization": "Bearer a-token"})
    assert answered.status == 200


@pytest.mark.parametrize("name", ["gen_ai", "bridge", "server", "http", "error"])
def test_each_attribute_of_a_span_is_told(name: str) -> None:
    source = Path(spans.__file__).read_text()
    for attribute in set(re.findall(rf'"({name}\.[a-z_.]+)"', source)):
        assert f"`{attribute}`" in SECTION, attribute


def test_each_variable_is_told() -> None:
    for variable in _ENDPOINTS:
        assert variable.removeprefix("OTEL_EXPORTER_OTLP") in SECTION
