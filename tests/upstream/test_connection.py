"""One connection: delivery, pauses, uploads and closing, without a socket."""

import gc
import weakref

import httpx
import pytest

from bridge.upstream.connection import HELD_BYTES, TURN_BYTES, WRITE_BYTES, PushedAnswer
from tests.support.clock import run_until_idle, turns
from tests.support.memory_network import Peer
from tests.support.receivers import Collector

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
async def peer() -> Peer:
    return Peer()


def error_of(answer: PushedAnswer) -> httpx.RequestError | None:
    return answer.opened.result()


# Delivery


async def test_a_whole_answer_in_one_read_is_delivered_within_the_call(peer: Peer) -> None:
    answer = peer.request()
    peer.arrive(OK)
    assert error_of(answer) is None
    assert not answer.ended
    received = Collector(answer).start()
    assert (received.outcome, answer.ended, peer.is_kept) == ((b"ok", True, None), True, True)


async def test_a_body_without_bytes_has_ended_with_its_head(peer: Peer) -> None:
    answer = peer.request()
    peer.arrive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert answer.ended
    assert Collector(answer).start().outcome == (b"", True, None)


async def test_each_read_is_one_call_of_the_receiver(peer: Peer) -> None:
    answer = peer.request()
    peer.arrive(CHUNKED + b"1\r\na\r\n1\r\nb\r\n")
    received = Collector(answer).start()
    peer.arrive(b"1\r\nc\r\n1\r\nd\r\n", b"2\r\n", b"ef\r\n0\r\n\r\n")
    assert received.reads == [b"ab", b"cd", b"ef"]
    assert received.is_ended


async def test_the_last_bytes_are_known_to_be_the_last_when_they_are_delivered(peer: Peer) -> None:
    ended: list[bool] = []
    answer = peer.request()
    peer.arrive(CHUNKED + b"1\r\na\r\n")
    Collector(answer, lambda _: ended.append(answer.ended)).start()
    peer.arrive(b"1\r\nb\r\n0\r\n\r\n")
    assert ended == [False, True]


async def test_a_receiver_that_comes_after_the_end_gets_the_end(peer: Peer) -> None:
    answer = peer.request()
    peer.arrive(OK)
    Collector(answer).start()
    assert Collector(answer).start().outcome == (b"", True, None)


async def test_a_receiver_may_hand_over_to_another_from_inside(peer: Peer) -> None:
    answer = peer.request()
    peer.arrive(CHUNKED + b"1\r\na\r\n")
    second = Collector(answer)
    first = Collector(answer, lambda _: answer.deliver(second)).start()
    peer.arrive(b"1\r\nb\r\n0\r\n\r\n")
    assert (first.outcome, second.outcome) == ((b"a", False, None), (b"b", True, None))


async def test_a_connection_is_free_before_the_end_is_delivered(peer: Peer) -> None:
    """The receiver of an end may begin the next request at once."""
    answer = peer.request()
    peer.arrive(CHUNKED + b"1\r\na\r\n")
    kept: list[bool] = []
    Collector(answer, lambda _: kept.append(peer.is_kept)).start()
    peer.arrive(b"1\r\nb\r\n0\r\n\r\n")
    assert kept == [False, True]


# Pauses


