"""Generated responses through our transport and through httpx's own, which parses with h11.

The results are equal, or differ for one of the reasons listed here.
"""

import asyncio
import gzip
import random
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import brotli
import httpx
import zstandard

from tests.support.memory_network import Ending, MemoryNetwork, Reply, httpx_transport, our_transport

SEQUENCES = 1000
CUT_RESPONSES = 20
METHODS = ["POST", "POST", "POST", "GET", "HEAD"]
NOT_COMPARED = {"content-encoding", "content-length", "transfer-encoding"}
"""Headers that our transport removes when it decodes a body, and one that h11 writes in its own way."""

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
    "Identity, ": bytes,
}


@dataclass(frozen=True)
class Outcome:
    """How an exchange ended: `ok`, `no answer` (no head), `broken` (in the body) or `waits`; and what was received."""

    end: str
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    content: bytes = b""


@dataclass
class Case:
    method: str
    wire: bytes = b""
    head_bytes: int = 0
    ending: Ending = "open"
    features: set[str] = field(default_factory=set)

    def reply(self, cuts: list[int]) -> Reply:
        places = [0, *sorted(cuts), len(self.wire)]
        reads = [self.wire[start:end] for start, end in pairwise(places)]
        return Reply(tuple(read for read in reads if read), self.ending)


async def exchange(transport: httpx.AsyncBaseTransport, method: str) -> Outcome:
    body = b"{}" if method == "POST" else None
    try:
        response = await transport.handle_async_request(httpx.Request(method, "http://host/", content=body))
    except httpx.RequestError:
        return Outcome("no answer")
    kept = [(name, value) for name, value in response.headers.multi_items() if name not in NOT_COMPARED]
    head = Outcome("broken", response.status_code, tuple(kept))
    content = b""
    try:
        async for data in response.aiter_bytes():
            content += data
    except httpx.RequestError:
        return replace(head, content=content)
    except asyncio.CancelledError:
        return replace(head, end="waits", content=content)
    finally:
        await response.aclose()
    return replace(head, end="ok", content=content)


async def outcomes(
    opened: Callable[[MemoryNetwork], httpx.AsyncBaseTransport], cases: list[Case], replies: list[Reply]
) -> tuple[list[Outcome], int]:
    network = MemoryNetwork(replies)
    async with opened(network) as transport:
        return [await network.outcome_of(exchange(transport, case.method)) or Outcome("waits") for case in cases]


# Generated responses


def head_of(rng: random.Random, case: Case) -> list[bytes]:
    version = rng.choice([b"HTTP/1.1"] * 9 + [b"HTTP/1.0"])
    status = rng.choice([200] * 8 + [201, 204, 304, 400, 404, 429, 500, 503, 999])
    lines = [b"%b %d %b" % (version, status, rng.choice([b"OK", b"", b"Some Reason"])), b"X-Number: %d" % rng.random()]
    if status in (204, 304):
        case.features.add("no body")
    if rng.random() < 0.2:
        lines.append(b"Connection: " + rng.choice([b"close", b"keep-alive", b"Close", b"x, close"]))
    if rng.random() < 0.1:
        lines.append(
            rng.choice([b"X-Empty:", b"X-Latin: caf\xe9", b"x-spaces:   a  b\t ", b"Set-Cookie: a=b\r\nSet-Cookie: c"])
        )
    if rng.random() < 0.03:
        lines.append(b"X-Folded: a\r\n b")
        case.features.add("folded")
    if rng.random() < 0.02:
        lines.append(rng.choice([b"X-Control: a\x01b", b"No colon", b"X Space: a", b"X-Null: a\0b"]))
        case.features.add("bad header")
    return lines


def content_of(rng: random.Random, case: Case, lines: list[bytes]) -> bytes:
    content = rng.choice([b"", b"{}", b"plain text " * rng.randrange(20), bytes(rng.randrange(256) for _ in range(99))])
    lines.append(b"Content-Type: " + rng.choice([b"application/json", b"text/plain", b"image/png"]))
    draw = rng.random()
    if draw < 0.3:
        name = rng.choice(list(CODINGS))
        lines.append(b"Content-Encoding: " + name.encode())
        content = CODINGS[name](content)
        if rng.random() < 0.15 and len(content) > 4:
            content = content[: rng.randrange(1, len(content))]
            case.features.add("cut coding")
    elif draw < 0.33:
        lines.append(b"Content-Encoding: " + rng.choice([b"gzip, br", b"compress"]))
        case.features.add("other coding")
    elif draw < 0.36:
        content = gzip.compress(content)
        case.features.add("hidden coding")
    return content


