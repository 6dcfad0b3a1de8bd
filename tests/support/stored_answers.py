"""Stored answers for tests."""

from bridge.services.cache.stored import StoredAnswer, pack_headers, pack_reads

KEYS = [bytes([number]) * 32 for number in range(200)]


def stored(*reads: bytes, stored_at: float = 4e9, ttl_s: float = 60.0) -> StoredAnswer:
    headers = [("content-type", "text/plain"), ("x-two", "1"), ("x-two", "café")]
    return StoredAnswer(200, pack_headers(headers), *pack_reads(reads or (b"body",)), stored_at, ttl_s)


def of_size(size: int) -> StoredAnswer:
    return stored(bytes(size))
