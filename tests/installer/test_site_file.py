"""A site file that cannot be read says where: file, line, column, field, expected, found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from site_parts import DATA

from holdfast_installer.errors import HoldfastError
from holdfast_installer.site_file import SiteError, load_site

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = (DATA / "site-example.yml").read_text()


def problems(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "site.yml"
    path.write_text(text)
    with pytest.raises(SiteError) as caught:
        load_site(path)
    assert caught.value.exit_code == 2
    return [problem.removeprefix(str(tmp_path)) for problem in caught.value.problems]


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    found = problems(tmp_path, EXAMPLE.replace("    replicas: 2", "    replica: 2"))
    assert found == [
        "/site.yml:18:5: models[0].replica: unknown key 'replica'; did you mean 'replicas'?"
    ]


def test_an_unknown_key_like_no_other_lists_the_known_ones(tmp_path: Path) -> None:
    found = problems(tmp_path, EXAMPLE + "zzz: 1\n")
    assert found[0].startswith("/site.yml:24:1: zzz: unknown key 'zzz'; known keys: name, domain,")


def test_a_bad_value_names_line_and_column_of_the_value(tmp_path: Path) -> None:
    found = problems(tmp_path, EXAMPLE.replace("port: 22", "port: lots"))
    assert len(found) == 1
    assert found[0].startswith("/site.yml:5:25: ssh.port: ")
    assert found[0].endswith("found 'lots'")


def test_a_missing_key_names_the_block_that_lacks_it(tmp_path: Path) -> None:
    found = problems(tmp_path, EXAMPLE.replace("domain: quickstart.internal\n", ""))
    assert found == ["/site.yml:1:1: domain: this key is required and is missing"]


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = EXAMPLE.replace("port: 22", "port: 0").replace("replicas: 2", "replicas: -1")
    text = text.replace("jurisdiction: de", "jurisdiction: atlantis")
    found = problems(tmp_path, text)
    assert [problem.split(": ")[1] for problem in found] == [
        "jurisdiction", "ssh.port", "models[0].replicas",
    ]  # fmt: skip


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, EXAMPLE + "name: other\n")
    assert found == ["/site.yml:24:1: name: this key is written twice"]


def test_broken_yaml_names_the_place(tmp_path: Path) -> None:
    found = problems(tmp_path, "name: [a\ndomain: b\n")
    assert found[0].startswith("/site.yml:2:7: not YAML: ")


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_says_so(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == ["/site.yml:1:1: the file is empty; a site is expected"]


def test_a_file_that_is_a_list_says_what_was_expected(tmp_path: Path) -> None:
    found = problems(tmp_path, "- a\n")
    assert found[0].startswith("/site.yml:1:1: (the whole file): ")


def test_yaml_tags_are_not_obeyed(tmp_path: Path) -> None:
    found = problems(tmp_path, "name: !!python/object/apply:os.getcwd []\n")
    assert "could not determine a constructor" in found[0]


def test_no_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError) as caught:
        load_site(tmp_path / "none.yml")
    assert "holdfast init" in caught.value.next_command
    assert caught.value.exit_code == 2
