"""Test the metrics over real sockets, as Prometheus reads them."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from bridge.server.server import Server
from bridge.services.metrics.definitions import EVENTS
from bridge.services.metrics.exposition import GROUPS
from bridge.services.metrics.metrics import MAX_CACHED_ROWS, Metrics
from bridge.services.metrics.shared_counters import SharedCounters
from tests.support.clock import advance, turns, until
from tests.support.event_harness import COMPLETE, DONE, FINISH, OVERLOADED, ROLE, USAGE, content, step
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import SILENCE, ScriptedProvider, ScriptedResponse, answers, streams
from tests.support.redis_server import RedisServer
from tests.support.summaries import event_summary

CONFIG = '[gateways."*"]\n[gateways.mine]\n'

Samples = dict[str, float]
"""Values by a metric's name and labels, as written in the exposition."""


async def scraped(server: Server, **headers: str) -> Samples:
    """Return the samples of /metrics."""
    return samples_in(await text_of(server, **headers))


def samples_in(text: str) -> Samples:
    """Return the samples without zeros and buckets."""
    found = (sample for family in parse(text) for sample in family.samples if sample.value)
    return {written(s.name, s.labels): s.value for s in found if not s.name.endswith("_bucket")}


async def text_of(server: Server, **headers: str) -> str:
    async with aiohttp.ClientSession() as http, http.get(address(server, "/metrics"), headers=headers) as answer:
        assert answer.status == 200
        return await answer.text()


def address(server: Server, path: str) -> str:
    return server.url.replace("ws", "http", 1) + path


def written(name: str, labels: Mapping[str, str]) -> str:
    shown = " ".join(f"{label}={value}" for label, value in sorted(labels.items()) if value)
    return f"{name}[{shown}]"


def of(samples: Samples, *names: str) -> Samples:
    return {key: value for key, value in samples.items() if key.partition("[")[0] in names}


@asynccontextmanager
async def bridge(
    folder: Path, *plays: ScriptedResponse, config: str = CONFIG, shared: Path | None = None
) -> AsyncIterator[Server]:
    async with running(config_of(config, folder), ScriptedProvider(*plays), shared) as server:
        yield server


async def test_each_event_is_counted_by_its_outcome_and_each_attempt_by_its_code(tmp_path: Path) -> None:
    plays = [
        streams(ROLE, content("a"), FINISH, USAGE, DONE),  # answered
        answers(b'{"error":{"message":"slow down"}}', status=429),  # the first step of a chain …
        answers(b"{}"),  # … and its second
        answers(b'{"error":{"message":"no"}}', status=401),
        streams(content("a"), OVERLOADED),  # broken after it answered
        streams(content("a"), SILENCE),  # cancelled
    ]
    async with bridge(tmp_path, *plays) as server, connected(server, "/v1/account/mine") as client:
        await client.call({"eventId": "streamed", **step()})
        await client.create([step(), step("groq")], eventId="chain")
        await client.until_last("chain")
        await client.call({"eventId": "unauthorised", **step("anthropic")})
        await client.call({"eventId": "broken", **step()})
        await client.create({"eventId": "cancelled", **step("groq")})
        await until(lambda: len(client.frames) or True)
        await client.receive()
        await client.cancel("cancelled")
        await client.until_last("cancelled")
        await client.call({"eventId": "unknown", **step("nobody")})
        samples = await scraped(server)
    mine = "gateway=mine"
    assert of(samples, "bridge_events_total") == {
        f"bridge_events_total[{mine} outcome=answered provider=openai step=0 transport=websocket]": 1,
        f"bridge_events_total[{mine} outcome=answered provider=groq step=1 transport=websocket]": 1,
        f"bridge_events_total[code=401 {mine} outcome=failed provider=anthropic step=0 transport=websocket]": 1,
        f"bridge_events_total[code=9017 {mine} outcome=failed provider=openai step=0 transport=websocket]": 1,
        f"bridge_events_total[code=9020 {mine} outcome=cancelled provider=groq step=0 transport=websocket]": 1,
        f"bridge_events_total[code=2008 {mine} outcome=failed step=0 transport=websocket]": 1,
    }
    assert of(samples, "bridge_attempts_total") == {
        "bridge_attempts_total[provider=openai]": 1,
        "bridge_attempts_total[code=429 provider=openai]": 1,
        "bridge_attempts_total[provider=groq]": 1,
        "bridge_attempts_total[code=401 provider=anthropic]": 1,
        "bridge_attempts_total[code=9017 provider=openai]": 1,
        "bridge_attempts_total[code=9020 provider=groq]": 1,
    }
    answered = f"[{mine} outcome=answered provider=openai]"
    assert of(samples, "bridge_input_tokens_total", "bridge_output_tokens_total", "bridge_chunks_total") == {
        f"bridge_input_tokens_total{answered}": 3,
        f"bridge_output_tokens_total{answered}": 2,
        f"bridge_chunks_total{answered}": 4,
        f"bridge_chunks_total[{mine} outcome=failed provider=openai]": 2,
        f"bridge_chunks_total[{mine} outcome=cancelled provider=groq]": 1,
    }
    counted = of(samples, "bridge_duration_seconds_count", "bridge_first_answer_seconds_count")
    assert sum(value for key, value in counted.items() if key.startswith("bridge_duration")) == 6
    assert counted[f"bridge_first_answer_seconds_count{answered}"] == 1
    assert f"bridge_first_answer_seconds_count[{mine} outcome=failed]" not in counted


