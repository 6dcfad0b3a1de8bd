"""The Python client of a bridge: one socket, and any number of calls on it at once.

    async with connect("wss://host/v1/account/gateway", token="…") as bridge:
        answer = await bridge.request("openai", "chat/completions", {"model": …, "messages": […]}, headers={…})
        async with bridge.stream("anthropic", "v1/messages", {…, "stream": True}, headers={…}) as stream:
            async for chunk in stream:
                print(chunk.text, end="")

`bridge.client.sync` is the same without `await`.

One task per socket reads it, and hands each frame to its event, where it waits to be taken. Past 4 MiB of waiting
frames the socket is not read, which the bridge feels, and then the provider: a slow consumer costs no memory. It holds
up the other events of the socket too; when one of those has waited so for 10 s, the event in the way is cancelled, and
its consumer told so (EventFailed, 9021). Thus whoever opens two streams and takes one after the other gets both, and
nobody waits for ever for a frame that stands behind another's.
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
