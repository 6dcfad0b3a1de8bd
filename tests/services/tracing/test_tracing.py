"""Test the spans that a collector receives from a running bridge."""

import asyncio
import json  # not orjson: half a character is to be sent, too
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import asdict
from opentelemetry.sdk.resources import Resource

from bridge.config import ConfigError
from bridge.config.otel import OtelExporter
from bridge.relay.summary import SessionTotals
from bridge.services.tracing import spans, tracing
from bridge.services.tracing.batching import EndedEvent, SpanBatcher
from bridge.services.tracing.context import TraceContext
from bridge.services.tracing.exporters import SpanExporters
from bridge.services.tracing.otlp_json import JsonExporter
from bridge.settings.step import StepSettings
from tests.services.metrics.test_metrics import address, of, scraped
from tests.support.clock import turns
from tests.support.event_harness import COMPLETE, DONE, FINISH, ROLE, USAGE, content, step
from tests.support.harness import config_of, connected, running
from tests.support.otlp_receiver import Receiver, free_port, receiving
from tests.support.provider_script import ScriptedProvider, ScriptedResponse, answers, streams
from tests.support.summaries import event_summary

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER_TRACE, OTHER_SPAN = "1" * 32, "2" * 16
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


def config_for(receiver: Receiver, more: str = "") -> str:
    return f'[[gateways.gateway.otel]]\nurl = "{receiver.url}"\n{more}\n'


async def traced(
    folder: Path,
    request: Any,
    *plays: ScriptedResponse,
    more: str = "",
    handshake: Mapping[str, str] | None = None,
) -> Receiver:
    """Return the spans that the collector received for one event."""
    provider = ScriptedProvider(*plays)
    async with receiving() as receiver:
        async with (
            running(config_of(config_for(receiver, more), folder), provider) as server,
            connected(server, headers=handshake or {}) as client,
        ):
            await client.socket.send_str(json.dumps({"type": "universal.create", "request": request, "eventId": "a"}))
            await client.until_last("a")
        return receiver


def test_a_realtime_span_holds_the_session_totals_and_its_end() -> None:
    totals = SessionTotals(1, 2, 30, 40, "provider", 1011)
    [span, _] = spans.spans_of(event_summary(transport="realtime", realtime=totals), TraceContext(1, None, True))
    assert span.attributes is not None
    attributes = {name: value for name, value in span.attributes.items() if name.startswith("bridge.server.realtime.")}
    assert attributes == {f"bridge.server.realtime.{name}": value for name, value in asdict(totals).items()}


@pytest.mark.parametrize("content_type", ["json", "protobuf"])
async def test_an_event_is_a_span_and_each_attempt_a_child_of_it(tmp_path: Path, content_type: str) -> None:
    gate = asyncio.Event()
    provider = ScriptedProvider(
        answers(b'{"error":{"message":"slow down"}}', status=429),
        streams(ROLE, gate, content("a"), FINISH, USAGE, DONE),
    )
    async with receiving() as receiver:
        config = config_of(config_for(receiver, f'content_type = "{content_type}"'), tmp_path)
        async with running(config, provider) as server, connected(server) as client:
            await client.create([step(), step("groq")], eventId="a")
            await turns(100)
            gate.set()
            last = (await client.until_last("a"))[-1]["metadata"]
    [event] = receiver.events
    failed, answered = receiver.attempts
    assert event.span.name == "chat small"
    assert event.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "groq",
        "gen_ai.model.provider": "groq",
        "gen_ai.request.model": "small",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": pytest.approx(last["durationMs"] / 1000, abs=0.1),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "server.address": "api.groq.com",
        "server.port": 443,
        "http.response.status_code": 200,
        "bridge.gateway": "gateway",
        "bridge.event_id": "a",
        "bridge.log_id": last["logId"],
        "bridge.step": "1",
        "bridge.transport": "websocket",
        "bridge.cached": False,
    }
    assert not event.failed
    assert event.parent_id == ""
    assert event.resource["service.name"] == "universal-bridge"
    assert event.span.kind == type(event.span).SPAN_KIND_CLIENT
    assert {failed.trace_id, answered.trace_id} == {event.trace_id}
    assert {failed.parent_id, answered.parent_id} == {event.span_id}
    assert failed.attributes == {
        "gen_ai.provider.name": "openai",
        "bridge.step": "0",
        "bridge.attempt": 0,
        "http.response.status_code": 429,
        "error.type": "429",
    }
    assert failed.failed
    assert "slow down" in failed.span.status.message
    assert not answered.failed
    times = [event.span, failed.span, failed.span, answered.span, answered.span, event.span]
    instants = [
        span.end_time_unix_nano if at in {2, 4, 5} else span.start_time_unix_nano for at, span in enumerate(times)
    ]
    assert instants == sorted(instants)
    assert (instants[-1] - instants[0]) / 1e6 == pytest.approx(last["durationMs"], abs=1)


