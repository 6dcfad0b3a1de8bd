"""What the provider server @copilotkit/aimock, which somebody else wrote, is to answer, and how it is started."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.transport_variants import LibraryVariant
from tests.transports.sdks import SDKS, Sdk

SERVER = Path(__file__).parent / "aimock.cjs"
HELLO = "Hello, and thank you for the question: yes."
BUSY = "busy as "


def busy(sdk: type[Sdk], way: LibraryVariant) -> str:
    """A question to which the first answer is 429; there is one for each."""
    return f"{BUSY}{sdk.__name__} {way.is_async}"


FIXTURES: list[dict[str, Any]] = [
    {
        "match": {"userMessage": "weather", "hasToolResult": False},
        "response": {"toolCalls": [{"id": "call_1", "name": "get_weather", "arguments": {"city": "Köln"}}]},
    },
    {"match": {"userMessage": "weather", "hasToolResult": True}, "response": {"content": "Blue."}},
    {
        "match": {"userMessage": "wrong"},
        "response": {"error": {"message": "No such model", "type": "invalid_request_error"}, "status": 400},
    },
    *(
        {
            "match": {"userMessage": busy(sdk, LibraryVariant(sdk.library, is_async)), "sequenceIndex": 0},
            "response": {"error": {"message": "Slow down", "type": "rate_limit_error"}, "status": 429},
        }
        for sdk in SDKS
        for is_async in (True, False)
    ),
    {"match": {"userMessage": BUSY}, "response": {"content": HELLO}},
    {"match": {"userMessage": "hello"}, "response": {"content": HELLO}},
]


@contextmanager
def serving() -> Iterator[str]:
    """The URL of the provider server."""
    command = ["node", str(SERVER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        node.stdin.write(json.dumps(FIXTURES) + "\n")
        node.stdin.flush()
        yield node.stdout.readline().strip()
        node.stdin.close()
