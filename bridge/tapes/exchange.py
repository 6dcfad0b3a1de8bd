"""Converts an exchange with a provider, which may contain secrets, to a tape, which contains none. Pure.

Recordings of the bridge and imports from other tools both pass through this module.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

from bridge.redact.body import mask_body, secret_values
from bridge.redact.known_secrets import KnownSecrets
from bridge.redact.text import REDACTED, is_secret_name, redact_headers, redact_url
from bridge.tapes.file import Pairs, Tape, TapeChunk, TapeEnding, TapeHead, TapeRequest

SET_COOKIE: Final = "set-cookie"
SUBPROTOCOL: Final = "sec-websocket-protocol"


class SentRequest(NamedTuple):
    """A request as it was sent, with its secrets."""

    method: str
    url: str
    headers: Pairs
    body: bytes


class ReceivedHead(NamedTuple):
    """Head of a response as it was received, `ms` after the request."""

    status: int
    headers: Pairs
    ms: int


class RecordedExchange(NamedTuple):
    sent: SentRequest
    answered: ReceivedHead | None
    reads: Sequence[tuple[int, bytes]]
    """Reads with their milliseconds since the request, after content decoding."""
    ending: TapeEnding


def tape_exchange(exchange: RecordedExchange) -> Tape:
    """Return the tape of an exchange. Its secrets are replaced by fillers; the chunks keep their lengths."""
    sent, answered, reads, ending = exchange
    known = KnownSecrets(secrets_of(sent, answered))
    head = None if answered is None else _head(answered, known)
    datas = _split(mask_body(b"".join(data for _, data in reads), known), [len(data) for _, data in reads])
    chunks = tuple(TapeChunk.of(ms, data) for (ms, _), data in zip(reads, datas, strict=True))
    return Tape(request_of(sent, known), head, chunks, ending)


def tape_request(sent: SentRequest) -> TapeRequest:
    """Return the request of a tape, as far as it is known before the exchange ends."""
    return request_of(sent, KnownSecrets(secrets_of(sent, None)))


def request_of(sent: SentRequest, known: KnownSecrets) -> TapeRequest:
    """Return the request without the known secrets."""
    url = masked_text(redact_url(sent.url), known)
    return TapeRequest.of(sent.method, url, mask_body(sent.body, known), masked_headers(sent.headers, known))


def _head(answered: ReceivedHead, known: KnownSecrets) -> TapeHead:
    return TapeHead(status=answered.status, headers=masked_headers(answered.headers, known), ms=answered.ms)


def masked_headers(headers: Pairs, known: KnownSecrets) -> Pairs:
    """Return headers without secrets: by their names, and those that are known."""
    return [(name, masked_text(value, known)) for name, value in redact_headers(headers)]


def masked_text(text: str, known: KnownSecrets) -> str:
    """Return the text without the known secrets, which may occur under other names."""
    return known.mask_line(text.encode("latin-1", "replace")).decode("latin-1")


def _split(body: bytes, lengths: Iterable[int]) -> Iterator[bytes]:
    at = 0
    for length in lengths:
        yield body[at : at + length]
        at += length


# Secrets that are recognised by their names.


def secrets_of(sent: SentRequest, answered: ReceivedHead | None) -> Iterator[str]:
    """Yield candidates for secrets. `KnownSecrets` ignores those that are too short."""
    for name, value in [*sent.headers, *(answered.headers if answered else ())]:
        yield from secrets_of_header(name.lower(), value)
    yield from secrets_of_url(sent.url)
    text = sent.body.decode("latin-1")
    for start, end in secret_values(text):
        yield unescaped(text[start:end])


_SCHEME = re.compile(r"\s*+[A-Za-z0-9-]++\s++")
_SIGNED_NAMES = re.compile(r"SignedHeaders=[^,]*+")
_PART = re.compile(r"(?:^|[\s,;])(?:[\w.-]++=)?([^\s,;]++)")


def secrets_of_header(name: str, value: str) -> Iterator[str]:
    if name == SUBPROTOCOL:
        yield from _secrets_of_subprotocols(value)
    elif is_secret_name(name):
        # The attributes after a cookie's value, such as a domain, are not secrets.
        shown = value.partition(";")[0] if name == SET_COOKIE else _SIGNED_NAMES.sub("", value)
        scheme = _SCHEME.match(shown)
        bare = shown[scheme.end() :] if scheme else shown
        yield bare
        for part in _PART.findall(bare):
            yield part
            yield from part.split(":")
        yield from _secrets_of_basic(bare)


def _secrets_of_basic(coded: str) -> Iterator[str]:
    """Yield the password, and `user:password`, of Basic authorization (RFC 7617)."""
    try:
        pair = base64.b64decode(coded, validate=True).decode()
    except (binascii.Error, ValueError):
        return
    yield pair
    yield pair.partition(":")[2]


def _secrets_of_subprotocols(value: str) -> Iterator[str]:
    """Yield the parts of subprotocols that redaction removes: all of one, or the part after the name of a secret."""
    offered = [one.strip() for one in value.split(",")]
    shown = redact_headers([(SUBPROTOCOL, value)])[0][1].split(", ")
    for one, redacted in zip(offered, shown, strict=True):
        kept, marker, _ = redacted.partition(REDACTED)
        if marker:
            yield one.removeprefix(kept)


_PARAMETER = re.compile(r"[?&#;]([^?=&#;]++)=([^&#;]++)")
_USERINFO = re.compile(r"://([^/?#@]*+)@")


def secrets_of_url(url: str) -> Iterator[str]:
    for name, value in _PARAMETER.findall(url):
        if is_secret_name(unquote_plus(name)):
            yield value
            yield unquote_plus(value)
    if userinfo := _USERINFO.search(url):
        yield userinfo[1]
        yield unquote_plus(userinfo[1].partition(":")[2])


def unescaped(text: str) -> str:
    """Return the text of the content of a JSON string, which has one character per byte."""
    spelt = text.encode("latin-1").decode(errors="replace")
    try:
        return str(json.loads(f'"{spelt}"'))
    except ValueError:
        return spelt
