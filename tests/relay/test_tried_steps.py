"""A summary holds the secrets of the tried steps only; they are searched for in the provider's text."""

from pathlib import Path

from bridge.relay.interfaces import Services
from bridge.relay.summary import EventSummary
from bridge.server.server import Server
from bridge.upstream.http import Upstream
from tests.support.harness import config_of, connected
from tests.support.provider_script import ScriptedProvider, answers

STEP = {"provider": "openai", "endpoint": "v1/chat/completions", "query": {"model": "m", "messages": []}}


class SummaryList:
    """An observer that collects event summaries."""

    def __init__(self) -> None:
        self.summaries: list[EventSummary] = []

    def on_event_end(self, summary: EventSummary) -> None:
        self.summaries.append(summary)


async def test_a_summary_has_the_secrets_of_tried_steps_only(tmp_path: Path) -> None:
    summaries = SummaryList()
    provider = ScriptedProvider(answers(b"{}", 500), answers())
    server = Server(config_of("", tmp_path), Upstream(provider), Services(observers=(summaries,)))
    await server.start()
    try:
        async with connected(server) as client:
            steps = [{**STEP, "headers": {"authorization": f"Bearer key-{number}"}} for number in range(4)]
            await client.create(steps, eventId="a")
            await client.until_last("a")
    finally:
        await server.stop()
    [summary] = summaries.summaries
    assert [sent.headers["authorization"] for sent in summary.sent] == ["Bearer key-0", "Bearer key-1"]
