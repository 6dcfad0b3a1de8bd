"""Ids that the bridge generates: UUIDv7."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from bridge.protocol.ids import uuid7

TIMES = st.integers(0, 2**48 - 1)
RANDOM_BITS = st.integers(0, 2**74 - 1)


def test_the_example_of_the_rfc_is_generated() -> None:
    """RFC 9562, appendix A.6."""
    random_bits = 0xCC3 << 62 | 0x18C4DC0C0C07398F
    assert uuid7(0x017F22E279B0, random_bits) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(unix_ms=TIMES, random_bits=RANDOM_BITS)
def test_an_id_contains_its_time_version_and_random_bits(unix_ms: int, random_bits: int) -> None:
    made = uuid.UUID(uuid7(unix_ms, random_bits))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == unix_ms
    assert ((made.int >> 64 & 0xFFF) << 62 | made.int & (1 << 62) - 1) == random_bits


@given(earlier=TIMES, later=TIMES, random_bits=RANDOM_BITS, other=RANDOM_BITS)
def test_later_ids_sort_after_earlier_ones(earlier: int, later: int, random_bits: int, other: int) -> None:
    if earlier < later:
        assert uuid7(earlier, random_bits) < uuid7(later, other)
