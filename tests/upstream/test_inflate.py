"""The content coding of an answer is undone by its header, or by its first bytes, while the body is delivered."""

import gzip
import random

import httpx
import pytest
import zstandard

from bridge.formats.codings import PIECE_BYTES, BrotliInflater, Inflater, ZstdInflater
from bridge.upstream.inflate import InflatedBody, UnlabelledBody, inflater_for, plain_body
from tests.support.clock import run_until_idle, turns
from tests.support.memory_network import Peer
from tests.support.receivers import Collector

CODED = gzip.compress(b"plain" * 99)


@pytest.mark.parametrize("header", ["", "identity", "Identity, ", " identity , identity"])
def test_nothing_is_undone_where_nothing_was_done(header: str) -> None:
    assert inflater_for(header) is None


@pytest.mark.parametrize("header", ["gzip", "GZip", "x-gzip", "deflate", "identity, gzip"])
def test_gzip_and_deflate_are_undone(header: str) -> None:
    assert isinstance(inflater_for(header), Inflater)


@pytest.mark.parametrize(("header", "kind"), [("br", BrotliInflater), ("zstd", ZstdInflater)])
def test_brotli_and_zstandard_are_undone(header: str, kind: type) -> None:
    assert isinstance(inflater_for(header), kind)


@pytest.mark.parametrize("header", ["compress", "gzip, gzip", "deflate, br", "aes128gcm"])
def test_any_other_coding_is_named_in_the_error(header: str) -> None:
    with pytest.raises(httpx.DecodingError, match=header):
        inflater_for(header)


class Coded:
    """The body of a response that ends when the connection is closed."""

    def __init__(self) -> None:
        self._peer = Peer()
        self.body = self._peer.request()
        self.arrive(b"HTTP/1.1 200 OK\r\n\r\n")

    def arrive(self, *reads: bytes) -> None:
        self._peer.arrive(*(read for read in reads if read))

    def finish(self) -> None:
        self._peer.lose()

    def cut(self) -> None:
        self._peer.lose(ConnectionResetError())

    @property
    def is_closed(self) -> bool:
        return self._peer.transport.is_closing()


@pytest.fixture
async def coded() -> Coded:
    return Coded()


@pytest.fixture
def inflated(coded: Coded) -> InflatedBody:
    decoder = inflater_for("gzip")
    assert decoder is not None
    return InflatedBody(coded.body, decoder)


# Declared codings


async def test_a_small_body_is_delivered_within_the_call(coded: Coded, inflated: InflatedBody) -> None:
    received = Collector(inflated).start()
    coded.arrive(CODED)
    coded.finish()
    assert (received.outcome, inflated.ended) == ((b"plain" * 99, True, None), True)


async def test_each_turn_of_the_loop_delivers_one_piece(coded: Coded, inflated: InflatedBody) -> None:
    received = Collector(inflated).start()
    coded.arrive(gzip.compress(bytes(1_000_000)))
    coded.finish()
    seen = []
    for _ in range(4):
        seen.append(len(received.text))
        await turns(1)
    assert seen == [PIECE_BYTES * count for count in (1, 2, 3, 4)]
    await run_until_idle()
    assert (len(received.text), received.is_ended, max(map(len, received.reads))) == (1_000_000, True, PIECE_BYTES)


async def test_pieces_of_zstd_are_cut_and_joined(coded: Coded) -> None:
    decoder = inflater_for("zstd")
    assert decoder is not None
    received = Collector(InflatedBody(coded.body, decoder)).start()
    plain = bytes(3_000_000) + random.Random(1).randbytes(300_000)
    compressed = zstandard.ZstdCompressor().compress(plain)
    for start in range(0, len(compressed), 100_000):
        coded.arrive(compressed[start : start + 100_000])
    coded.finish()
    await run_until_idle()
    assert (received.text == plain, received.is_ended) == (True, True)
    assert max(map(len, received.reads)) <= PIECE_BYTES
    assert len(received.reads) < 3_300_000 / 20_000


async def test_a_pause_from_inside_holds_the_next_piece_and_the_end(coded: Coded, inflated: InflatedBody) -> None:
    received = Collector(inflated, Collector.pause).start()
    coded.arrive(gzip.compress(bytes(2 * PIECE_BYTES)))
    coded.finish()
    await run_until_idle()
    assert len(received.text) == PIECE_BYTES
    received.resume()
    await run_until_idle()
    assert (len(received.text), received.is_ended) == (2 * PIECE_BYTES, False)
    received.resume()
    await run_until_idle()
    assert received.is_ended


