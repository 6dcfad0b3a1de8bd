"""How a process is told to end."""

import asyncio
import signal
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT)


def shutdown_signal() -> "asyncio.Future[signal.Signals]":
    """Done at the first signal that ends; a second one is the system's to act on, and ends the process at once.

    Others may end it too, by the result that they set.
    """
    loop = asyncio.get_running_loop()
    came: asyncio.Future[signal.Signals] = loop.create_future()

    def take(number: signal.Signals) -> None:
        if not came.done():
            came.set_result(number)
        for each in ENDING:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for number in ENDING:
        loop.add_signal_handler(number, take, number)
    return came
