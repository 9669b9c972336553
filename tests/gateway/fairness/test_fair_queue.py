from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from holdfast_gateway.fairness.fair_queue import FairQueue

TEAMS = ("a", "b", "c")


def drained(queue: FairQueue[tuple[str, int]]) -> list[str]:
    return [queue.pop()[0] for _ in range(len(queue)) if queue.peek() is not None]


def filled(counts: dict[str, int], weights: dict[str, float], cost: float = 10) -> FairQueue:  # type: ignore[type-arg]  # items differ by test
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for team, count in counts.items():
        for number in range(count):
            queue.push(team, weights.get(team, 1), cost, (team, number))
    return queue


def test_a_flood_does_not_come_before_what_another_team_asks_for_later() -> None:
    queue = filled({"a": 100}, {})
    for _ in range(10):
        queue.pop()
    queue.push("b", 1, 10, ("b", 0))
    assert queue.turns_before("c", 1) == 3  # a, b and c by turns
    assert "b" in drained(queue)[:2]


@given(st.lists(st.floats(min_value=0.5, max_value=8), min_size=2, max_size=3))
def test_teams_that_always_wait_get_what_their_weights_say(shares: list[float]) -> None:
    weights = dict(zip(TEAMS, shares, strict=False))
    queue = filled(dict.fromkeys(weights, 400), weights)
    served: Counter[str] = Counter(queue.pop()[0] for _ in range(300))
    for team, weight in weights.items():
        expected = 300 * weight / sum(weights.values())
        assert abs(served[team] - expected) <= 1 + weight / min(weights.values())


def test_costs_count_and_not_requests() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number in range(90):
        queue.push("long", 1, 1000, ("long", number))
        queue.push("short", 1, 100, ("short", number))
    served = Counter(queue.pop()[0] for _ in range(44))
    assert served == {"short": 40, "long": 4}


def test_a_team_saves_up_nothing_while_it_asks_for_nothing() -> None:
    queue = filled({"a": 1000}, {})
    for _ in range(900):
        queue.pop()
    for number in range(100):
        queue.push("b", 1, 10, ("b", number))
    served = Counter(queue.pop()[0] for _ in range(100))
    assert abs(served["a"] - served["b"]) <= 1


def test_what_was_given_past_the_queue_counts() -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for _ in range(5):
        queue.charge("a", 1, 100)
    for number in range(5):
        queue.push("a", 1, 100, ("a", number))
        queue.push("b", 1, 100, ("b", number))
    assert queue.pop()[0] == "b"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["push", "pop", "remove", "park", "unpark"]),
            st.sampled_from(TEAMS),
            st.integers(1, 100),
        ),
        max_size=80,
    )
)
def test_nothing_is_lost_or_given_twice(steps: list[tuple[str, str, int]]) -> None:
    queue: FairQueue[int] = FairQueue()
    waiting: dict[str, list[int]] = {team: [] for team in TEAMS}
    parked: set[str] = set()
    for number, (step, team, cost) in enumerate(steps):
        if step == "push":
            queue.push(team, 1, cost, number)
            waiting[team].append(number)
        elif step == "remove" and waiting[team]:
            queue.remove(team, waiting[team].pop(cost % len(waiting[team])))
        elif step == "park" and waiting[team] and team not in parked:
            queue.park(team)
            parked.add(team)
        elif step == "unpark":
            queue.unpark(team)
            parked.discard(team)
        elif step == "pop":
            found = queue.peek()
            open_ones = [name for name in TEAMS if waiting[name] and name not in parked]
            assert (found is None) == (not open_ones)
            if found is not None:
                assert found[0] in open_ones
                assert queue.pop() == found[1] == waiting[found[0]].pop(0)
        assert len(queue) == sum(map(len, waiting.values()))
        contending = sum(1 for name in TEAMS if waiting[name] and name not in parked)
        assert queue.turns_before("nobody", 1) <= contending + 1
    for team in TEAMS:
        queue.unpark(team)
    left = []
    while queue.peek() is not None:
        left.append(queue.pop())
    assert sorted(left) == sorted(number for numbers in waiting.values() for number in numbers)
