"""How tapes of realtime sessions are shown."""

from collections.abc import Iterator

from bridge.tapes.printing import headers, shown
from bridge.terminal import one_line
from bridge.upstream.socket_tape import SocketEnding, SocketTape
from bridge.upstream.tape_lines import pairs


def row(tape: SocketTape) -> tuple[str, ...]:
    """As a list of tapes has it; messages are its chunks."""
    request, status = tape.request, str(tape.handshake.status)
    return (
        one_line(request.what),
        one_line(request.url),
        status,
        str(len(tape.messages)),
        str(tape.ending.ms),
        _end(tape.ending),
    )


def told(tape: SocketTape) -> Iterator[str]:
    yield f"{one_line(tape.request.what)} {one_line(tape.request.url)}"
    yield from headers(pairs(tape.request.headers))
    yield f"{tape.handshake.ms:>8} ms  {tape.handshake.status}"
    yield from headers(pairs(tape.handshake.headers))
    if tape.handshake.body:
        yield f"  {shown(tape.handshake.body)}"
    for message in tape.messages:
        yield f"{message.ms:>8} ms  {message.sender:<8}  {message.opcode:<6}  {shown(message.data)}"
    reason = f"  {shown(tape.ending.reason.encode())}" if tape.ending.reason else ""
    yield f"{tape.ending.ms:>8} ms  {_end(tape.ending)}{reason}"


def body(tape: SocketTape) -> Iterator[bytes]:
    """All that the provider said."""
    yield tape.handshake.body
    yield from (message.data for message in tape.messages if message.sender == "provider")


def _end(ending: SocketEnding) -> str:
    by = f" by the {ending.by}" if ending.by else ""
    return f"{ending.end}{by}{f' with {ending.code}' if ending.code else ''}"
