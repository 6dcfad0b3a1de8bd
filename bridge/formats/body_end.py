"""Reads the usage of an answer that is too long to be held: from its last bytes, where JSON answers tell it."""

from collections.abc import Iterator
from typing import Final

from bridge.formats.response import ParsedResponse, parse_response

KEPT_BYTES: Final = 65_536
_MEMBERS: Final = ((b'"usage', 5), (b'"meta"', 2), (b'"prompt_eval_count"', 1))
"""The beginnings of the members that hold counts (usage and usageMetadata, Cohere's, Ollama's), with the number of
places to look at, from the end. So no more than 1 MiB is parsed, whatever the bytes.
"""
_OPENINGS: Final = (b"{", b'{"result":{')
"""What may stand before such a member; the second is Workers AI's."""


class BodyEnd:
    """The last bytes of a body that is passed on as it comes."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        self._kept += data[-KEPT_BYTES:]
        if len(self._kept) > 2 * KEPT_BYTES:
            del self._kept[:-KEPT_BYTES]

    def read(self) -> ParsedResponse:
        """The counts, empty if there are none; never raises, whatever the bytes."""
        end = bytes(self._kept[-KEPT_BYTES:])
        for start in _places(end):
            for opening in _OPENINGS:
                # Only a member of the outermost object makes valid JSON together with all that follows it: a text
                # inside a string, or a member further inside, is followed by too many brackets.
                answer = parse_response(200, opening + end[start:])
                if answer.usage is not None or answer.costs:
                    return answer
        return ParsedResponse()


def _places(end: bytes) -> Iterator[int]:
    for member, most in _MEMBERS:
        place = len(end)
        for _ in range(most):
            place = end.rfind(member, 0, place)
            if place < 0:
                break
            yield place
