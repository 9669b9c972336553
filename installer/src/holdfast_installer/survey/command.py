"""`holdfast survey`: look at the hosts and recommend hardware profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from pydantic import BaseModel, ConfigDict

from holdfast_installer.console import console, emit, json_option, site_option
from holdfast_installer.errors import EXIT_REFUSED
from holdfast_installer.site_file import load_site
from holdfast_installer.survey.facts import UNREAD, HostFacts, Survey
from holdfast_installer.survey.recommend import Recommendation, recommend
from holdfast_installer.survey.surveying import take_survey

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024**3


class Report(BaseModel):
    """What `holdfast survey --json` prints."""

    model_config = ConfigDict(frozen=True)

    survey: Survey
    recommendations: tuple[Recommendation, ...]


@click.command()
@site_option
@json_option
def survey(*, site_path: Path, as_json: bool) -> None:
    """Look at every host of the site over SSH, changing nothing.

    Ends with exit code 3 where a host could not be read, or a fact of it is unread.
    """
    site = load_site(site_path)
    with console.status(f"Reading {len(site.hosts)} hosts"):
        seen = take_survey(site)
    report = Report(survey=seen, recommendations=tuple(recommend(host) for host in seen.hosts))
    emit(report, as_json=as_json, render=_render)
    if any(host.reach != "read" or host.unread() for host in seen.hosts):
        raise click.exceptions.Exit(EXIT_REFUSED)


def _render(report: Report) -> None:
    for host, advice in zip(report.survey.hosts, report.recommendations, strict=True):
        if host.reach != "read":
            console.print(f"{host.name}: [bold red]{host.reach}[/]: {host.detail}", soft_wrap=True)
            continue
        console.print(f"{host.name}: {', '.join(_facts(host))}", soft_wrap=True)
        console.print(f"    {advice.profile or 'no profile'}: {advice.reason}", soft_wrap=True)
        if host.unread():
            text = f"    [bold red]unread[/]: {', '.join(host.unread())} ({host.detail})"
            console.print(text, soft_wrap=True)


def _facts(host: HostFacts) -> list[str]:
    root = None
    if host.mounts != UNREAD:
        root = next((mount for mount in host.mounts if mount.target == "/"), None)
    return [
        "system unread" if host.os == UNREAD else host.os.name,
        "CPU unread" if host.cpu == UNREAD else f"{host.cpu.threads} x {host.cpu.model}",
        "memory unread" if host.memory == UNREAD else f"{_gib(host.memory.total_bytes)} memory",
        "disk unread" if root is None else f"{_gib(root.free_bytes)} free on /",
        "GPUs unread" if host.gpus == UNREAD else f"{len(host.gpus)} GPUs",
        "clock unread" if host.clock == UNREAD else f"clock {host.clock.offset_seconds:+.2f} s",
    ]


def _gib(size: int) -> str:
    return f"{size / GIB:.0f} GiB"
