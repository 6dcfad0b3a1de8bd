"""Converts a realtime session, which may contain secrets, to the lines of a tape, which contain none. Pure."""

from collections.abc import Iterable
from typing import Final

from bridge.redact.body import mask_body, secret_values
from bridge.redact.known_secrets import KnownSecrets, is_searchable
from bridge.tapes.exchange import (
    ReceivedHead,
    SentRequest,
    masked_headers,
    request_of,
    secrets_of,
    secrets_of_header,
    unescaped,
)
from bridge.tapes.lines import text_of
from bridge.tapes.socket_file import Handshake, Message, Opcode, Side, SocketEnd, SocketEnding

ABNORMAL_CLOSURE: Final = 1006
"""Close code for a connection that was lost without a close frame (RFC 6455, section 7.1.5)."""


class SessionRedactor:
    """Replaces the secrets of one session by fillers, line by line.

    It recognises secrets by their names in the handshake and in the client's messages. If there are too many to search
    for, it masks entire messages.
    """

    def __init__(self, sent: SentRequest) -> None:
        self._secrets = set(filter(is_searchable, secrets_of(sent, None)))
        self._known = KnownSecrets(self._secrets)
        self.request = request_of(sent, self._known)

    def handshake(self, answered: ReceivedHead, body: bytes = b"") -> Handshake:
        """Return the redacted handshake; only a refusal has a body."""
        self._learn(found for name, value in answered.headers for found in secrets_of_header(name.lower(), value))
        status, headers, ms = answered
        handshake = Handshake(status=status, headers=masked_headers(headers, self._known), ms=ms)
        shown = mask_body(body, self._known)
        if (text := text_of(shown)) is None:
            handshake.base64 = shown
        elif text:
            handshake.text = text
        return handshake

    def message(self, ms: int, sender: Side, opcode: Opcode, data: bytes) -> Message:
        return Message.of(ms, sender, opcode, self.text(data) if sender == "client" else mask_body(data, self._known))

    def text(self, data: bytes) -> bytes:
        """Return the redacted message of a client."""
        text = data.decode("latin-1")
        self._learn(unescaped(text[start:end]) for start, end in secret_values(text))
        return mask_body(data, self._known)

    def ending(self, ms: int, by: Side, code: int, reason: str) -> SocketEnding:
        if code == ABNORMAL_CLOSURE:
            return SocketEnding(end=SocketEnd.LOST, by=by, ms=ms)
        shown = mask_body(reason.encode(errors="replace"), self._known).decode(errors="replace")
        return SocketEnding(end=SocketEnd.CLOSED, by=by, code=code, reason=shown, ms=ms)

    def _learn(self, secrets: Iterable[str]) -> None:
        if self._known.has_too_many:
            return  # all further messages are masked
        new = set(filter(is_searchable, secrets)) - self._secrets
        if new:
            self._secrets |= new
            self._known = KnownSecrets(self._secrets)
