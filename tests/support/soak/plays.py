"""Random scripts of a provider's response: status, coding, framing, cuts of the writes, and a fault."""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Final

import brotli
import zstandard

from tests.support.soak import bodies
from tests.support.soak.bodies import FORMATS, Body, Shape, pads

ONE_READ_BYTES: Final = 12_000
"""Longest response that has bytes after its end.

It is one write and one TLS record, so that the bridge sees these bytes before it can reuse the connection.
"""

POISON: Final = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"~0.0.0/0~":1}'
"""A complete response that answers no request; no event has the number 0."""
ERROR_STATUSES: Final = (400, 401, 404, 408, 422, 429, 429, 500, 502, 503, 503, 529)
CODINGS: Final = {
    "gzip": partial(gzip.compress, compresslevel=1),
    "deflate": partial(zlib.compress, level=1),
    "br": partial(brotli.compress, quality=1),
    "zstd": zstandard.ZstdCompressor().compress,
}


@dataclass(frozen=True, slots=True)
class Play:
    """One response as the provider sends it: `pieces` one after the other, then `ending`."""

    step: int
    body: Body
    status: int
    fault: str
    pieces: tuple[bytes, ...]
    ending: str
    """`keep` the connection, `fin`, `reset`, or `stall` until the bridge closes it."""
    is_sure: bool = False
    """True if the bridge receives the complete response, whatever else happens."""
    looks_complete: bool = False
    """True if HTTP defines an end of the body before its actual end, and the format does not show it."""
    is_short: bool = False
    """True if HTTP defines an end of the body before its actual end, and no coding shows it."""
    reads_upload: bool = True
    pause_s: float = 0.0
    """Time between two pieces."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A response before its fault: the head, and the body as framed."""

    body: Body
    status: int
    lines: tuple[bytes, ...]
    framing: str
    payload: bytes
    """The body as coded."""
    is_coded: bool
    chunks: tuple[bytes, ...]

    @property
    def head(self) -> bytes:
        return b"\r\n".join((*self.lines, b"", b""))

    @property
    def framed(self) -> bytes:
        return b"".join(self.chunks)


Fault = Callable[[Random, Play, Wire], Play]


def whole(rng: Random, play: Play, wire: Wire) -> Play:
    closes = wire.framing == "close"
    pieces = split(rng, wire.head + wire.framed)
    return replace(play, pieces=pieces, ending="fin" if closes else "keep", is_sure=True)


def no_end(rng: Random, play: Play, wire: Wire) -> Play:
    """Send a stream's closing mark, but not the end of the HTTP body."""
    if wire.body.kind not in {"chat", "messages", "responses"} or wire.is_coded or play.status >= 400:
        return whole(rng, play, wire)
    framed = b"".join(wire.chunks[:-1]) if wire.framing == "chunked" else wire.framed
    if wire.framing == "length":
        wire = _with_length(wire, len(wire.payload) + rng.randint(1, 1000))
    return replace(play, pieces=split(rng, wire.head + framed), ending="stall", is_sure=True)


def late_fin(rng: Random, play: Play, wire: Wire) -> Play:
    """Close the connection after a complete response that announced nothing of it."""
    return replace(whole(rng, play, wire), ending="fin")


def late_reset(rng: Random, play: Play, wire: Wire) -> Play:
    return replace(play, pieces=split(rng, wire.head + wire.framed), ending="reset")


def bytes_after(rng: Random, play: Play, wire: Wire) -> Play:
    """Send garbage, or a complete response that nobody asked for, after the response and in the same write."""
    if wire.framing == "close" or len(wire.head) + len(wire.framed) > ONE_READ_BYTES:
        return whole(rng, play, wire)
    more = rng.choice((b"\r\n", b"x", rng.randbytes(50), POISON))
    # Garbage may make the bridge distrust the response, too.
    return replace(play, pieces=(wire.head + wire.framed + more,), is_sure=more is POISON)


def nothing(rng: Random, play: Play, _: Wire) -> Play:
    """Close or reset the connection in place of an answer; sometimes without having read the request."""
    return replace(play, ending=rng.choice(("fin", "reset")), reads_upload=rng.random() < 0.7)


def cut_head(rng: Random, play: Play, wire: Wire) -> Play:
    head = wire.head[: rng.randrange(1, len(wire.head))]
    return replace(play, pieces=split(rng, head), ending=rng.choice(("fin", "reset")))


