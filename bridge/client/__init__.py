"""The Python client of a bridge: one socket, and any number of calls on it at once.

    async with connect("wss://host/v1/account/gateway", token="…") as bridge:
        answer = await bridge.request("openai", "chat/completions", {"model": …, "messages": […]}, headers={…})
        async with bridge.stream("anthropic", "v1/messages", {…, "stream": True}, headers={…}) as stream:
            async for chunk in stream:
                print(chunk.text, end="")

`bridge.client.sync` is the same without `await`.

One task per socket reads frames and puts each into the queue of its event. While a queue holds 4 MiB, the socket is not
read; the back-pressure reaches the bridge and then the provider, so a slow consumer costs no memory. A full queue also
blocks the other events of the socket. When one of them has waited for 10 s, the blocking event is cancelled and its
consumer gets EventFailed with code 9021. A program can therefore open two streams and consume one after the other, and
no event waits forever behind another one.
"""

from bridge.client.bridge import Bridge, connect
from bridge.client.errors import CallFailed, CannotConnect, ConnectionLost, EventFailed
from bridge.client.event import Event
from bridge.client.exchange import Exchange
from bridge.client.frames import Attempt, EventId, Failure, Frame, Metadata, Usage
from bridge.client.reconnect import Reconnect
from bridge.client.steps import Config, Request, Step
from bridge.client.stream import Answer, Chunk, Stream

__all__ = [
    "Answer",
    "Attempt",
    "Bridge",
    "CallFailed",
    "CannotConnect",
    "Chunk",
    "Config",
    "ConnectionLost",
    "Event",
    "EventFailed",
    "EventId",
    "Exchange",
    "Failure",
    "Frame",
    "Metadata",
    "Reconnect",
    "Request",
    "Step",
    "Stream",
    "Usage",
    "connect",
]