async def test_the_span_of_a_failed_event_holds_the_reason(tmp_path: Path) -> None:
    refused = answers(b'{"error":{"message":"Incorrect API key provided: sk-abcdefghijklmnopqrstuvwx"}}', status=401)
    receiver = await traced(tmp_path, step(), refused)
    [event] = receiver.events
    assert event.failed
    assert event.attributes["error.type"] == "401"
    assert event.attributes["http.response.status_code"] == 401
    assert "abcdefghijkl" not in event.span.status.message
    receiver = await traced(tmp_path, step("nobody"))
    [event] = receiver.spans
    assert event.attributes["error.type"] == "2008"
    assert "gen_ai.provider.name" not in event.attributes


@pytest.mark.parametrize(
    ("headers", "config", "handshake", "expected"),
    [
        ({"cf-aig-otel-trace-id": OTHER_TRACE}, {}, {}, (OTHER_TRACE, "")),
        (
            {"cf-aig-otel-trace-id": OTHER_TRACE, "cf-aig-otel-parent-span-id": OTHER_SPAN},
            {},
            {"traceparent": TRACEPARENT},
            (OTHER_TRACE, OTHER_SPAN),
        ),
        ({}, {"otelTraceId": OTHER_TRACE, "otelParentSpanId": OTHER_SPAN}, {}, (OTHER_TRACE, OTHER_SPAN)),
        (
            {},
            {},
            {"cf-aig-otel-trace-id": OTHER_TRACE, "cf-aig-otel-parent-span-id": OTHER_SPAN},
            (OTHER_TRACE, OTHER_SPAN),
        ),
        ({"traceparent": TRACEPARENT}, {}, {}, (TRACE, SPAN)),
        ({}, {}, {"traceparent": TRACEPARENT}, (TRACE, SPAN)),
        (
            {"Traceparent": TRACEPARENT},
            {},
            {"traceparent": f"00-{OTHER_TRACE}-{OTHER_SPAN}-01"},
            (TRACE, SPAN),
        ),
    ],
    ids=[
        "trace",
        "both before traceparent",
        "config",
        "handshake's",
        "step's header",
        "handshake's header",
        "step first",
    ],
)
async def test_an_event_belongs_to_the_trace_that_its_client_names(
    tmp_path: Path,
    headers: Mapping[str, str],
    config: Mapping[str, str],
    handshake: Mapping[str, str],
    expected: tuple[str, str],
) -> None:
    request = {**step(**config)}
    request["headers"] = {**request["headers"], **headers}
    receiver = await traced(tmp_path, request, streams(*COMPLETE), handshake=handshake)
    [event], [attempt] = receiver.events, receiver.attempts
    assert (event.trace_id, event.parent_id) == expected
    assert (attempt.trace_id, attempt.parent_id) == (expected[0], event.span_id)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": TRACEPARENT}, (TRACE, SPAN)),
        (
            {"cf-aig-otel-trace-id": OTHER_TRACE, "cf-aig-otel-parent-span-id": OTHER_SPAN, "traceparent": TRACEPARENT},
            (OTHER_TRACE, OTHER_SPAN),
        ),
    ],
)
@pytest.mark.parametrize("path", ["", "/openai/chat/completions"])
async def test_an_http_event_belongs_to_the_trace_that_its_client_names(
    tmp_path: Path, path: str, headers: Mapping[str, str], expected: tuple[str, str]
) -> None:
    sent_request = step()["query"] if path else [step()]
    async with receiving() as receiver:
        provider = ScriptedProvider(streams(*COMPLETE))
        async with (
            running(config_of(config_for(receiver), tmp_path), provider) as server,
            aiohttp.ClientSession() as http,
            http.post(address(server, f"/v1/account/gateway{path}"), json=sent_request, headers=headers) as answer,
        ):
            assert answer.status == 200
            assert b"[DONE]" in await answer.read()
    [event] = receiver.events
    assert (event.trace_id, event.parent_id) == expected
    assert event.attributes["bridge.transport"] == "http"


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("v1/chat/completions", "chat"),
        ("chat/completions", "chat"),
        ("v1/completions", "text_completion"),
        ("v1/embeddings", "embeddings"),
        ("v1/messages", "chat"),
        ("responses", "chat"),
        ("v2/chat", "chat"),
        ("bedrock-runtime/us-east-1/model/anthropic.claude/converse", "chat"),
        ("v1beta/models/gemini-2.5-flash:streamGenerateContent", "generate_content"),
        ("v1beta/models/gemini-2.5-flash:generateContent", "generate_content"),
        ("v1/images/generations", "request"),
        (None, "request"),
    ],
)
def test_the_end_of_the_path_determines_the_operation(path: str | None, operation: str) -> None:
    [event, *_] = spans.spans_of(event_summary(path=path, model=None), TraceContext(1, None, sampled=True))
    assert event.name == operation