def framed(rng: random.Random, case: Case, lines: list[bytes], content: bytes) -> bytes:
    framing = rng.choice(
        ["length"] * 6 + ["chunked"] * 6 + ["until close"] * 2 + ["both", "two lengths", "bad length", "te"]
    )
    if framing == "length":
        length = len(content)
        if rng.random() < 0.08:
            length = max(0, length + rng.choice([-5, -1, 1, 7]))
            case.features.add("wrong length")
        lines.append(b"Content-Length: %d" % length)
        return content
    if framing == "until close":
        case.features.add("until close")
        return content
    if framing == "bad length":
        case.features.add("bad framing")
        lines.append(b"Content-Length: " + rng.choice([b"-1", b"many", b"", b"+2", b"2 2", b"99999999999999999999999"]))
        return content
    if framing == "two lengths":
        case.features.add("bad framing")
        lines += [b"Content-Length: %d" % len(content), b"Content-Length: %d" % (len(content) + rng.choice([0, 1]))]
        return content
    if framing == "te":
        case.features.add("bad framing")
        lines.append(b"Transfer-Encoding: " + rng.choice([b"gzip", b"gzip, chunked", b"identity", b"xchunked"]))
        return chunked(rng, case, content)
    lines.append(b"Transfer-Encoding: " + rng.choice([b"chunked", b"Chunked"]))
    if framing == "both":
        case.features.add("bad framing")
        lines.append(b"Content-Length: %d" % len(content))
    return chunked(rng, case, content)


def chunked(rng: random.Random, case: Case, content: bytes) -> bytes:
    wire = b""
    while content:
        size = rng.randrange(1, len(content) + 1)
        extension = rng.choice([b""] * 8 + [b";a=b", b" "])
        wire += rng.choice([b"%x", b"%X", b"0%x"]) % size + extension + b"\r\n" + content[:size] + b"\r\n"
        content = content[size:]
    if rng.random() < 0.08:
        case.features.add("bad chunk")
        place = rng.randrange(len(wire) + 1)
        return (
            wire[:place] + rng.choice([b"zz\r\n", b"\n", b"-1\r\n", b"\x00", b"ffffffffffffffffff\r\n"]) + wire[place:]
        )
    return wire + b"0\r\n" + rng.choice([b""] * 5 + [b"X-Trailer: 1\r\n"]) + b"\r\n"