async def test_a_paused_connection_reads_on_until_64_kib_are_held(peer: Peer) -> None:
    answer = peer.request()
    peer.arrive(LONG)
    received = Collector(answer).start()
    received.pause()
    peer.arrive(bytes(HELD_BYTES // 2))
    assert not peer.transport.is_reading_paused
    peer.arrive(bytes(HELD_BYTES // 2))
    assert peer.transport.is_reading_paused
    received.resume()
    assert not peer.transport.is_reading_paused
    assert len(received.text) == HELD_BYTES


async def test_other_callbacks_run_after_a_long_read(peer: Peer) -> None:
    """Libuv would repeat reads that fill its buffer within one iteration of the loop."""
    answer = peer.request()
    peer.arrive(LONG)
    received = Collector(answer).start()
    peer.arrive(bytes(TURN_BYTES))
    assert (len(received.text), peer.transport.is_reading_paused) == (TURN_BYTES, True)
    await run_until_idle()
    assert not peer.transport.is_reading_paused
    received.pause()
    peer.arrive(bytes(TURN_BYTES))
    await run_until_idle()
    assert peer.transport.is_reading_paused, "the bytes still wait"


async def test_many_small_reads_count_more_than_their_bytes(peer: Peer) -> None:
    answer = peer.request()
    peer.arrive(LONG)
    Collector(answer).start().pause()
    for _ in range(100):
        if peer.transport.is_reading_paused:
            break
        peer.arrive(b"x")
    assert peer.transport.is_reading_paused


async def test_a_body_that_nobody_receives_yet_is_held_within_the_same_bound(peer: Peer) -> None:
    answer = peer.request()
    peer.arrive(LONG, bytes(HELD_BYTES))
    assert peer.transport.is_reading_paused
    received = Collector(answer).start()
    assert (len(received.text), peer.transport.is_reading_paused) == (HELD_BYTES, False)


async def test_a_pause_from_inside_holds_the_rest_and_the_end(peer: Peer) -> None:
    answer = peer.request()
    received = Collector(answer, Collector.pause)
    peer.arrive(CHUNKED + b"1\r\na\r\n")
    received.start()
    peer.arrive(b"1\r\nb\r\n", b"1\r\nc\r\n0\r\n\r\n")
    steps = [received.outcome]
    for _ in range(3):
        received.resume()
        steps.append(received.outcome)
    assert steps == [(b"a", False, None), (b"ab", False, None), (b"abc", False, None), (b"abc", True, None)]
    assert peer.is_kept


async def test_pausing_and_resuming_from_inside_changes_nothing(peer: Peer) -> None:
    answer = peer.request()
    received = Collector(answer, Collector.pause_and_resume).start()
    peer.arrive(CHUNKED, b"1\r\na\r\n", b"1\r\nb\r\n0\r\n\r\n")
    assert (received.reads, received.is_ended) == ([b"a", b"b"], True)


async def test_a_loss_while_paused_is_reported_after_the_bytes_before_it(peer: Peer) -> None:
    answer = peer.request()
    peer.arrive(CHUNKED)
    received = Collector(answer).start()
    received.pause()
    peer.arrive(b"1\r\na\r\n")
    peer.lose(ConnectionResetError())
    received.resume()
    assert received.outcome == (b"a", False, "host:80 broke off its answer")


async def test_a_body_that_is_closed_while_paused_calls_nobody(peer: Peer) -> None:
    answer = peer.request()
    peer.arrive(CHUNKED)
    received = Collector(answer).start()
    received.pause()
    peer.arrive(b"1\r\na\r\n")
    await received.aclose()
    answer.resume()
    assert (received.outcome, peer.transport.is_closing(), answer.ended) == ((b"", False, None), True, False)
    answer.deliver(received)
    await run_until_idle()
    assert received.outcome == (b"", False, None)


async def test_a_body_may_be_closed_from_inside(peer: Peer) -> None:
    answer = peer.request()
    received = Collector(answer, lambda _: answer.close()).start()
    peer.arrive(CHUNKED + b"1\r\na\r\n")
    peer.arrive(b"1\r\nb\r\n")
    assert (received.outcome, peer.transport.is_closing()) == ((b"a", False, None), True)


async def test_closing_a_complete_body_leaves_the_connection_to_the_next(peer: Peer) -> None:
    first = peer.request()
    peer.arrive(OK)
    second = peer.request()
    first.close()
    peer.arrive(OK)
    assert Collector(second).start().outcome == (b"ok", True, None)


# Ends


@pytest.mark.parametrize(
    ("error", "outcome"), [(None, (b"a", True, None)), (OSError(), (b"a", False, "host:80 broke off its answer"))]
)
async def test_a_body_without_length_ends_with_a_close_but_not_with_a_reset(
    peer: Peer, error: Exception | None, outcome: tuple[bytes, bool, str | None]
) -> None:
    answer = peer.request()
    peer.arrive(UNTIL_CLOSE)
    received = Collector(answer).start()
    peer.arrive(b"a")
    peer.lose(error)
    assert received.outcome == outcome


@pytest.mark.parametrize("reads", [[CHUNKED + b"3\r\nabc\r\nzz\r\n"], [CHUNKED + b"3\r\nab", b"c\r\nzz\r\n"]])
async def test_the_bytes_before_a_broken_chunk_are_delivered(peer: Peer, reads: list[bytes]) -> None:
    answer = peer.request()
    received = Collector(answer).start()
    peer.arrive(*reads)
    assert received.outcome == (b"abc", False, "host:80 broke off its answer")
    assert peer.transport.is_closing()


async def test_garbage_after_the_body_in_the_read_of_the_head_spoils_the_answer(peer: Peer) -> None:
    answer = peer.request()
    peer.arrive(OK + b"and more")
    assert isinstance(error_of(answer), httpx.RemoteProtocolError)
    assert peer.transport.is_closing()


async def test_garbage_after_the_body_in_a_later_read_spoils_the_connection_only(peer: Peer) -> None:
    answer = peer.request()
    received = Collector(answer).start()
    peer.arrive(OK[:-1], OK[-1:] + b"and more")
    assert (received.outcome, peer.is_kept) == ((b"ok", True, None), False)


async def test_bytes_on_an_idle_connection_close_it(peer: Peer) -> None:
    peer.request()
    peer.arrive(OK)
    peer.arrive(b"HTTP/1.1 408 Request Timeout\r\n")
    assert not peer.connection.is_usable


@pytest.mark.parametrize(
    ("is_reused", "reads", "is_stale"),
    [(True, [], True), (False, [], False), (True, [b"H"], False), (True, [b"HTTP/1.1 100 Continue\r\n\r\n"], False)],
)
async def test_a_connection_is_stale_if_it_was_used_before_and_gave_no_byte(
    peer: Peer, is_reused: bool, reads: list[bytes], is_stale: bool
) -> None:
    peer.connection.is_reused = is_reused
    answer = peer.request()
    peer.arrive(*reads)
    peer.lose()
    assert (answer.is_stale, type(error_of(answer))) == (is_stale, httpx.ReadError)


async def test_a_request_on_a_connection_that_was_lost_at_once_fails(peer: Peer) -> None:
    peer.lose(ConnectionResetError(104, "reset"))
    assert str(error_of(peer.request())) == "the connection to host:80 was lost: connection reset by peer"


async def test_a_receiver_that_fails_breaks_its_own_body_only(peer: Peer) -> None:
    def fail(_: Collector) -> None:
        raise RuntimeError

    answer = peer.request()
    Collector(answer, fail).start()
    with pytest.raises(RuntimeError):
        peer.arrive(CHUNKED + b"1\r\na\r\n")
    late = Collector(answer).start()
    peer.lose(RuntimeError())
    assert late.outcome == (b"", False, "host:80 broke off its answer")


# Uploads


async def test_a_short_body_is_written_together_with_the_head(peer: Peer) -> None:
    peer.request(b"x" * WRITE_BYTES)
    assert peer.transport.writes == [19 + WRITE_BYTES]


async def test_a_long_body_is_written_in_slices_and_no_further_than_the_transport_takes(peer: Peer) -> None:
    peer.transport.after_write = lambda: len(peer.transport.writes) == 3 and peer.connection.pause_writing()
    peer.request(b"x" * (4 * WRITE_BYTES + 1))
    assert peer.transport.writes == [19, WRITE_BYTES, WRITE_BYTES]
    await turns()
    assert len(peer.transport.writes) == 3
    peer.connection.resume_writing()
    assert peer.transport.writes == [19, *[WRITE_BYTES] * 4, 1]


async def test_a_long_body_leaves_the_loop_its_turns(peer: Peer) -> None:
    peer.request(bytes(100 * WRITE_BYTES))
    assert len(peer.transport.writes) < 20
    await run_until_idle()
    assert sum(peer.transport.writes) == 19 + 100 * WRITE_BYTES


@pytest.mark.parametrize("left", ["in our hands", "in the transport"])
async def test_a_connection_with_an_unfinished_upload_is_not_kept(peer: Peer, left: str) -> None:
    if left == "in our hands":
        peer.connection.pause_writing()
    else:
        peer.transport.write_buffer_bytes = 1
    answer = peer.request(bytes(2 * WRITE_BYTES))
    peer.arrive(OK)
    assert Collector(answer).start().outcome == (b"ok", True, None)
    assert (peer.is_kept, peer.transport.is_closing()) == (False, True)
    peer.connection.resume_writing()
    assert sum(peer.transport.writes) <= 19 + 2 * WRITE_BYTES


# Memory


async def test_a_closed_connection_is_freed_without_the_garbage_collector() -> None:
    peer = Peer()
    answer = peer.request()
    peer.arrive(CHUNKED + b"1\r\na\r\n")
    answer.close()
    await run_until_idle()
    peer.owner.forgotten.clear()
    connection, body = weakref.ref(peer.connection), weakref.ref(answer)
    gc.disable()
    try:
        del peer, answer
        assert (connection(), body()) == (None, None)
    finally:
        gc.enable()