async def test_an_unsampled_trace_gets_no_spans(tmp_path: Path) -> None:
    request = step() | {"headers": {"traceparent": f"00-{TRACE}-{SPAN}-00"}}
    assert (await traced(tmp_path, request, streams(*COMPLETE))).spans == []


async def test_only_the_traceparent_of_a_step_reaches_the_provider(tmp_path: Path) -> None:
    for headers, expected in (({"traceparent": TRACEPARENT}, TRACEPARENT), ({}, None)):
        provider = ScriptedProvider(streams(*COMPLETE))
        handshake = {"traceparent": f"00-{OTHER_TRACE}-{OTHER_SPAN}-01"}
        async with (
            running(config_of("", tmp_path), provider) as server,
            connected(server, headers=handshake) as client,
        ):
            await client.call({"eventId": "a", **step(), "headers": headers})
        [request] = provider.requests
        assert request.headers.get("traceparent") == expected


async def test_metadata_cannot_imitate_the_bridges_attributes(tmp_path: Path) -> None:
    metadata = {"team": "bridges", "paid": True, "seats": 3, "gen_ai.usage.cost": 0, "error.type": "forged"}
    receiver = await traced(tmp_path, step(metadata=metadata), streams(*COMPLETE))
    [event] = receiver.events
    found = event.attributes
    assert (found["team"], found["paid"], found["seats"]) == ("bridges", True, 3)
    assert not found.keys() & {"gen_ai.usage.cost", "error.type"}


