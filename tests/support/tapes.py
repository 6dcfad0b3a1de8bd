"""Tapes for tests, and a server that plays them."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.replay.server import ReplayServer
from bridge.tapes.file import Pairs, StreamEnd, Tape, TapeChunk, TapeEnding, TapeHead, TapeRequest, write_tape
from bridge.tapes.library import Library

URL = "https://api.example.com/v1/chat?b=2&a=1"
HEAD = TapeHead(status=200, headers={"content-type": "text/plain"}, ms=100)
BODY = b'{"model":"small","messages":[{"role":"user","content":"Say hello"}]}'


def tape(
    *chunks: bytes,
    url: str = URL,
    body: bytes = BODY,
    end: StreamEnd = StreamEnd.EOF,
    head: TapeHead | None = HEAD,
    method: str = "POST",
    headers: dict[str, str] | Pairs | None = None,
) -> Tape:
    """Build a tape with one chunk every hundred milliseconds after the head."""
    reads = tuple(TapeChunk.of(100 * at, data) for at, data in enumerate(chunks, start=2))
    request = TapeRequest.of(method, url, body, headers)
    return Tape(request, head, reads, TapeEnding(end=end, ms=100 * (len(chunks) + 2)))


def folder_of(folder: Path, *tapes: Tape) -> Path:
    for number, each in enumerate(tapes):
        write_tape(folder / f"case-{number}.jsonl", each)
    return folder


@asynccontextmanager
async def replaying(library: Library) -> AsyncIterator[ReplayServer]:
    """Run a stand-alone replay server on a free loopback port."""
    server = ReplayServer(library)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def chunk_data(tape: Tape) -> list[bytes]:
    return [chunk.data for chunk in tape.chunks]


def times_ms(tape: Tape) -> list[int | None]:
    """Return the times of the head, of every chunk and of the ending."""
    lines: Iterable[TapeHead | TapeChunk | TapeEnding | None] = (tape.head, *tape.chunks, tape.ending)
    return [line.ms for line in lines if line is not None]
