"""The names that the bridge gives: UUIDv7."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from bridge.protocol.ids import uuid7

TIMES = st.integers(0, 2**48 - 1)
CHANCES = st.integers(0, 2**74 - 1)


def test_it_is_the_example_of_the_rfc() -> None:
    """RFC 9562, appendix A.6."""
    chance = 0xCC3 << 62 | 0x18C4DC0C0C07398F
    assert uuid7(0x017F22E279B0, chance) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(unix_ms=TIMES, chance=CHANCES)
def test_it_holds_its_time_its_version_and_all_of_its_chance(unix_ms: int, chance: int) -> None:
    made = uuid.UUID(uuid7(unix_ms, chance))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == unix_ms
    assert ((made.int >> 64 & 0xFFF) << 62 | made.int & (1 << 62) - 1) == chance


@given(earlier=TIMES, later=TIMES, chance=CHANCES, other=CHANCES)
def test_later_ones_sort_behind_earlier_ones(earlier: int, later: int, chance: int, other: int) -> None:
    if earlier < later:
        assert uuid7(earlier, chance) < uuid7(later, other)
