"""Long messages that arrive at the same time while memory is scarce."""

from bridge.errors import OutOfMemoryBudget
from bridge.relay.arrivals import Arrivals
from bridge.relay.memory import MemoryBudget, MemoryReservation


class Sender:
    def __init__(self, arrivals: Arrivals, memory: MemoryBudget) -> None:
        self._arrivals = arrivals
        self.reservation = MemoryReservation(MemoryBudget(1 << 30, "this socket", memory))
        self.refused = False

    def send(self, size: int) -> None:
        self._arrivals.begin(self, self._refuse)
        self._arrivals.add(self, self.reservation, size)

    def _refuse(self, error: OutOfMemoryBudget) -> None:
        assert error.code == 9008
        self.refused = True
        self.reservation.release_all()


def test_the_oldest_messages_complete_when_memory_fits_only_some() -> None:
    arrivals, memory = Arrivals(), MemoryBudget(250, "the bridge")
    senders = [Sender(arrivals, memory) for _ in range(12)]
    for _ in range(60):
        for sender in senders:
            if not sender.refused:
                sender.send(1)
    assert [sender.refused for sender in senders] == [False] * 4 + [True] * 8
    assert memory.used == 240


def test_memory_of_other_owners_is_not_released() -> None:
    arrivals, memory = Arrivals(), MemoryBudget(100, "the bridge")
    memory.acquire(90)
    one = Sender(arrivals, memory)
    one.send(10)
    assert not one.refused
    one.send(1)
    assert one.refused
    assert memory.used == 90


def test_a_completed_message_is_not_refused() -> None:
    arrivals, memory = Arrivals(), MemoryBudget(100, "the bridge")
    one, other = Sender(arrivals, memory), Sender(arrivals, memory)
    one.send(50)
    other.send(40)
    arrivals.end(other)
    one.send(20)
    assert (one.refused, other.refused) == (True, False)
    assert memory.used == 40


def test_the_next_message_of_a_sender_counts_as_the_newest() -> None:
    arrivals, memory = Arrivals(), MemoryBudget(100, "the bridge")
    one, other = Sender(arrivals, memory), Sender(arrivals, memory)
    one.send(10)
    other.send(50)
    arrivals.end(one)
    one.reservation.release_all()
    one.send(30)
    other.send(30)
    assert (one.refused, other.refused) == (True, False)
