"""One direction of a realtime session."""

from collections.abc import Callable
from dataclasses import dataclass

from bridge.realtime.ends import End
from bridge.realtime.leg import Left, Leg


@dataclass(slots=True)
class Flow:
    """What has passed in one direction."""

    messages: int = 0
    bytes: int = 0


async def pump(src: Leg, dst: Leg, flow: Flow, look: Callable[[bytes], None]) -> End | None:
    """Pass messages on, each as it is and in its order, until `src` leaves: how it did.

    None when it is `dst` that has gone: how, its own direction will tell. `look` sees every message before it goes out.
    """
    try:
        while True:
            opcode, data, _ = await src.receive()
            size = len(data)
            flow.messages += 1
            flow.bytes += size
            look(data)
            await dst.send(opcode, data)
            if dst.is_full:
                del data  # 64 MiB, it may be, which stand in line now
                await src.pause_for(dst)
            src.passed_on(size)
    except Left as left:
        return left.end
    except ConnectionResetError:
        return None
