"""Build messages of an AWS event stream, valid and invalid ones."""

import struct
import zlib


def string_header(name: str, value: str) -> bytes:
    return header(name, 7, struct.pack(">H", len(value.encode())) + value.encode())


def header(name: str, type_: int, value: bytes) -> bytes:
    return bytes([len(name)]) + name.encode() + bytes([type_]) + value


def message(headers: bytes, payload: bytes, *, headers_length: int | None = None) -> bytes:
    """Return a message. `headers_length` replaces the true length in the prelude."""
    lengths = struct.pack(
        ">II", len(headers) + len(payload) + 16, len(headers) if headers_length is None else headers_length
    )
    start = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return start + struct.pack(">I", zlib.crc32(start))


def event(name: str, payload: bytes) -> bytes:
    headers = (":event-type", name), (":content-type", "application/json"), (":message-type", "event")
    return message(b"".join(string_header(*pair) for pair in headers), payload)
