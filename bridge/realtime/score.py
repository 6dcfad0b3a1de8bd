"""The client's part of a session's tape: what it has to say, message by message. Pure."""

from bridge.upstream.exchange import Sent
from bridge.upstream.socket_exchange import Censor
from bridge.upstream.socket_tape import Opcode
from bridge.upstream.tape_library import Cue
from bridge.upstream.tape_miss import Stray, stray

_FIRST_MESSAGE_LINE = 3


class Score:
    def __init__(self, cue: Cue, sent: Sent) -> None:
        """`sent` is the handshake as the client made it; what it says after that may hold its own secrets again."""
        self._name, self._matching = cue.name, cue.matching
        self._censor = Censor(sent)
        lines = enumerate(cue.tape.messages, start=_FIRST_MESSAGE_LINE)
        self._due = [(line, message) for line, message in lines if message.sender == "client"]
        self._heard = 0

    def hear(self, opcode: Opcode, data: bytes) -> Stray | None:
        """The client's next message. None when it is what the tape has."""
        line, taped = self._due[self._heard] if self._heard < len(self._due) else (0, None)
        self._heard += 1
        shown = self._censor.said(data)
        if taped is not None and opcode == taped.opcode and self._is_taped(data, shown, taped.data):
            return None
        there = None if taped is None else (taped.opcode, self._matching.message(taped.data))
        return stray(self._name, self._heard, (opcode, self._matching.message(shown)), there, line)

    def _is_taped(self, data: bytes, shown: bytes, taped: bytes) -> bool:
        return self._matching.are_alike(data, taped) or self._matching.are_alike(shown, taped)
