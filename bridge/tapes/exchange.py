"""One exchange with a provider as it was, secrets and all; and the tape of it, which holds none.

This is the only way from traffic to a tape: for what the bridge records, and for what others recorded. Pure.
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
    """A request as it was."""

    method: str
    url: str
    headers: Pairs
    body: bytes


class ReceivedHead(NamedTuple):
    """An answer's head as it was, `ms` after the request."""

    status: int
    headers: Pairs
    ms: int


class RecordedExchange(NamedTuple):
    sent: SentRequest
    answered: ReceivedHead | None
    reads: Sequence[tuple[int, bytes]]
    """Each with its milliseconds since the request; content coding undone."""
    ending: TapeEnding


def tape_exchange(exchange: RecordedExchange) -> Tape:
    """The same exchange with fillers in the place of its secrets: the same chunks, of the same lengths."""
    sent, answered, reads, ending = exchange
    known = KnownSecrets(secrets_of(sent, answered))
    head = None if answered is None else _head(answered, known)
    datas = _split(mask_body(b"".join(data for _, data in reads), known), [len(data) for _, data in reads])
    chunks = tuple(TapeChunk.of(ms, data) for (ms, _), data in zip(reads, datas, strict=True))
    return Tape(request_of(sent, known), head, chunks, ending)


def tape_request(sent: SentRequest) -> TapeRequest:
    """What can be told of an exchange before its end."""
    return request_of(sent, KnownSecrets(secrets_of(sent, None)))


def request_of(sent: SentRequest, known: KnownSecrets) -> TapeRequest:
    """As a tape has it."""
    url = masked_text(redact_url(sent.url), known)
    return TapeRequest.of(sent.method, url, mask_body(sent.body, known), masked_headers(sent.headers, known))


def _head(answered: ReceivedHead, known: KnownSecrets) -> TapeHead:
    return TapeHead(status=answered.status, headers=masked_headers(answered.headers, known), ms=answered.ms)


def masked_headers(headers: Pairs, known: KnownSecrets) -> Pairs:
    """Without what their names say to be secret, and without what is known."""
    return [(name, masked_text(value, known)) for name, value in redact_headers(headers)]


def masked_text(text: str, known: KnownSecrets) -> str:
    """Of what has been redacted by its names: what is known may stand in it under another."""
    return known.mask_line(text.encode("latin-1", "replace")).decode("latin-1")


def _split(body: bytes, lengths: Iterable[int]) -> Iterator[bytes]:
    at = 0
    for length in lengths:
        yield body[at : at + length]
        at += length


# The secrets that an exchange shows by their names.


def secrets_of(sent: SentRequest, answered: ReceivedHead | None) -> Iterator[str]:
    """May yield words that are none; `Known` leaves out what is too short to tell."""
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
        # After a cookie's value come its attributes: a domain, a date.
        shown = value.partition(";")[0] if name == SET_COOKIE else _SIGNED_NAMES.sub("", value)
        scheme = _SCHEME.match(shown)
        bare = shown[scheme.end() :] if scheme else shown
        yield bare
        for part in _PART.findall(bare):
            yield part
            yield from part.split(":")
        yield from _secrets_of_basic(bare)


def _secrets_of_basic(coded: str) -> Iterator[str]:
    """The password, and `user:password`, of a Basic authorization (RFC 7617)."""
    try:
        pair = base64.b64decode(coded, validate=True).decode()
    except (binascii.Error, ValueError):
        return
    yield pair
    yield pair.partition(":")[2]


def _secrets_of_subprotocols(value: str) -> Iterator[str]:
    """Those that redaction takes out: the whole of one offered, or what follows the name of a secret."""
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
    """A string of JSON in a character per byte, as the text that it stands for."""
    spelt = text.encode("latin-1").decode(errors="replace")
    try:
        return str(json.loads(f'"{spelt}"'))
    except ValueError:
        return spelt