async def test_an_unencodable_value_affects_no_other_span(tmp_path: Path) -> None:
    """OTLP supports neither lone surrogates nor integers of more than 64 bits."""
    for content_type in ("json", "protobuf"):
        request = step(metadata={"big": 2**80, "small": -1}) | {"query": {"model": "x" * 5000 + "\ud800"}}
        receiver = await traced(tmp_path, request, streams(*COMPLETE), more=f'content_type = "{content_type}"')
        [event] = receiver.events
        assert (event.attributes["big"], event.attributes["small"]) == (str(2**80), -1)
        assert len(event.attributes["gen_ai.request.model"]) <= spans.MAX_CHARS


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    settings = StepSettings(metadata={"half \ud800": "half \udfff"})
    halves = event_summary(settings=settings, model="half \ud800", event_id="half \ud800")
    [event, *_] = spans.spans_of(halves, TraceContext(1, None, sampled=True))
    assert event.name == "chat half ?"
    for name in ("half ?", "gen_ai.request.model", "bridge.event_id"):
        assert event.attributes[name] == "half ?"


async def test_the_collectors_headers_are_sent(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("Bearer of-good-news\n")
    (tmp_path / "key").write_text("let-me-in")
    more = 'authorization = "file:secret"\nheaders = { x-team = "bridges", x-api-key = "file:key" }\n'
    for content_type in ("json", "protobuf"):
        receiver = await traced(tmp_path, step(), streams(*COMPLETE), more=f'{more}content_type = "{content_type}"')
        [headers] = receiver.headers
        assert headers["authorization"] == "Bearer of-good-news"
        assert (headers["x-team"], headers["x-api-key"]) == ("bridges", "let-me-in")


async def test_collected_payloads_are_redacted_attributes(tmp_path: Path) -> None:
    key = "sk-abcdefghijklmnopqrstuvwx"
    request = step() | {"query": {"model": "small", "messages": [{"content": f"my key is {key}"}]}}
    server = f'[server]\nlog_path = "{tmp_path}/log.sqlite"\n'
    for collected in (True, False):
        async with receiving() as receiver:
            config = config_of(server + config_for(receiver), tmp_path)
            provider = ScriptedProvider(answers(b'{"choices":[]}'))
            async with running(config, provider) as bridge, connected(bridge) as client:
                sent_request = request | {"config": {"collectLogPayload": collected}}
                await client.create(sent_request, eventId="a")
                await client.until_last("a")
        [event] = receiver.events
        if collected:
            assert "my key is" in event.attributes["gen_ai.prompt_json"]
            assert key not in event.attributes["gen_ai.prompt_json"]
            assert event.attributes["gen_ai.completion_json"] == '{"choices":[]}'
        else:
            assert not event.attributes.keys() & {"gen_ai.prompt_json", "gen_ai.completion_json"}


@pytest.mark.parametrize("content_type", ["json", "protobuf"])
async def test_a_binary_body_is_no_attribute(tmp_path: Path, content_type: str) -> None:
    async with receiving() as receiver:
        server = f'[server]\nlog_path = "{tmp_path}/log.sqlite"\n'
        config = config_of(server + config_for(receiver, f'content_type = "{content_type}"'), tmp_path)
        provider = ScriptedProvider(answers(b"\xff\xfe\x00", content_type="audio/mpeg"))
        async with running(config, provider) as bridge, connected(bridge) as client:
            await client.create(step(), eventId="a")
            await client.until_last("a")
    [event] = receiver.events
    assert "gen_ai.prompt_json" in event.attributes
    assert "gen_ai.completion_json" not in event.attributes


async def test_the_environments_collector_gets_the_spans_of_every_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=bridges")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "my-bridge")
        provider = ScriptedProvider(streams(*COMPLETE))
        async with running(config_of("", tmp_path), provider) as server, connected(server) as client:
            await client.call({"eventId": "a", **step()})
    [event] = receiver.events
    assert event.resource["service.name"] == "my-bridge"
    assert receiver.headers[0]["x-team"] == "bridges"


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_the_environment_can_turn_spans_off(off: Mapping[str, str]) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    assert tracing.Tracing(environ).everywhere
    assert not tracing.Tracing(environ | off).everywhere


async def test_an_unreachable_collector_is_counted_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("bridge.services.tracing.otlp_json.RETRY_DELAY_S", 0.001)
    receiver = Receiver(free_port())
    async with running(config_of(config_for(receiver), tmp_path), ScriptedProvider(streams(*COMPLETE))) as server:
        async with connected(server) as client:
            await client.call({"eventId": "a", **step()})
        for collector in traces_of(server)._all():
            await asyncio.to_thread(collector._processor.force_flush)
            collector.put(ended())
            await asyncio.to_thread(collector._processor.force_flush)
        samples = await scraped(server)
    assert of(samples, "bridge_spans_total") == {"bridge_spans_total[result=refused]": 4}
    logged = [record.getMessage() for record in caplog.records if record.name == "bridge.traces"]
    assert len(logged) == 1
    assert "refuses spans" in logged[0]
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_a_recovered_collector_is_logged_and_gets_spans(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with receiving(400) as receiver:
        collector = SpanBatcher("a collector", JsonExporter(receiver.url, {}, 1.0, Resource({})))
        for _ in range(2):
            collector.put(ended())
            await asyncio.to_thread(collector._processor.force_flush)
        assert (collector.refused, collector.sent, collector.dropped) == (2, 2, 0)
        await collector.close()
    refused, accepted = (record.getMessage() for record in caplog.records if record.name == "bridge.traces")
    assert "refuses spans" in refused
    assert "accepts spans again" in accepted


@pytest.mark.parametrize(
    ("statuses", "requests", "sent"), [([503, 429], 3, 2), ([503] * 9, 3, 0), ([400], 1, 0), ([301], 1, 0)]
)
async def test_transient_statuses_are_retried(
    monkeypatch: pytest.MonkeyPatch, statuses: list[int], requests: int, sent: int
) -> None:
    monkeypatch.setattr("bridge.services.tracing.otlp_json.RETRY_DELAY_S", 0.001)
    async with receiving(*statuses) as receiver:
        collector = SpanBatcher("a collector", JsonExporter(receiver.url, {}, 1.0, Resource({})))
        collector.put(ended())
        await collector.close()
        assert (len(receiver.headers), collector.sent) == (requests, sent)


async def test_waiting_spans_are_bounded() -> None:
    async with receiving() as receiver:
        collector = SpanBatcher("a collector", JsonExporter(receiver.url, {}, 1.0, Resource({})), max_spans=4)
        for _ in range(5):
            collector.put(ended())
        assert (collector.dropped, collector.sent) == (6, 0)
        await collector.close()
        assert (collector.sent, len(receiver.spans)) == (4, 4)


async def test_a_hanging_collector_does_not_delay_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.services.tracing.batching.CLOSING_S", 0.05)
    gate = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        collector = SpanBatcher("a collector", JsonExporter(f"http://127.0.0.1:{port}/", {}, 5.0, Resource({})))
        collector.put(ended())
        async with asyncio.timeout(2):
            await collector.close()
        gate.set()


async def test_surplus_collectors_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.services.tracing.exporters.MAX_COLLECTORS", 2)
    async with receiving() as receiver:
        exporting = SpanExporters(everywhere=False)
        for each in range(4):
            exporting.on_event_end(event_summary(otel=(OtelExporter(f"{receiver.url}?{each}"),)))
        await exporting.close()
        assert len(receiver.spans) == 8
        assert {labels[0]: value for _, labels, value in exporting.samples()}["sent"] == 8


def test_a_configuration_with_spans_needs_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bridge.services.tracing.exporters", None)

    async def start() -> None:
        async with running(config_of(config_for(Receiver(1)), tmp_path)):
            raise AssertionError("it runs")

    with pytest.raises(ConfigError, match=r"gateways\.gateway\.otel: .*universal-bridge\[otel\]"):
        asyncio.run(start())


def traces_of(server: Any) -> SpanExporters:
    [found] = [each for each in server._app.state.runtime.services.observers if isinstance(each, tracing.Tracing)]
    assert found._exporters is not None
    return found._exporters


def ended() -> EndedEvent:
    """Return an event with two spans."""
    return EndedEvent(event_summary(), TraceContext(1, None, sampled=True))
