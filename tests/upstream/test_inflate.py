"""Content codings are undone however the body is cut, and never more than a piece at a time."""

import gzip
import tracemalloc
import zlib

import httpx
import pytest

from bridge.upstream.inflate import Inflater, inflater_for

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


def inflated(inflater: Inflater, coded: bytes, step: int) -> list[bytes]:
    pieces = []
    for start in range(0, len(coded), step):
        inflater.feed(coded[start : start + step])
        while piece := inflater.take():
            pieces.append(piece)
    return pieces


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("step", [1, 2, 3, 7, 100, 1_000_000])
@pytest.mark.parametrize("piece_bytes", [1, 10, 1000, 1_000_000])
def test_any_cut_gives_the_same_body_in_bounded_pieces(name: str, step: int, piece_bytes: int) -> None:
    inflater = Inflater(name.partition(",")[0], piece_bytes)
    pieces = inflated(inflater, CODED[name], step)
    assert b"".join(pieces) == PLAIN
    assert max(map(len, pieces)) <= piece_bytes
    assert inflater.whole


def test_what_was_flushed_is_given_at_once() -> None:
    squeeze = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    inflater = Inflater("gzip")
    for event in (b"data: 1\n\n", b"data: 2\n\n"):
        inflater.feed(squeeze.compress(event) + squeeze.flush(zlib.Z_SYNC_FLUSH))
        assert inflater.take() == event
        assert inflater.take() == b""
        assert not inflater.whole


@pytest.mark.parametrize("name", ["gzip", "deflate", "deflate, raw", "deflate, stored"])
def test_a_body_is_whole_only_at_its_end(name: str) -> None:
    inflater = Inflater(name.partition(",")[0])
    assert inflater.whole
    inflated(inflater, CODED[name][:-1], 1_000_000)
    assert not inflater.whole


def test_a_bomb_takes_no_more_memory_than_a_piece() -> None:
    bomb = gzip.compress(bytes(200_000_000), compresslevel=9)
    inflater, size = Inflater("gzip"), 0
    tracemalloc.start()
    try:
        inflater.feed(bomb)
        while piece := inflater.take():
            size += len(piece)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert size == 200_000_000


@pytest.mark.parametrize(
    ("coding", "coded"), [("gzip", b"plain text"), ("deflate", b"\x78\x9cplain"), ("deflate", b"?")]
)
def test_what_is_not_coded_as_it_says_is_an_error(coding: str, coded: bytes) -> None:
    with pytest.raises(zlib.error):
        inflated(Inflater(coding), coded, 1_000_000)


@pytest.mark.parametrize("header", ["", "identity", "Identity, ", " identity , identity"])
def test_nothing_is_undone_where_nothing_was_done(header: str) -> None:
    assert inflater_for(header) is None


@pytest.mark.parametrize("header", ["gzip", "GZip", "x-gzip", "deflate", "identity, gzip"])
def test_gzip_and_deflate_are_undone(header: str) -> None:
    assert isinstance(inflater_for(header), Inflater)


@pytest.mark.parametrize("header", ["br", "zstd", "compress", "gzip, gzip", "deflate, br", "aes128gcm"])
def test_any_other_coding_is_named_in_the_error(header: str) -> None:
    with pytest.raises(httpx.DecodingError, match=header):
        inflater_for(header)
