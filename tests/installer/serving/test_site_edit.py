"""One value of a site file changes, and not a character beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from site_parts import DATA

from holdfast_installer.errors import HoldfastError
from holdfast_installer.serving.site_edit import Edit
from holdfast_installer.site_file import SiteError, load_site

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = (DATA / "site-example.yml").read_text()
STARTER = "holdfast/starter"


def site_file(folder: Path, text: str = EXAMPLE) -> Path:
    path = folder / "site.yml"
    path.write_text(text)
    return path


def edited(folder: Path, text: str, key: str, value: str | int) -> str:
    path = site_file(folder, text)
    Edit(path, STARTER, key, value).write()
    return path.read_text()


def test_a_number_is_replaced_where_it_stands(tmp_path: Path) -> None:
    text = EXAMPLE.replace(
        "    replicas: 2\n", "    # as many as fit\n    replicas: 2  # for now\n"
    )
    assert edited(tmp_path, text, "replicas", 3) == text.replace("replicas: 2  #", "replicas: 3  #")


def test_a_value_that_is_not_there_is_added_after_the_id(tmp_path: Path) -> None:
    text = EXAMPLE.replace("    replicas: 2\n", "").replace(
        "starter\n    source", "starter  # x\n    source"
    )
    assert edited(tmp_path, text, "replicas", 2) == text.replace(
        "- id: holdfast/starter  # x\n", "- id: holdfast/starter  # x\n    replicas: 2\n"
    )


def test_a_model_on_one_line_is_changed_too(tmp_path: Path) -> None:
    begin, end = EXAMPLE.index("  - id: holdfast/starter"), EXAMPLE.index("teams:\n  -")
    line = "  - {id: holdfast/starter, source: /models/x, pool: cpu}\n"
    text = EXAMPLE[:begin] + line + EXAMPLE[end:]
    assert edited(tmp_path, text, "replicas", 4) == text.replace(
        "starter,", "starter, replicas: 4,"
    )


@pytest.mark.parametrize("value", ["v2", "on", "1.0", "3f" * 20, "a: b"])
def test_text_is_read_back_as_it_was_meant(tmp_path: Path, value: str) -> None:
    edited(tmp_path, EXAMPLE, "revision", value)
    assert load_site(tmp_path / "site.yml").models[0].revision == value


def test_the_file_keeps_its_mode(tmp_path: Path) -> None:
    site_file(tmp_path).chmod(0o600)
    Edit(tmp_path / "site.yml", STARTER, "replicas", 5).write()
    assert (tmp_path / "site.yml").stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_where_nothing_changes(tmp_path: Path) -> None:
    path = site_file(tmp_path)
    edit = Edit(path, STARTER, "replicas", 2)
    assert not edit.differs
    before = path.stat().st_mtime_ns
    edit.write()
    assert path.stat().st_mtime_ns == before


def test_what_somebody_else_wrote_meanwhile_is_kept(tmp_path: Path) -> None:
    path = site_file(tmp_path)
    edit = Edit(path, STARTER, "replicas", 3)
    path.write_text(EXAMPLE + "# theirs\n")
    with pytest.raises(HoldfastError, match="somebody else"):
        edit.write()
    assert path.read_text().endswith("# theirs\n")


def test_an_anchor_that_others_use_is_left_to_a_person(tmp_path: Path) -> None:
    text = EXAMPLE.replace("level: restricted", "level: &two restricted").replace(
        "revision: main", "revision: *two"
    )
    with pytest.raises(HoldfastError, match="cannot be changed") as refused:
        edited(tmp_path, text, "revision", "v2")
    assert "by hand" in refused.value.next_command


def test_an_unknown_model_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="no model org/none") as refused:
        Edit(site_file(tmp_path), "org/none", "replicas", 1)
    assert STARTER in refused.value.cause
    assert refused.value.exit_code == 2


def test_what_the_site_does_not_allow_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = site_file(tmp_path)
    with pytest.raises(SiteError):
        Edit(path, STARTER, "replicas", 0)
    assert path.read_text() == EXAMPLE
