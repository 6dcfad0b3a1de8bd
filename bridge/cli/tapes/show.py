"""Implements the commands of `bridge tapes`. Their functions return the exit code."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import typer

from bridge.logs.terminal import is_terminal, one_line, readable
from bridge.tapes.file import Tape, TapeError
from bridge.tapes.file import check as check_tape
from bridge.tapes.folder import CUT, TapeFolder, cut_tapes
from bridge.tapes.importers.exchange import Skipped, Unusable
from bridge.tapes.importers.files import imported
from bridge.tapes.lines import Pairs, pairs
from bridge.tapes.socket_file import SocketEnding, SocketTape, check_socket_tape, read_any


def session_row(tape: SocketTape) -> tuple[str, ...]:
    """Return the row of a session in the list of tapes; its messages count as chunks."""
    request, status = tape.request, str(tape.handshake.status)
    return (
        one_line(request.matched_method),
        one_line(request.url),
        status,
        str(len(tape.messages)),
        str(tape.ending.ms),
        _end(tape.ending),
    )


def session_text(tape: SocketTape) -> Iterator[str]:
    yield f"{one_line(tape.request.matched_method)} {one_line(tape.request.url)}"
    yield from headers(pairs(tape.request.headers))
    yield f"{tape.handshake.ms:>8} ms  {tape.handshake.status}"
    yield from headers(pairs(tape.handshake.headers))
    if tape.handshake.body:
        yield f"  {shown(tape.handshake.body)}"
    for message in tape.messages:
        yield f"{message.ms:>8} ms  {message.sender:<8}  {message.opcode:<6}  {shown(message.data)}"
    reason = f"  {shown(tape.ending.reason.encode())}" if tape.ending.reason else ""
    yield f"{tape.ending.ms:>8} ms  {_end(tape.ending)}{reason}"


def session_body(tape: SocketTape) -> Iterator[bytes]:
    """Yield all data of the provider."""
    yield tape.handshake.body
    yield from (message.data for message in tape.messages if message.sender == "provider")


def _end(ending: SocketEnding) -> str:
    by = f" by the {ending.by}" if ending.by else ""
    return f"{ending.end}{by}{f' with {ending.code}' if ending.code else ''}"


def headers(pairs: Pairs) -> Iterator[str]:
    return (f"  {one_line(name)}: {one_line(value)}" for name, value in pairs)


def shown(data: bytes) -> str:
    """Return text as a JSON string, or the number of bytes."""
    try:
        return one_line(json.dumps(data.decode(), ensure_ascii=False))
    except UnicodeDecodeError:
        return f"{len(data)} bytes"


COLUMNS = ("file", "method", "URL", "status", "chunks", "ms", "ending")
FOR_TRYING = "Review imported tapes before committing them: they may contain secrets."
NO_TAPE = "No tape found: expected a folder with *.jsonl files, or one such file"


def table(path: Path) -> int:
    rows: list[tuple[str, ...]] = [COLUMNS]
    faults = 0
    if not (tapes := _tapes(path)):
        return _report(f"{path}: {NO_TAPE}")
    for file in tapes:
        try:
            rows.append((one_line(str(file)), *_row(read_any(file))))
        except TapeError as error:
            faults += _report(str(error))
    for line in _aligned(rows):
        typer.echo(line)
    return 1 if faults else 0


def show(file: Path) -> int:
    try:
        tape = read_any(file)
    except TapeError as error:
        return _report(str(error))
    for line in _text_of(tape):
        typer.echo(line)
    return 0


def body(file: Path) -> int:
    try:
        tape = read_any(file)
    except TapeError as error:
        return _report(str(error))
    pieces = session_body(tape) if isinstance(tape, SocketTape) else (chunk.data for chunk in tape.chunks)
    if is_terminal(sys.stdout):
        typer.echo(readable(b"".join(pieces).decode(errors="replace")))
        return 0
    for data in pieces:
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return 0


def check(path: Path) -> int:
    if not (tapes := _tapes(path)):
        return _report(f"{path}: {NO_TAPE}")
    faults = [f"{file}: {fault}" for file in tapes for fault in _faults(file)]
    for fault in faults:
        _report(fault)
    typer.echo(f"{len(tapes)} tapes, {len(faults)} faults")
    return 1 if faults else 0


def import_files(files: Sequence[Path], to: Path) -> int:
    """Import files. Returns 1 if a file gave no tape or an entry was skipped."""
    tapes = left_out = 0
    try:
        folder = TapeFolder(to)
        for file in files:
            for made in _import_file(file, folder):
                tapes += made
                left_out += not made
    except OSError as error:
        return _report(f"{error.filename}: {error.strerror}")
    if tapes:
        typer.echo(FOR_TRYING, err=True)
    return 1 if left_out else 0


def _import_file(file: Path, folder: TapeFolder) -> Iterator[bool]:
    """Import a file. Yields true for each entry that became a tape, false for each skipped one."""
    try:
        for made in imported(file, folder):
            if isinstance(made, Skipped):
                _report(f"{file}: {made.what} skipped: {made.why}")
                yield False
            else:
                typer.echo(one_line(str(made)))
                yield True
    except Unusable as error:
        _report(f"{file}: {error}")
        yield False


def _report(line: str) -> int:
    typer.echo(one_line(line), err=True)
    return 1


def _tapes(path: Path) -> list[Path]:
    """Return the tapes, including cut recordings."""
    if path.is_file():
        return [path]
    return sorted([*path.rglob("*.jsonl"), *cut_tapes(path)])


def _faults(file: Path) -> Iterable[str]:
    if file.name.endswith(CUT):
        return ["The recording was cut: the bridge stopped before the end of the exchange, or is still recording it"]
    try:
        tape = read_any(file)
    except TapeError as error:
        return [f"line {error.line}: {error.message}" if error.line else error.message]
    return check_socket_tape(tape) if isinstance(tape, SocketTape) else check_tape(tape)


def _row(tape: Tape | SocketTape) -> tuple[str, ...]:
    if isinstance(tape, SocketTape):
        return session_row(tape)
    last_ms = tape.ending.ms if tape.ending.ms is not None else _last_ms(tape)
    status = str(tape.head.status) if tape.head else "none"
    chunks = str(len(tape.chunks))
    return (one_line(tape.request.method), one_line(tape.request.url), status, chunks, str(last_ms), tape.ending.end)


def _last_ms(tape: Tape) -> int:
    return max((line.ms for line in (tape.head, *tape.chunks) if line is not None), default=0)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _text_of(tape: Tape | SocketTape) -> Iterator[str]:
    return session_text(tape) if isinstance(tape, SocketTape) else _exchange(tape)


def _exchange(tape: Tape) -> Iterator[str]:
    yield f"{one_line(tape.request.method)} {one_line(tape.request.url)}"
    yield from headers(pairs(tape.request.headers))
    if tape.request.body:
        yield f"  {shown(tape.request.body)}"
    if tape.head is not None:
        yield f"{tape.head.ms:>8} ms  {tape.head.status}"
        yield from headers(pairs(tape.head.headers))
    for chunk in tape.chunks:
        yield f"{chunk.ms:>8} ms  {shown(chunk.data)}"
    yield f"{'' if tape.ending.ms is None else tape.ending.ms:>8} ms  {tape.ending.end}"
