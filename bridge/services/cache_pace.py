"""How fast bytes are given that need not be waited for."""

import asyncio
from typing import Final

TURN_BYTES: Final = 65_536
READ_BYTES: Final = 2048
"""What a read counts as beside its bytes: every one costs its reader something."""


class Pace:
    """Without a wait, who reads would keep everybody else of the process waiting until all is read."""

    def __init__(self) -> None:
        self._given_bytes = 0

    def gave(self, data: bytes) -> None:
        self._given_bytes += len(data) + READ_BYTES

    async def turn(self) -> None:
        """Before more is given: from time to time the others have a turn."""
        if self._given_bytes > TURN_BYTES:
            self._given_bytes = 0
            await asyncio.sleep(0)
