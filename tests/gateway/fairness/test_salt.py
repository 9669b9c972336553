from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from holdfast_gateway.fairness.salt import SaltKeyError, Salts, load_key

if TYPE_CHECKING:
    from pathlib import Path


def test_a_salt_is_the_teams_own_and_lasts() -> None:
    one, again, other = Salts(b"a" * 32), Salts(b"a" * 32), Salts(b"b" * 32)
    assert one.of("team", "research") == again.of("team", "research") == one.of("team", "research")
    different = {
        one.of("team", "research"),
        one.of("team", "press"),
        one.of("user", "research"),
        other.of("team", "research"),
    }
    assert len(different) == 4
    # What vLLM accepts: at most 128 characters, none of @ / \ NUL.
    assert all(len(salt) == 64 and salt.isalnum() for salt in different)


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "data" / "cache_salt.key"
    key = load_key(path)
    assert load_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["cache_salt.key"]


def test_gateways_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as several:
        assert len(set(several.map(load_key, [tmp_path / "key"] * 64))) == 1


def test_a_key_that_is_none_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "cache_salt.key"
    path.write_bytes(b"short")
    with pytest.raises(SaltKeyError, match="holds 5 bytes"):
        load_key(path)