async def test_resuming_from_inside_delivers_no_second_piece_in_the_same_turn(
    coded: Coded, inflated: InflatedBody
) -> None:
    received = Collector(inflated, Collector.pause_and_resume).start()
    coded.arrive(gzip.compress(bytes(3 * PIECE_BYTES)))
    assert len(received.text) == PIECE_BYTES
    coded.finish()
    await run_until_idle()
    assert (len(received.text), received.is_ended) == (3 * PIECE_BYTES, True)


async def test_a_body_closed_between_two_pieces_delivers_nothing_more(coded: Coded, inflated: InflatedBody) -> None:
    received = Collector(inflated).start()
    coded.arrive(gzip.compress(bytes(1_000_000)))
    await received.aclose()
    await run_until_idle()
    assert (len(received.text), coded.is_closed) == (PIECE_BYTES, True)


async def test_what_is_decoded_before_damage_is_delivered_before_the_failure(
    coded: Coded, inflated: InflatedBody
) -> None:
    received = Collector(inflated).start()
    coded.arrive(gzip.compress(bytes(4 * PIECE_BYTES))[:-8] + b"damaged!")
    await run_until_idle()
    assert len(received.text) >= 3 * PIECE_BYTES
    assert isinstance(received.error, httpx.DecodingError)


async def test_a_truncated_body_fails_after_its_bytes(coded: Coded, inflated: InflatedBody) -> None:
    received = Collector(inflated).start()
    coded.arrive(CODED[:-8])
    coded.finish()
    assert received.text == b"plain" * 99
    assert isinstance(received.error, httpx.ReadError)


async def test_a_failure_of_the_source_comes_after_the_pieces_before_it(coded: Coded, inflated: InflatedBody) -> None:
    received = Collector(inflated).start()
    coded.arrive(gzip.compress(bytes(1_000_000)))
    coded.cut()
    await run_until_idle()
    assert (len(received.text), str(received.error)) == (1_000_000, "host:80 broke off its answer")


# Undeclared codings


@pytest.mark.parametrize("first", [b"{", b"data: x", b"\x00"])
def test_a_body_whose_known_beginning_shows_no_coding_is_left_alone(coded: Coded, first: bytes) -> None:
    assert plain_body(coded.body, first) is coded.body


@pytest.mark.parametrize("first", [b"", b"\x1f", CODED])
def test_a_body_whose_beginning_is_not_certain_is_examined(coded: Coded, first: bytes) -> None:
    assert isinstance(plain_body(coded.body, first), UnlabelledBody)


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    ("wire", "plain"),
    [
        (CODED, b"plain" * 99),
        (gzip.compress(b""), b""),
        (b"{}", b"{}"),
        (b"\x1f\x8b", b"\x1f\x8b"),
        (b"\x1f\x8b\x08 and something else", b"\x1f\x8b\x08 and something else"),
        (b"\x28\xb5\x2f\xfd\xff\xff\xff\xff", b"\x28\xb5\x2f\xfd\xff\xff\xff\xff"),
        (b"", b""),
    ],
)
@pytest.mark.parametrize("pausing", [None, Collector.pause_and_resume])
async def test_a_body_is_decoded_if_it_can_be_and_else_passed_on(
    coded: Coded, size: int, wire: bytes, plain: bytes, pausing: None
) -> None:
    body = UnlabelledBody(coded.body)
    received = Collector(body, pausing).start()
    coded.arrive(*[wire[start : start + size] for start in range(0, len(wire), size)])
    coded.finish()
    await run_until_idle()
    assert (received.outcome, body.ended) == ((plain, True, None), True)


async def test_a_pause_holds_the_end_of_a_body_that_was_passed_on_at_its_end(coded: Coded) -> None:
    body = UnlabelledBody(coded.body)
    received = Collector(body, Collector.pause).start()
    coded.arrive(b"\x1f")
    coded.finish()
    assert received.outcome == (b"\x1f", False, None)
    received.resume()
    assert received.outcome == (b"\x1f", True, None)


async def test_a_body_that_breaks_before_its_coding_is_known_fails(coded: Coded) -> None:
    received = Collector(UnlabelledBody(coded.body)).start()
    coded.arrive(b"\x1f")
    coded.cut()
    assert received.outcome == (b"", False, "host:80 broke off its answer")
