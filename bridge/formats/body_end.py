"""Read the usage of an answer that is too long to buffer from its last bytes, where JSON answers report it."""

from collections.abc import Iterator
from typing import Final

from bridge.formats.response import ParsedResponse, parse_response

KEPT_BYTES: Final = 65_536
_MEMBERS: Final = ((b'"usage', 5), (b'"meta"', 2), (b'"prompt_eval_count"', 1))
"""Beginnings of members with counts (usage and usageMetadata, Cohere's, Ollama's), each with the number of tries.

Occurrences are tried from the end. At most 1 MiB is parsed, whatever the bytes.
"""
_OPENINGS: Final = (b"{", b'{"result":{')
"""Texts that complete the JSON before such a member; the second is that of Workers AI."""


class BodyEnd:
    """The last bytes of a body that is relayed without buffering."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        """Append bytes, and drop all but the last KEPT_BYTES now and then."""
        self._kept += data[-KEPT_BYTES:]
        if len(self._kept) > 2 * KEPT_BYTES:
            del self._kept[:-KEPT_BYTES]

    def read(self) -> ParsedResponse:
        """Return the counts, empty if there are none. Never raises, whatever the bytes."""
        end = bytes(self._kept[-KEPT_BYTES:])
        for start in candidate_positions(end):
            for opening in _OPENINGS:
                # Only a member of the outermost object is valid JSON with all text after it: after text in a string,
                # or a deeper member, there are too many brackets.
                answer = parse_response(200, opening + end[start:])
                if answer.usage is not None or answer.costs:
                    return answer
        return ParsedResponse()


def candidate_positions(end: bytes) -> Iterator[int]:
    """Yield the positions in the end of a JSON text at which a member with counts may begin, the likeliest first."""
    for member, max_count in _MEMBERS:
        place = len(end)
        for _ in range(max_count):
            place = end.rfind(member, 0, place)
            if place < 0:
                break
            yield place
