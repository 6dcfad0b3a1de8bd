"""Progress of a connection, measured by a counter."""

from bridge.server.progress import Progress


def test_the_instant_of_the_last_growth_is_recorded() -> None:
    progress = Progress(10.0)
    assert progress.update(11.0, 5)
    assert progress.grew_at == 11.0


def test_a_counter_that_stays_or_falls_is_no_progress() -> None:
    progress = Progress(10.0, 5)
    assert not progress.update(11.0, 5)
    assert not progress.update(12.0, 4)
    assert not progress.update(13.0, 5)
    assert progress.grew_at == 10.0
