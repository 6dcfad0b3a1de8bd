"""Test which rows are deleted from a full gateway, and which new rows are admitted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.services.request_log.shares import Cut, RowQuota, Share, cut

ONE, TWO, THREE = (Share("gateway", False, token) for token in ("one", "two", "three"))
FREE_ONE, FREE_TWO = (Share("gateway", True, token) for token in ("one", "two"))

CUTS = {
    "there is room": ({ONE: 100}, None),
    "one token alone may fill it": ({ONE: 105}, Cut((ONE,), 5)),
    "a token that has more than half gives up its own": ({ONE: 90, TWO: 15}, Cut((ONE,), 5)),
    "but no more than down to half": ({ONE: 52, TWO: 58}, Cut((TWO,), 8)),
    "with half or less for each, the oldest of all go": ({ONE: 50, TWO: 30, THREE: 25}, Cut((ONE, TWO, THREE), 5)),
    "refused events may fill what nobody needs": ({FREE_ONE: 100}, None),
    "refused events give up their own first": ({ONE: 50, TWO: 40, FREE_ONE: 30}, Cut((FREE_ONE,), 20)),
    "but no more than down to a tenth": ({ONE: 60, TWO: 60, FREE_ONE: 11}, Cut((FREE_ONE,), 1)),
    "a tenth of refused events is theirs": ({ONE: 95, FREE_ONE: 10}, Cut((ONE,), 5)),
    "of refused events too no token has more than half": (
        {ONE: 80, FREE_ONE: 30, FREE_TWO: 2},
        Cut((FREE_ONE,), 12),
    ),
}


@pytest.mark.parametrize(("counts", "expected"), CUTS.values(), ids=CUTS)
def test_rows_are_cut_from_the_largest_share(counts: dict[Share, int], expected: Cut | None) -> None:
    assert cut(counts, 100, 500) == expected


def test_a_cut_is_bounded() -> None:
    assert cut({ONE: 10_000}, 100, 500) == Cut((ONE,), 500)


@given(
    st.dictionaries(st.sampled_from([ONE, TWO, THREE, FREE_ONE, FREE_TWO]), st.integers(1, 300), min_size=1),
    st.integers(1, 200),
)
def test_repeated_cuts_reach_the_bound_and_keep_each_share(counts: dict[Share, int], most: int) -> None:
    before = dict(counts)
    while (wanted := cut(counts, most, 7)) is not None:
        assert 0 < wanted.rows <= 7
        left = wanted.rows
        for share in wanted.shares:  # any of them may have the oldest
            rows_added = min(left, counts[share])
            counts[share] -= rows_added
            left -= rows_added
        counts = {share: rows for share, rows in counts.items() if rows}
    assert sum(counts.values()) <= most
    refused = sum(rows for share, rows in before.items() if share.refused)
    left_of_refused = sum(rows for share, rows in counts.items() if share.refused)
    assert left_of_refused >= min(refused, max(most // 10, 1), most) or sum(before.values()) <= most


def rows_added(room: RowQuota, *shares: Share) -> int:
    return sum(room.add(share) for share in shares)


def test_a_single_token_can_fill_a_log_that_stops() -> None:
    assert rows_added(RowQuota({ONE: 40}, 100, is_shared=False), *[ONE] * 100) == 60


def test_no_token_fills_more_than_half_of_a_shared_log_that_stops() -> None:
    room = RowQuota({ONE: 40}, 100, is_shared=True)
    assert rows_added(room, *[ONE] * 100) == 10
    assert rows_added(room, *[TWO] * 100) == 50


def test_refused_events_fill_a_tenth_of_a_log_that_stops() -> None:
    room = RowQuota({FREE_ONE: 4}, 100, is_shared=False)
    assert rows_added(room, *[FREE_ONE] * 100) == 6
    assert rows_added(room, *[ONE] * 100) == 90
