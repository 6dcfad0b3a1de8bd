"""Content codings are decoded however the body is split, never more than one piece at a time."""

import gzip
import sys
import tracemalloc
import zlib

import brotli
import pytest
import zstandard

from bridge.formats.codings import CodingError, Inflater, Inflating, inflate, inflater

PLAIN = bytes(range(256)) * 40 + b"data: {}\n\n" * 1000


def raw_deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()


CODED = {
    "gzip": gzip.compress(PLAIN),
    "gzip, two members": gzip.compress(PLAIN[:5000]) + gzip.compress(PLAIN[5000:]),
    "gzip, an empty member": gzip.compress(b"") + gzip.compress(PLAIN),
    "gzip, then zeros": gzip.compress(PLAIN) + bytes(99),
    "deflate": zlib.compress(PLAIN),
    "deflate, raw": raw_deflate(PLAIN),
    "deflate, stored": zlib.compress(PLAIN, level=0),
    "deflate, then garbage": zlib.compress(PLAIN) + b"garbage",
}


def pieces_of(decoder: Inflating, coded: bytes, step: int) -> list[bytes]:
    pieces = []
    for start in range(0, len(coded), step):
        decoder.feed(coded[start : start + step])
        while piece := decoder.take():
            pieces.append(piece)
    return pieces


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("step", [1, 2, 3, 7, 100, 1_000_000])
@pytest.mark.parametrize("piece_bytes", [1, 10, 1000, 1_000_000])
def test_any_split_gives_the_same_body_in_bounded_pieces(name: str, step: int, piece_bytes: int) -> None:
    decoder = Inflater(name.partition(",")[0], piece_bytes)
    pieces = pieces_of(decoder, CODED[name], step)
    assert b"".join(pieces) == PLAIN
    assert max(map(len, pieces)) <= piece_bytes
    assert decoder.is_complete


def test_flushed_data_is_returned_at_once() -> None:
    squeeze = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    decoder = Inflater("gzip")
    for event in (b"data: 1\n\n", b"data: 2\n\n"):
        decoder.feed(squeeze.compress(event) + squeeze.flush(zlib.Z_SYNC_FLUSH))
        assert decoder.take() == event
        assert decoder.take() == b""
        assert not decoder.is_complete


@pytest.mark.parametrize("name", ["gzip", "deflate", "deflate, raw", "deflate, stored"])
def test_a_body_is_complete_only_at_its_end(name: str) -> None:
    decoder = Inflater(name.partition(",")[0])
    assert decoder.is_complete
    pieces_of(decoder, CODED[name][:-1], 1_000_000)
    assert not decoder.is_complete


def test_a_bomb_takes_no_more_memory_than_a_piece() -> None:
    bomb = gzip.compress(bytes(200_000_000), compresslevel=9)
    decoder, size = Inflater("gzip"), 0
    tracemalloc.start()
    try:
        decoder.feed(bomb)
        while piece := decoder.take():
            size += len(piece)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert size == 200_000_000


@pytest.mark.parametrize(
    ("coding", "coded"), [("gzip", b"plain text"), ("deflate", b"\x78\x9cplain"), ("deflate", b"?")]
)
def test_a_body_with_a_false_coding_is_an_error(coding: str, coded: bytes) -> None:
    with pytest.raises(CodingError):
        pieces_of(Inflater(coding), coded, 1_000_000)


SHORT = b"data: {}\n\n" * 1000
OTHERS = {
    "br": brotli.compress(PLAIN),
    "zstd": zstandard.compress(PLAIN),
    "zstd, two frames": zstandard.compress(PLAIN[:5000]) + zstandard.compress(PLAIN[5000:]),
    "zstd, a frame to skip": b"\x50\x2a\x4d\x18\x02\x00\x00\x00no" + zstandard.compress(PLAIN),
    "zstd, an empty frame": zstandard.compress(b"") + zstandard.compress(PLAIN),
    "zstd, then garbage": zstandard.compress(PLAIN) + b"garbage",
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("step", [7, 100, 1_000_000])
def test_brotli_and_zstandard_are_decoded_with_any_split(name: str, step: int) -> None:
    decoder = inflater(name.partition(",")[0])
    assert b"".join(pieces_of(decoder, OTHERS[name], step)) == PLAIN
    assert decoder.is_complete


@pytest.mark.parametrize("name", ["br", "zstd"])
def test_a_truncated_body_is_not_complete(name: str) -> None:
    decoder = inflater(name)
    assert decoder.is_complete
    pieces_of(decoder, OTHERS[name][:-1], 1_000_000)
    assert not decoder.is_complete
    with pytest.raises(CodingError, match="ends in the middle"):
        list(inflate(OTHERS[name][:-1], name))


def bomb(coding: str) -> bytes:
    return brotli.compress(bytes(100_000_000)) if coding == "br" else zstandard.compress(bytes(100_000_000))


@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_a_bomb_of_any_coding_comes_in_pieces_of_a_megabyte_at_most(coding: str) -> None:
    coded = bomb(coding)
    sizes = [len(piece) for piece in inflate(coded, coding)]
    assert sum(sizes) == 100_000_000
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_body_without_its_coding_is_damaged(coding: str) -> None:
    with pytest.raises(CodingError):
        list(inflate(b'{"model":"plain"}', coding))


@pytest.mark.parametrize(("package", "coding"), [("brotli", "br"), ("zstandard", "zstd")])
def test_the_error_names_the_extra_that_is_missing(package: str, coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CodingError, match=r"universal-bridge\[codings\]"):
        inflater(coding)


def test_a_window_beyond_the_bound_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    squeeze = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(CodingError, match="window"):
        list(inflate(squeeze.compress(SHORT) + squeeze.flush(), "zstd"))
