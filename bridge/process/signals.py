"""Handle the signals that shut a process down."""

import asyncio
import signal
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT)


def shutdown_signal() -> "asyncio.Future[signal.Signals]":
    """Return a future that is done at the first shutdown signal; a second signal ends the process at once.

    Callers may also set the future's result themselves.
    """
    loop = asyncio.get_running_loop()
    received: asyncio.Future[signal.Signals] = loop.create_future()

    def on_signal(number: signal.Signals) -> None:
        if not received.done():
            received.set_result(number)
        for handled in ENDING:
            loop.remove_signal_handler(handled)
            signal.signal(handled, signal.SIG_DFL)

    for number in ENDING:
        loop.add_signal_handler(number, on_signal, number)
    return received