def cut_body(rng: Random, play: Play, wire: Wire) -> Play:
    ending = rng.choice(("fin", "reset"))
    sent = rng.randrange(len(wire.framed))
    cut = replace(play, pieces=split(rng, wire.head + wire.framed[:sent]), ending=ending)
    return _shortened(cut, wire, sent) if ending == "fin" and wire.framing == "close" else cut


def stall_before(_: Random, play: Play, __: Wire) -> Play:
    return replace(play, ending="stall")


def stall_unread(_: Random, play: Play, __: Wire) -> Play:
    """Read the request's head only."""
    return replace(play, ending="stall", reads_upload=False)


def stall_head(rng: Random, play: Play, wire: Wire) -> Play:
    return replace(cut_head(rng, play, wire), ending="stall")


def stall_body(rng: Random, play: Play, wire: Wire) -> Play:
    sent = wire.framed[: rng.randrange(len(wire.framed))]
    return replace(play, pieces=split(rng, wire.head + sent), ending="stall")


def no_http(rng: Random, play: Play, _: Wire) -> Play:
    garbage = (
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        rng.randbytes(300) + b"\r\n\r\n",
        b"HTTP/9.9 huh\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: nope\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    )
    return replace(play, pieces=split(rng, rng.choice(garbage)), ending=rng.choice(("fin", "reset")))


def bad_header(rng: Random, play: Play, wire: Wire) -> Play:
    line = rng.choice((b"no colon here", b"X-Nul: a\0b", b"\x80\xff: x", b" folded: x", b": nameless", b"X-Y : space"))
    wire = replace(wire, lines=(*wire.lines[:2], line, *wire.lines[2:]))
    return replace(play, pieces=split(rng, wire.head + wire.framed), ending=rng.choice(("fin", "reset")))


def bad_chunk(rng: Random, play: Play, wire: Wire) -> Play:
    """Break the framing of one chunk; go on as if nothing were wrong."""
    if wire.framing != "chunked":
        return cut_body(rng, play, wire)
    at = rng.randrange(len(wire.chunks))
    bad = rng.choice((b"zz\r\n", b"-5\r\nhello\r\n", b"F" * 40 + b"\r\n", b"\r\n", wire.chunks[at][:-2]))
    framed = b"".join((*wire.chunks[:at], bad, *wire.chunks[at + 1 :]))
    return replace(play, pieces=split(rng, wire.head + framed), ending=rng.choice(("fin", "reset")))


def too_long_length(rng: Random, play: Play, wire: Wire) -> Play:
    wire = _with_length(wire, len(wire.payload) + rng.randint(1, 1000))
    return replace(play, pieces=split(rng, wire.head + wire.payload), ending=rng.choice(("fin", "reset")))


def too_short_length(rng: Random, play: Play, wire: Wire) -> Play:
    """Announce less than is sent; the rest is in the same write."""
    if len(wire.payload) > ONE_READ_BYTES:
        return cut_body(rng, play, wire)
    length = rng.randrange(len(wire.payload))
    wire = _with_length(wire, length)
    return _shortened(replace(play, pieces=(wire.head + wire.payload,)), wire, length)


def cut_coding(rng: Random, play: Play, wire: Wire) -> Play:
    """End the HTTP body properly in the middle of its compressed content."""
    if not wire.is_coded:
        return cut_body(rng, play, wire)
    payload = wire.payload[: rng.randrange(1, len(wire.payload))]
    wire = _with_length(replace(wire, payload=payload), len(payload))
    return replace(play, pieces=split(rng, wire.head + payload))


def wrong_coding(rng: Random, play: Play, wire: Wire) -> Play:
    """Announce a coding that the body does not have, or nobody knows."""
    if wire.is_coded:
        return cut_coding(rng, play, wire)
    coding = rng.choice((b"gzip", b"br", b"zstd", b"rot13"))
    wire = replace(wire, lines=(*wire.lines, b"Content-Encoding: " + coding))
    return replace(play, pieces=split(rng, wire.head + wire.framed), ending=rng.choice(("keep", "fin")))


FAULTS: Final[dict[str, tuple[Fault, int]]] = {
    "whole": (whole, 90),
    "no end": (no_end, 6),
    "late fin": (late_fin, 6),
    "late reset": (late_reset, 5),
    "bytes after": (bytes_after, 6),
    "nothing": (nothing, 9),
    "cut head": (cut_head, 7),
    "cut body": (cut_body, 22),
    "no HTTP": (no_http, 6),
    "bad header": (bad_header, 4),
    "bad chunk": (bad_chunk, 6),
    "too long length": (too_long_length, 5),
    "too short length": (too_short_length, 5),
    "cut coding": (cut_coding, 8),
    "wrong coding": (wrong_coding, 3),
}
"""Faults that need no timeout, with their weights."""

STALLS: Final[dict[str, tuple[Fault, int]]] = {
    "stall before": (stall_before, 10),
    "stall unread": (stall_unread, 5),
    "stall head": (stall_head, 8),
    "stall body": (stall_body, 20),
}
"""Faults of events with short timeouts, in addition."""


def play_of(rng: Random, key: str, step: int, kind: str, *, may_stall: bool, big: bool) -> Play:
    """Return the script of one response. `key` is its unique id, which its items carry."""
    shape = Shape(key, pads(rng, big=big), rng.random() < 0.06, rng.random() < 0.05, rng.random() < 0.5)
    is_error = rng.random() < 0.1
    body = (bodies.error if is_error else FORMATS[kind][0])(rng, shape)
    wire = wire_of(rng, body, rng.choice(ERROR_STATUSES) if is_error else 200)
    faults = FAULTS | STALLS if may_stall else FAULTS
    (name,) = rng.choices(list(faults), [weight for _, weight in faults.values()])
    play = Play(step, body, wire.status, name, (), "keep", pause_s=rng.choice((0.0, 0.0, 0.001, 0.003)))
    return faults[name][0](rng, play, wire)


def wire_of(rng: Random, body: Body, status: int) -> Wire:
    """Return a complete response with a random head, coding and framing."""
    coding = rng.choice(list(CODINGS)) if rng.random() < 0.3 else ""
    payload = CODINGS[coding](body.data) if coding else body.data
    is_old = rng.random() < 0.08
    framing = rng.choice(("length", "close") if is_old else ("length", "chunked", "chunked", "chunked", "close"))
    lines = [
        b"HTTP/1.%d %d %b" % (not is_old, status, rng.choice((b"OK", b"", b"Very \xc3\xa4 good"))),
        rng.choice((b"Content-Type: ", b"content-type:", b"CONTENT-TYPE:  ")) + body.content_type.encode(),
    ]
    if coding:
        lines.append(b"Content-Encoding: " + coding.encode())
    if status in {429, 503} and rng.random() < 0.5:
        lines.append(b"Retry-After: 0")
    if is_old and framing == "length":
        lines.append(b"Connection: keep-alive")
    lines += [b"X-Filler-%d: %b" % (n, b"y" * rng.randrange(200)) for n in range(rng.choice((0, 0, 1, 30)))]
    rng.shuffle(others := lines[1:])
    lines[1:] = others
    if not is_old and rng.random() < 0.15:
        lines[:0] = _interim(rng)
    wire = Wire(body, status, tuple(lines), framing, payload, bool(coding), (payload,))
    if framing == "length":
        return _with_length(wire, len(payload))
    if framing == "chunked":
        chunks = _chunked(rng, payload)
        return replace(wire, lines=(*wire.lines, b"Transfer-Encoding: chunked"), chunks=chunks)
    return wire


def split(rng: Random, data: bytes) -> tuple[bytes, ...]:
    """Cut data into one, a few, or many pieces."""
    count = min(rng.choice((1, 1, 1, 2, 4, 30)), len(data))
    cuts = sorted(rng.randrange(len(data)) for _ in range(count - 1)) if data else []
    parts = (data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True))
    return tuple(part for part in parts if part)


def _interim(rng: Random) -> list[bytes]:
    one = rng.choice(([b"HTTP/1.1 100 Continue", b""], [b"HTTP/1.1 103 Early Hints", b"Link: </a>", b""]))
    return one * rng.choice((1, 1, 2))


def _chunked(rng: Random, payload: bytes) -> tuple[bytes, ...]:
    extension = rng.choice((b"", b"", b"", b";name=value"))
    parts = split(rng, payload)
    last = rng.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX-Trailer: y\r\n\r\n"))
    return (*(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts), last)


def _with_length(wire: Wire, length: int) -> Wire:
    """Frame the body by a Content-Length, right or wrong."""
    kept = (line for line in wire.lines if not line.lower().startswith((b"content-length", b"transfer-encoding")))
    lines = (*kept, b"Content-Length: %d" % length)
    return replace(wire, lines=lines, framing="length", chunks=(wire.payload,))


def _shortened(play: Play, wire: Wire, length: int) -> Play:
    """Return a script after whose first bytes of the body, so many, HTTP defines its end."""
    is_short = length == 0 or not wire.is_coded
    return replace(play, is_short=is_short, looks_complete=is_short and (length == 0 or not wire.body.has_end_mark))
