"""A field, parameter, fact or blocker without a line in the docs fails here."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

import holdfast_installer.plan as plan_package
from holdfast_installer.plan.blockers import UNREACHED
from holdfast_installer.profiles import describe
from holdfast_installer.site import Site
from holdfast_installer.survey.facts import FACTS, Reach

DOCS = Path(__file__).parents[2] / "docs/capabilities"


def fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        inner = [
            one
            for one in (field.annotation, *typing.get_args(field.annotation))
            if isinstance(one, type)
            and not isinstance(one, types.GenericAlias)
            and issubclass(one, BaseModel)
        ]
        if inner:
            found += fields(inner[0], f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


@pytest.mark.parametrize("field", fields(Site))
def test_every_field_of_the_site_is_described(field: str) -> None:
    top, _, name = field.rpartition(".")
    lines = [line for line in (DOCS / "site.md").read_text().splitlines() if line.startswith("| `")]
    of_part = [line for line in lines if top.rstrip(".") in line or f"{top}[]" in line]
    assert any(f".{name}`" in line or f"`{name}`" in line for line in of_part or lines), field


def test_every_parameter_of_a_profile_is_described_with_its_operator() -> None:
    lines = (DOCS / "profiles.md").read_text().splitlines()
    for row in describe():
        (line,) = [one for one in lines if f"`{row['parameter']}`" in "".join(one.split("|")[1:2])]
        assert line.split("|")[2].strip() == row["operator"]


def test_every_fact_and_reach_is_described() -> None:
    text = (DOCS / "survey.md").read_text()
    for name in (*FACTS, *typing.get_args(Reach)):
        assert f"`{name}`" in text, name


def test_every_blocker_is_described() -> None:
    text = (DOCS / "plan.md").read_text()
    folder = Path(plan_package.__file__).parent
    source = "".join(path.read_text() for path in folder.glob("*.py"))
    names = set(re.findall(r"(?:_fail|\.block)\(\s*\"([a-z-]+)\"", source)) | set(UNREACHED)
    assert len(names) > 20
    for name in names:
        assert f"`{name}`" in text, name