async def test_durations_are_counted_in_their_buckets(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with bridge(tmp_path, streams(ROLE, gate, content("a"), FINISH, DONE)) as server, connected(server) as client:
        await client.create({"eventId": "a", **step()})
        await turns(200)
        advance(3)
        gate.set()
        await client.until_last("a")
        text = await text_of(server)
    for name, under, at in (("first_answer", "2.5", "5.0"), ("duration", "2.5", "5.0"), ("added", "0.0001", "30.0")):
        buckets = dict(re.findall(rf'bridge_{name}_seconds_bucket{{.*le="([^"]+)".*}} (\S+)', text))
        assert (buckets[under], buckets[at], buckets["+Inf"]) == ("0.0", "1.0", "1.0") or name == "added"
        assert buckets["+Inf"] == "1.0"


async def test_gauges_are_sampled_at_the_scrape(tmp_path: Path) -> None:
    plays = [streams(content("a"), SILENCE), *(answers(b"{}", status=500) for _ in range(5))]
    async with bridge(tmp_path, *plays) as server:
        async with connected(server) as client:
            await client.create({"eventId": "a", **step()})
            await client.receive()
            for each in range(5):
                await client.call({"eventId": each, **step("groq")})
            samples = await scraped(server)
            names = "bridge_sockets", "bridge_events_in_flight", "bridge_breakers", "bridge_processes"
            assert of(samples, *names) == {
                "bridge_sockets[]": 1,
                "bridge_events_in_flight[phase=streaming provider=openai]": 1,
                "bridge_breakers[provider=groq state=open]": 1,
                "bridge_processes[version=0.1.0]": 1,
            }
            assert samples["bridge_memory_used_bytes[]"] > 0
        await until(lambda: not len(server.connections))
        samples = await scraped(server)
        assert of(samples, "bridge_sockets", "bridge_events_in_flight", "bridge_memory_used_bytes") == {}


async def test_clients_cannot_create_labels(tmp_path: Path) -> None:
    """Unconfigured names of gateways, models, providers and steps share labels."""
    plays = [answers(b"{}", status=status) for status in (601, 602, 603)]
    async with bridge(tmp_path, *plays) as server:
        for each in range(3):
            async with connected(server, f"/v1/account-{each}/gateway-{each}") as client:
                request = {"eventId": "a", **step()} | {"query": {"model": f"model-{each}"}}
                await client.call(request)
                await client.call({"eventId": "b", **step(f"provider-{each}")})
        samples = await scraped(server)
    assert of(samples, "bridge_events_total") == {
        "bridge_events_total[code=6xx gateway=* outcome=failed provider=openai step=0 transport=websocket]": 3,
        "bridge_events_total[code=2008 gateway=* outcome=failed step=0 transport=websocket]": 3,
    }


def test_rows_beyond_the_limit_count_as_other() -> None:
    metrics = Metrics(SharedCounters(max_rows=len(GROUPS) + 4))
    metrics.set_known_gateways(lambda: [f"gateway-{each}" for each in range(10)])
    for each in range(10):
        metrics.on_event_end(event_summary(gateway=f"gateway-{each}"))
    rows = {key: list(row) for key, row in metrics._counters.rows() if key[0] == EVENTS.name}
    assert sum(row[0] for row in rows.values()) == 10
    assert rows[(EVENTS.name, *["other"] * 6)][0] >= 8


def test_cached_rows_are_bounded() -> None:
    metrics = Metrics(SharedCounters())
    for each in range(MAX_CACHED_ROWS + 10):
        metrics.on_event_end(event_summary(gateway=f"gateway-{each}"))
    assert len(metrics._event_rows) <= MAX_CACHED_ROWS
    [(_, row)] = [(key, row) for key, row in metrics._counters.rows() if key[0] == EVENTS.name and key[1] == "*"]
    assert row[0] == MAX_CACHED_ROWS + 10


async def test_the_accept_header_can_select_openmetrics(tmp_path: Path) -> None:
    async with bridge(tmp_path, streams(*COMPLETE)) as server, connected(server) as client:
        await client.call({"eventId": "a", **step()})
        text = await text_of(server, Accept="application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    families = {family.name: family.type for family in parse_openmetrics(text)}
    assert families["bridge_events"] == "counter"
    assert families["bridge_duration_seconds"] == "histogram"


async def test_each_server_has_its_own_counters(tmp_path: Path) -> None:
    async with bridge(tmp_path, streams(*COMPLETE)) as server, bridge(tmp_path) as other, connected(server) as client:
        await client.call({"eventId": "a", **step()})
        assert of(await scraped(other), "bridge_events_total") == {}
        assert len(of(await scraped(server), "bridge_events_total")) == 1


async def test_a_scrape_of_any_worker_covers_all_workers(tmp_path: Path) -> None:
    """Gauges cover live workers, counters also ended ones; no counter ever decreases."""
    folder = tmp_path / "tallies"
    folder.mkdir()
    events = "bridge_events_total[gateway=* outcome=answered provider=openai step=0 transport=websocket]"
    async with bridge(tmp_path, *[streams(*COMPLETE)] * 2, shared=folder) as one:
        async with (
            bridge(tmp_path, streams(*COMPLETE), shared=folder) as other,
            connected(one) as client,
            connected(other) as another,
        ):
            await client.call({"eventId": "a", **step()})
            await another.call({"eventId": "a", **step()})
            advance(1)  # for the other to tell of its gauges
            await turns()
            samples = await scraped(one)
            assert samples[events] == 2
            assert of(samples, "bridge_sockets", "bridge_processes") == {
                "bridge_sockets[]": 2,
                "bridge_processes[version=0.1.0]": 2,
            }
        samples = await scraped(one)
        assert samples[events] == 2
        assert of(samples, "bridge_sockets", "bridge_processes") == {"bridge_processes[version=0.1.0]": 1}
        async with bridge(tmp_path, streams(*COMPLETE), shared=folder) as following, connected(following) as client:
            await client.call({"eventId": "a", **step()})
            assert (await scraped(following))[events] == 3
    assert len(list(folder.iterdir())) == 2


async def test_a_sampled_counter_is_published_by_its_growth(tmp_path: Path) -> None:
    """A sampled counter belongs to its process: the sum does not decrease when a worker is replaced."""
    name = next(name for name, group in GROUPS.items() if group.metrics[0].kind == "counter" and not group.labels)
    clock = {"now": 3.0}
    first = Metrics(SharedCounters(tmp_path))
    first.register(lambda: [(name, (), clock["now"])])
    first.publish()
    clock["now"] = 5.0
    first.close()
    second = Metrics(SharedCounters(tmp_path))
    second.register(lambda: [(name, (), 1.0)])
    second.publish()
    assert second._counters.row((name,), 1)[0] == 6.0
    second.close()


async def test_the_metrics_include_the_cache(tmp_path: Path) -> None:
    config = '[gateways."*"]\ncache_ttl = 300\n'
    async with bridge(tmp_path, answers(b"{}"), config=config) as server, connected(server) as client:
        for event_id in "ab":
            await client.call({"eventId": event_id, **step()})
        samples = await scraped(server)
    assert of(samples, "bridge_cache_lookups_total") == {
        "bridge_cache_lookups_total[result=miss]": 1,
        "bridge_cache_lookups_total[result=hit]": 1,
    }
    assert samples["bridge_cache_bytes[]"] > 0
    assert samples["bridge_events_total[gateway=* outcome=cached provider=openai step=0 transport=websocket]"] == 1
    assert samples["bridge_duration_seconds_count[gateway=* outcome=answered provider=openai]"] == 1
    assert "bridge_added_seconds_count[gateway=* outcome=cached provider=openai]" not in samples


@pytest.mark.needs("redis-server")
async def test_the_metrics_include_the_state_of_redis(tmp_path: Path, redis: RedisServer) -> None:
    config = f'[server]\nredis_url = "{redis.url}"\n'
    async with bridge(tmp_path, config=config) as server:
        assert of(await scraped(server), "bridge_redis_lost", "bridge_redis_losses_total") == {}
        redis.kill()
        samples = await scraped(server)
        while not of(samples, "bridge_redis_losses_total"):
            advance(1)
            samples = await scraped(server)
        assert samples["bridge_redis_lost[]"] == 1


async def test_metrics_can_be_turned_off(tmp_path: Path) -> None:
    config = "[server]\nmetrics = false\n"
    async with bridge(tmp_path, streams(*COMPLETE), config=config) as server, connected(server) as client:
        await client.call({"eventId": "a", **step()})
        async with aiohttp.ClientSession() as http, http.get(address(server, "/metrics")) as answer:
            assert answer.status == 404
            assert (await answer.json())["internalCode"] == 9001
