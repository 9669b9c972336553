from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast_trust import seed
from holdfast_trust.errors import TrustError
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = """
teams: [research, idle]
users:
  - name: ada
    teams: [research, alpha]
    tokens: [{name: laptop, secret: ada-has-a-secret-token}]
services:
  - {name: serving-1, teams: [serving], tokens: [{secret: serving-has-a-secret}]}
"""


@pytest.fixture
def bare(database_url: str) -> Iterator[TrustStore]:
    opened = TrustStore(database_url)
    yield opened
    opened.close()


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "seed.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_seed_makes_everything_it_names(bare: TrustStore, tmp_path: Path) -> None:
    assert seed.load(bare, write(tmp_path, TEXT))
    ada = bare.authenticate("ada-has-a-secret-token")
    assert ada is not None
    assert (ada.kind, ada.name, ada.teams) == ("user", "ada", ("alpha", "research"))
    service = bare.authenticate("serving-has-a-secret")
    assert service is not None
    assert (service.kind, service.teams) == ("service", ("serving",))
    assert [team["name"] for team in bare.teams()] == ["alpha", "idle", "research", "serving"]


def test_loading_again_changes_nothing(bare: TrustStore, tmp_path: Path) -> None:
    path = write(tmp_path, TEXT)
    seed.load(bare, path)
    before = bare.tokens()
    assert not seed.load(bare, path)
    assert bare.tokens() == before


def test_a_new_secret_ends_the_old_one(bare: TrustStore, tmp_path: Path) -> None:
    seed.load(bare, write(tmp_path, TEXT))
    assert seed.load(bare, write(tmp_path, TEXT.replace("ada-has-a", "ada-has-another")))
    assert bare.authenticate("ada-has-a-secret-token") is None
    assert bare.authenticate("ada-has-another-secret-token")


def test_an_empty_seed_makes_the_tables(bare: TrustStore, tmp_path: Path) -> None:
    assert seed.load(bare, write(tmp_path, ""))
    assert bare.teams() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user: []", "user: Extra inputs are not permitted"),
        ("users: [{nam: ada}]", "users.0.name: Field required"),
        ("users: [{name: ada, tokens: [{secret: short-secret}]}]", "users.0.tokens.0.secret"),
        ("- a list", "the file: Input should be"),
        ("users: [", "cannot be read"),
        ("users: [{name: Ada}]", "cannot name a user"),
    ],
)
def test_mistakes_are_named_and_secrets_are_not(
    bare: TrustStore, tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(TrustError) as caught:
        seed.load(bare, write(tmp_path, text))
    assert said in str(caught.value)
    assert "short-secret" not in str(caught.value)


def test_a_missing_seed_is_named(bare: TrustStore, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"none\.yml"):
        seed.load(bare, tmp_path / "none.yml")
