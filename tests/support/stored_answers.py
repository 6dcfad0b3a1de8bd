"""Stored answers for tests."""

from bridge.services.cache.stored import Stored, packed, packed_headers

KEYS = [bytes([number]) * 32 for number in range(200)]


def stored(*reads: bytes, stored_at: float = 4e9, kept_s: float = 60.0) -> Stored:
    headers = [("content-type", "text/plain"), ("x-two", "1"), ("x-two", "café")]
    return Stored(200, packed_headers(headers), *packed(reads or (b"whole",)), stored_at, kept_s)


def of_size(size: int) -> Stored:
    return stored(bytes(size))
