"""Answers that others recorded, over the bridge and directly: the same bytes for the SDK."""

from pathlib import Path

import pytest

from tests.end_to_end.test_recorded_streams import Recording, every_recording, serves
from tests.support.transport_variants import Client, LibraryVariant, bridge_with_provider, every_variant

pytestmark = pytest.mark.needs("streams")


@every_recording
@every_variant
async def test_every_recording_has_the_bytes_of_direct_http(
    way: LibraryVariant, recording: Recording, tmp_path: Path
) -> None:
    body = recording.body
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    async with bridge_with_provider(serves(recording, pieces), tmp_path, path="") as at:

        async def read(client: Client) -> bytes:
            response = await client.send("POST", f"{at.base}/{recording.endpoint}", json={})
            return b"".join([run async for run in client.runs(response)])

        assert await way.use(None, read) == body
        assert await way.use(way.transport(at.url, routes=at.routes), read) == body
