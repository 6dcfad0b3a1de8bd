"""Only of steps that were tried are secrets kept, to know them by when a provider tells them back."""

from pathlib import Path

from bridge.relay.interfaces import Services
from bridge.relay.summary import EventSummary
from bridge.server.server import Server
from bridge.upstream.http import Upstream
from tests.support.harness import config_of, connected
from tests.support.provider_script import ScriptedProvider, answers

STEP = {"provider": "openai", "endpoint": "v1/chat/completions", "query": {"model": "m", "messages": []}}


class Entries:
    """Implements `relay.entry.Observer`."""

    def __init__(self) -> None:
        self.entries: list[EventSummary] = []

    def on_event_end(self, entry: EventSummary) -> None:
        self.entries.append(entry)


async def test_an_entry_has_the_headers_of_the_steps_that_were_tried(tmp_path: Path) -> None:
    entries = Entries()
    provider = ScriptedProvider(answers(b"{}", 500), answers())
    server = Server(config_of("", tmp_path), Upstream(provider), Services(observers=(entries,)))
    await server.start()
    try:
        async with connected(server) as client:
            steps = [{**STEP, "headers": {"authorization": f"Bearer key-{number}"}} for number in range(4)]
            await client.create(steps, eventId="a")
            await client.until_last("a")
    finally:
        await server.stop()
    [entry] = entries.entries
    assert [sent.headers["authorization"] for sent in entry.sent] == ["Bearer key-0", "Bearer key-1"]
