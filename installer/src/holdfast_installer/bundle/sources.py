"""From a site and the profiles it names to what a bundle must carry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

import holdfast_profiles
from holdfast_installer.bundle.lockfile import PYTHON, EnvironmentSource, ModelSource, Sources
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_installer.site import Site

DEFAULT_HARDWARE = "cpu-low-power"
Data = TypeVar("Data", bound=BaseModel)


class Software(BaseModel):
    """One `software/<name>.yml`: Debian packages by the role that needs them, environments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: str
    architecture: str
    debian: dict[str, tuple[str, ...]]
    environments: dict[str, EnvironmentSource]


class _Hardware(BaseModel):
    """The part of a hardware profile that says what a bundle carries."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    python: str
    wheels: EnvironmentSource
    debian: tuple[str, ...]
    compiler: tuple[str, ...]


def software(name: str = "platform") -> Software:
    """Return a software profile; what it holds is data, checked as it is read."""
    return _read("software", name, Software)


def hardware_of_site(site: Site, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the hardware profiles to carry: those asked for, else those the site names.

    `auto` is decided by a survey of hosts that may not exist yet: it stands for the CPU profile.
    """
    if asked:
        return tuple(sorted(set(asked)))
    return tuple(sorted({DEFAULT_HARDWARE if name == "auto" else name for name in _named(site)}))


def is_undecided(site: Site) -> bool:
    """Say whether a serving host leaves its hardware to the survey."""
    return "auto" in _named(site)


def _named(site: Site) -> set[str]:
    serving = [host for host in site.hosts if "serving" in host.roles]
    return {host.hardware or site.profiles.hardware for host in serving}


def sources_from_site(site: Site, hardware_names: Sequence[str], *, base: Path) -> Sources:
    """Return everything `site` needs; model folders are taken relative to `base`."""
    platform = software()
    debian = {name for group in platform.debian.values() for name in group}
    environments = dict(platform.environments)
    for name in hardware_names:
        hardware = _read("hardware", name, _Hardware)
        if hardware.python != PYTHON:
            raise HoldfastError(
                f"Hardware profile {name} cannot be bundled for Debian {platform.release}",
                cause=f"its wheels are for Python {hardware.python} only; the release has {PYTHON}",
                next_command="leave it out: holdfast bundle lock --hardware cpu-low-power",
            )
        debian |= {*hardware.debian, *hardware.compiler}
        environments[f"vllm-{name}"] = hardware.wheels
    return Sources(
        release=platform.release,
        architecture=platform.architecture,
        debian=tuple(sorted(debian)),
        environments=environments,
        models=tuple(
            ModelSource(
                id=model.id,
                source=_folder(model.source, base) if model.is_local else model.source,
                revision=model.revision,
            )
            for model in site.models
        ),
    )


def _folder(source: str, base: Path) -> str:
    """Return a model's folder as the lock names it: absolute, so that it works from anywhere."""
    return os.path.abspath(base / Path(source).expanduser())  # noqa: PTH100 - links stay as written


def _read(kind: str, name: str, model: type[Data]) -> Data:
    where = f"holdfast_profiles/{kind}/{name}.yml"
    try:
        return model.model_validate(yaml.safe_load(holdfast_profiles.read(kind, name)))
    except KeyError as problem:
        raise HoldfastError(
            f"There is no {kind} profile {name!r}",
            where=where,
            cause=str(problem.args[0]),
        ) from problem
    except ValidationError as problem:
        raise HoldfastError(
            f"The {kind} profile {name!r} is not right", where=where, cause=str(problem)
        ) from problem
