"""A stored answer is restored exactly, or rejected as damaged."""

import struct

import msgspec
import pytest

from bridge.services.cache.stored import decode, encode, pack_headers
from tests.support.stored_answers import stored


@pytest.mark.parametrize("reads", [[], [b"whole"], [b"a", b"bc", b"\x00\xff" * 70_000]])
def test_the_reads_are_restored(reads: list[bytes]) -> None:
    answer = stored(*reads) if reads else msgspec.structs.replace(stored(), body=b"", lengths=b"")
    again = decode(encode(answer))
    assert again == answer
    assert list(again.reads()) == reads


@pytest.mark.parametrize(
    "lengths", [b"", b"\x01", struct.pack("<I", 3), struct.pack("<I", 5), struct.pack("<III", 4, 0, 0)]
)
def test_lengths_that_do_not_match_the_body_are_rejected(lengths: bytes) -> None:
    with pytest.raises(ValueError):
        decode(encode(msgspec.structs.replace(stored(), lengths=lengths)))


def test_the_headers_are_restored() -> None:
    assert decode(encode(stored())).headers == [("content-type", "text/plain"), ("x-two", "1"), ("x-two", "café")]


def test_undecodable_headers_are_rejected() -> None:
    with pytest.raises(ValueError):
        decode(encode(msgspec.structs.replace(stored(), head=b"\xc1")))


@pytest.mark.parametrize(
    "header",
    [("x y", "1"), ("x\r\nset-cookie", "1"), ("", "1"), ("x:", "1"), ("ü", "1"), ("x", "1\r\ny: 2"), ("x", "\0")],
)
def test_invalid_headers_are_rejected(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError):
        decode(encode(msgspec.structs.replace(stored(), head=pack_headers([("content-type", "a/b"), header]))))


@pytest.mark.parametrize("status", [-1, 0, 101, 600, 1 << 40])
def test_an_invalid_status_is_rejected(status: int) -> None:
    with pytest.raises(ValueError):
        decode(encode(msgspec.structs.replace(stored(), status=status)))


@pytest.mark.parametrize("damaged", [b"", b"\x00", encode(stored())[:-1], encode(stored()) + b"\x00", b"[1, 2]"])
def test_undecodable_data_is_rejected(damaged: bytes) -> None:
    with pytest.raises(ValueError):
        decode(damaged)


def test_the_size_counts_everything() -> None:
    small, large = stored(b"12"), stored(*[b"1"] * 1000)
    assert large.size_bytes - small.size_bytes == 998 + 999 * 4
    assert small.size_bytes > len(encode(small))


def test_an_answer_expires_after_its_lifetime() -> None:
    assert msgspec.structs.replace(stored(), stored_at=1000.0, ttl_s=60.0).expires_at == 1060.0
