"""Each role keeps its contract: variables, defaults, full names, its page and its scenario."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT / "playbooks/ansible_collections/holdfast/platform"
ROLES = sorted(path.name for path in (COLLECTION / "roles").iterdir())
TASK_KEYWORDS = {
    "always", "become", "block", "changed_when", "check_mode", "delegate_to", "failed_when", "loop",
    "loop_control", "name", "no_log", "register", "rescue", "retries", "until", "vars", "when",
}  # fmt: skip
MODULE = re.compile(r"(ansible\.builtin|holdfast\.platform)\.\w+")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def options(role: str) -> dict[str, Any]:
    found: dict[str, Any] = read(COLLECTION / "roles" / role / "meta/argument_specs.yml")
    return found["argument_specs"]["main"]["options"]


def role_texts(role: str) -> str:
    folders = (COLLECTION / "roles" / role / name for name in ("tasks", "templates"))
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def test_there_are_roles() -> None:
    assert len(ROLES) > 12


@pytest.mark.parametrize("role", ROLES)
def test_defaults_equal_the_specification(role: str) -> None:
    path = COLLECTION / "roles" / role / "defaults/main.yml"
    defaults = read(path) if path.exists() else {}
    declared = {
        name: option["default"] for name, option in options(role).items() if "default" in option
    }
    assert defaults == declared


@pytest.mark.parametrize("role", ROLES)
def test_options_carry_the_roles_name_and_a_description(role: str) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"{role}_")
        assert option["description"].strip()
        assert ("default" in option) != option.get("required", False)


@pytest.mark.parametrize("role", ROLES)
def test_reads_no_variable_of_another_role_or_of_the_site(role: str) -> None:
    used = set(
        re.findall(
            r"\b[a-z][a-z_]+\b",
            "\n".join(re.findall(r"{[{%](.*?)[}%]}", role_texts(role), re.DOTALL)),
        )
    )
    others = {name for other in ROLES if other != role for name in options(other)}
    assert not used & others
    assert not used & {"site", "plan", "profile", "hostvars", "groups"}


@pytest.mark.parametrize("role", ROLES)
def test_modules_have_their_full_names(role: str) -> None:
    for task in read(COLLECTION / "roles" / role / "tasks/main.yml"):
        actions = set(task) - TASK_KEYWORDS
        assert len(actions) == 1, f"{task['name']}: {actions}"
        assert MODULE.fullmatch(actions.pop()), task["name"]


@pytest.mark.parametrize("role", ROLES)
def test_has_a_page_and_a_scenario(role: str) -> None:
    assert (ROOT / f"docs/capabilities/{role}.md").is_file()
    scenario = COLLECTION / "extensions/molecule" / role
    assert {"molecule.yml", "converge.yml", "side_effect.yml", "verify.yml"} <= {
        path.name for path in scenario.iterdir()
    }


def test_apply_gives_roles_only_what_they_declare_and_tags_them() -> None:
    seen = set()
    for play in read(COLLECTION / "playbooks/apply.yml"):
        for entry in play["roles"]:
            role = entry["role"].removeprefix("holdfast.platform.")
            seen.add(role)
            assert set(entry["vars"]) <= set(options(role))
            assert role in entry["tags"]
            required = {name for name, option in options(role).items() if option.get("required")}
            assert required <= set(entry["vars"])
    assert seen == set(ROLES)


def test_apply_installs_only_packages_that_bundles_carry() -> None:
    declared = read(ROOT / "profiles/src/holdfast_profiles/software/platform.yml")["debian"]
    carried = {name for names in declared.values() for name in names}
    text = (COLLECTION / "playbooks/apply.yml").read_text(encoding="utf-8")
    listed = re.findall(r"base_system_packages: >-\n\s+{{ \[(.*?)\]", text, re.DOTALL)
    assert len(listed) == 2
    for names in listed:
        assert set(re.findall(r"'([^']+)'", names)) <= carried


def test_every_module_is_documented_and_its_options_are_too() -> None:
    for path in sorted((COLLECTION / "plugins/modules").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        documentation = yaml.safe_load(
            re.search(r'DOCUMENTATION = r"""\n(.*?)"""', text, re.DOTALL)[1]
        )
        assert documentation["module"] == path.stem
        for option in documentation["options"].values():
            assert option["description"]
