"""Long messages on their way in, while there is not enough memory for all of them."""

from bridge.errors import OutOfMemoryBudget
from bridge.relay.arrivals import Arrivals
from bridge.relay.memory import MemoryBudget, MemoryReservation


class Sender:
    def __init__(self, arrivals: Arrivals, memory: MemoryBudget) -> None:
        self._arrivals = arrivals
        self.reservation = MemoryReservation(MemoryBudget(1 << 30, "this socket", memory))
        self.refused = False

    def sends(self, size: int) -> None:
        self._arrivals.begin(self, self._refuse)
        self._arrivals.add(self, self.reservation, size)

    def _refuse(self, error: OutOfMemoryBudget) -> None:
        assert error.code == 9008
        self.refused = True
        self.reservation.release_all()


def test_of_twelve_that_come_at_once_with_room_for_four_the_first_four_come_to_their_end() -> None:
    arrivals, memory = Arrivals(), MemoryBudget(250, "the bridge")
    senders = [Sender(arrivals, memory) for _ in range(12)]
    for _ in range(60):
        for sender in senders:
            if not sender.refused:
                sender.sends(1)
    assert [sender.refused for sender in senders] == [False] * 4 + [True] * 8
    assert memory.used == 240


def test_what_others_hold_is_not_taken_from_them() -> None:
    arrivals, memory = Arrivals(), MemoryBudget(100, "the bridge")
    memory.acquire(90)
    one = Sender(arrivals, memory)
    one.sends(10)
    assert not one.refused
    one.sends(1)
    assert one.refused
    assert memory.used == 90


def test_one_that_has_come_to_its_end_is_refused_no_more() -> None:
    arrivals, memory = Arrivals(), MemoryBudget(100, "the bridge")
    one, other = Sender(arrivals, memory), Sender(arrivals, memory)
    one.sends(50)
    other.sends(40)
    arrivals.end(other)
    one.sends(20)
    assert (one.refused, other.refused) == (True, False)
    assert memory.used == 40


def test_a_new_message_of_the_same_sender_is_a_newer_one() -> None:
    arrivals, memory = Arrivals(), MemoryBudget(100, "the bridge")
    one, other = Sender(arrivals, memory), Sender(arrivals, memory)
    one.sends(10)
    other.sends(50)
    arrivals.end(one)
    one.reservation.release_all()
    one.sends(30)
    other.sends(30)
    assert (one.refused, other.refused) == (True, False)
