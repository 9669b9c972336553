from __future__ import annotations

from holdfast_gateway.fairness.pace import Pace


def test_the_wait_is_reckoned_from_how_the_queue_moves() -> None:
    pace = Pace()
    pace.start(0)
    for second in range(2, 22, 2):
        pace.let_in(second)
    assert pace.seconds(5, 20, usual=99) == 10
    assert pace.seconds(5, 21, usual=99) == 9


def test_before_the_queue_has_told_the_usual_time_counts() -> None:
    pace = Pace()
    assert pace.seconds(3, 100, usual=2) == 6
    pace.start(100)
    assert pace.seconds(3, 101, usual=2) == 5
    assert pace.seconds(3, 101, usual=0) < 2  # nothing is known: nobody is refused for it


def test_a_queue_that_stands_still_is_believed() -> None:
    pace = Pace()
    pace.start(0)
    for second in range(1, 11):
        pace.let_in(second)
    assert pace.seconds(4, 10, usual=0) == 4
    assert pace.seconds(4, 70, usual=0) >= 60


def test_an_earlier_queue_does_not_count() -> None:
    pace = Pace()
    pace.start(0)
    pace.let_in(500)
    pace.stop()
    pace.start(1000)
    assert pace.seconds(1, 1000, usual=0.5) == 0.5