def case_of(rng: random.Random) -> Case:
    case = Case(rng.choice(METHODS))
    lines = head_of(rng, case)
    body = framed(rng, case, lines, content_of(rng, case, lines))
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    if rng.random() < 0.03:
        head = head.replace(b"\r\n", b"\n")
        case.features.add("line feeds")
    if rng.random() < 0.08:
        head = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * rng.randrange(1, 4) + head
    if case.method == "HEAD" or "no body" in case.features:
        if rng.random() < 0.8:
            body = b""
        elif body:
            case.features.add("excess")
    if rng.random() < 0.08:
        case.features.add("excess")
        body += rng.choice(
            [b"and more", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 408", b"\r\n", b"\0"]
        )
    case.wire, case.head_bytes = head + body, len(head)
    if rng.random() < 0.06:
        case.features.add("cut")
        case.wire = case.wire[: rng.randrange(len(case.wire))]
    ends_anyway = case.features & {"until close", "cut", "wrong length"}
    case.ending = rng.choice(["fin", "fin", "reset"]) if ends_anyway else rng.choice(["open"] * 8 + ["fin", "reset"])
    return case


def cuts_of(rng: random.Random, case: Case) -> list[int]:
    """The head and the body come in one read, at random in several, or byte by byte."""
    draw, size = rng.random(), len(case.wire)
    if draw < 0.4:
        return []
    return list(range(1, size)) if draw > 0.96 else [rng.randrange(size + 1) for _ in range(rng.randrange(1, 6))]


# Reasons for a difference


def is_refused(ours: Outcome, theirs: Outcome) -> bool:
    return ours.end in ("no answer", "broken") and theirs.content.startswith(ours.content)


_SAME_FAULT = {
    ("broken", "broken"),
    ("broken", "waits"),
    ("waits", "broken"),
    ("broken", "ok"),
    ("no answer", "waits"),
}


Reason = Callable[[Case, Outcome, Outcome], bool]
REASONS: dict[str, Reason] = {
    "h11 takes two equal lengths, and a length with chunks; we refuse both": (
        lambda case, ours, theirs: "bad framing" in case.features and is_refused(ours, theirs)
    ),
    "garbage in the read of the head, after the body, spoils the response": (
        lambda case, ours, theirs: bool(case.features & {"excess", "wrong length"}) and ours.end == "no answer"
    ),
    "a broken chunk in the read of the head, before any of the body, spoils the response": (
        lambda case, ours, theirs: "bad chunk" in case.features and ours.end == "no answer" and theirs.end == "broken"
    ),
    "llhttp and h11 find the same broken chunk a few bytes earlier or later": (
        lambda case, ours, theirs: bool(case.features & {"bad chunk", "cut"}) and (ours.end, theirs.end) in _SAME_FAULT
    ),
    "httpx takes a truncated coding for a whole one": (
        lambda case, ours, theirs: (
            bool(case.features & {"cut coding", "cut", "wrong length"})
            and ours.end == "broken"
            and theirs.end in ("ok", "broken")
        )
    ),
    "httpx decodes several codings, and passes unknown ones on": (
        lambda case, ours, theirs: "other coding" in case.features and ours.end == "no answer"
    ),
    "bytes after a coded body are dropped; httpx fails": (
        lambda case, ours, theirs: (
            bool(case.features & {"excess", "wrong length"}) and (ours.end, theirs.end) == ("ok", "broken")
        )
    ),
    "we decode undeclared codings": (
        lambda case, ours, theirs: (
            "hidden coding" in case.features and ours.status == theirs.status and theirs.content.startswith(b"\x1f\x8b")
        )
    ),
    "we refuse control characters in headers": (
        lambda case, ours, theirs: "bad header" in case.features and ours.end == "no answer"
    ),
}


def reason_for(case: Case, ours: Outcome, theirs: Outcome) -> str | None:
    return next((name for name, holds in REASONS.items() if holds(case, ours, theirs)), None)


def sequence_of(rng: random.Random) -> tuple[list[Case], list[Reply]]:
    cases = [case_of(rng) for _ in range(rng.choice([1, 1, 2, 3]))]
    return cases, [case.reply(cuts_of(rng, case)) for case in cases]


async def test_generated_sequences_give_what_httpx_gives() -> None:
    """A sequence is compared up to the first difference, or to bytes beyond a response, which h11 reads as the next."""
    rng = random.Random(20261128)
    reasons: Counter[str] = Counter()
    compared = 0
    for _ in range(SEQUENCES):
        cases, replies = sequence_of(rng)
        ours = await outcomes(our_transport, cases, replies)
        theirs = await outcomes(httpx_transport, cases, replies)
        for case, reply, our, their in zip(cases, replies, ours, theirs, strict=True):
            compared += 1
            if our != their:
                reason = reason_for(case, our, their)
                assert reason is not None, f"{case.features}\n{reply}\nours:   {our}\ntheirs: {their}"
                reasons[reason] += 1
            if our != their or "excess" in case.features:
                break
    assert set(reasons) == set(REASONS), "a reason that no case needs is no reason"
    assert reasons.total() < compared * 0.25


async def test_no_response_changes_what_the_next_one_gives() -> None:
    """Whatever came before it on the connection, and whatever came with that."""
    rng = random.Random(20261129)
    for _ in range(SEQUENCES):
        cases, replies = sequence_of(rng)
        together = await outcomes(our_transport, cases, replies)
        alone = [await outcomes(our_transport, [case], [reply]) for case, reply in zip(cases, replies, strict=True)]
        assert together == [outcome for (outcome,) in alone], replies


HARMLESS = {"until close", "folded", "line feeds", "hidden coding", "cut coding", "other coding", "no body"}


async def test_a_response_gives_the_same_wherever_its_reads_are_cut() -> None:
    rng = random.Random(20261130)
    cases = [case_of(rng) for _ in range(400)]
    chosen = [case for case in cases if case.features <= HARMLESS and len(case.wire) < 400][:CUT_RESPONSES]
    assert len(chosen) == CUT_RESPONSES
    for case in chosen:
        size = len(case.wire)
        whole = await outcomes(our_transport, [case], [case.reply([])])
        for cuts in ([place] for place in range(1, size)):
            assert await outcomes(our_transport, [case], [case.reply(cuts)]) == whole, (case, cuts)
        assert await outcomes(our_transport, [case], [case.reply(list(range(1, size)))]) == whole, case
