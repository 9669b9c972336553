"""What is rendered once is the same the second time, another commit's is not, and room is kept."""

from __future__ import annotations

from datetime import UTC, datetime

from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.records import Commit, Repository
from holdfast_hub_protocol.rendered import Rendered, RenderedCommits

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def repository(key: int) -> Repository:
    return Repository(key, RepositoryId.parse(f"team/name-{key}"), NOW, NOW)


def commit(oid: str, snapshot: int = 1) -> Commit:
    return Commit(oid * 40, snapshot, "", None, "", "", "", NOW, {})


class Counting:
    """Renders, and notes how often."""

    def __init__(self, size: int = 10) -> None:
        self.size = size
        self.times = 0

    def __call__(self) -> Rendered:
        self.times += 1
        return Rendered(b"x" * self.size, self.times)


def test_it_is_rendered_once_for_each_question_commit_and_repository() -> None:
    kept, render = RenderedCommits(), Counting()
    for _ in range(2):
        kept.get(repository(1), commit("a"), ("tree", ""), render)
    assert render.times == 1
    for other in (
        (repository(2), commit("a"), ("tree", "")),
        (repository(1), commit("b"), ("tree", "")),
        (repository(1), commit("a", 2), ("tree", "")),
        (repository(1), commit("a"), ("tree", "sub")),
    ):
        before = render.times
        kept.get(*other, render)
        assert render.times == before + 1


def test_what_was_not_asked_for_lately_makes_room() -> None:
    kept, render = RenderedCommits(room=80_000), Counting(9_000)
    for number in range(20):
        kept.get(repository(number), commit("a"), (), render)
        kept.get(repository(0), commit("a"), (), render)
    assert render.times == 20
    kept.get(repository(1), commit("a"), (), render)
    assert render.times == 21, "it was forgotten"


def test_what_is_too_large_is_not_kept() -> None:
    kept, render = RenderedCommits(), Counting(3 << 20)
    for _ in range(2):
        kept.get(repository(1), commit("a"), (), render)
    assert render.times == 2
