from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from holdfast_installer.bundle import projects
from holdfast_installer.bundle.digests import digest_of_file
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_the_same_tree_gives_the_same_wheel(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        built = projects.build(["holdfast-profiles"], folder)
        digests.add(digest_of_file(built["holdfast-profiles"]))
    assert len(digests) == 1
    with zipfile.ZipFile(built["holdfast-profiles"]) as wheel:
        assert "holdfast_profiles/software/platform.yml" in wheel.namelist()


def test_a_distribution_that_is_not_from_a_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="click is not installed from a checkout"):
        projects.build(["click"], tmp_path)
