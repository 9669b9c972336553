"""Which kinds of repositories a registry has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.settings import read_settings

if TYPE_CHECKING:
    from pathlib import Path


def test_both_unless_told(tmp_path: Path) -> None:
    assert read_settings(None, {"data": tmp_path}).kinds == ("model", "dataset")
    assert read_settings(None, {"data": tmp_path, "kinds": "dataset"}).kinds == ("dataset",)
    config = tmp_path / "registry.yml"
    config.write_text("kinds: [model]\n")
    assert read_settings(config, {"data": tmp_path}).kinds == ("model",)
    told = {"data": tmp_path, "kinds": "model,dataset"}
    assert read_settings(config, told).kinds == ("model", "dataset"), "options win"


@pytest.mark.parametrize("kinds", ["", "space", "model,model", "model, dataset", "model,"])
def test_odd_kinds_are_refused(tmp_path: Path, kinds: str) -> None:
    with pytest.raises(RegistryError, match="kinds"):
        read_settings(None, {"data": tmp_path, "kinds": kinds})
