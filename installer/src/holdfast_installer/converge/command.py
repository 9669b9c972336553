"""`holdfast apply`: look, plan, refuse or converge."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast_installer.bundle.verify import verify
from holdfast_installer.console import console, emit, json_option, site_option
from holdfast_installer.converge.lock import LOCK
from holdfast_installer.converge.run import Applied, apply_plan, capability_names, complain
from holdfast_installer.converge.unit_files import unit_files
from holdfast_installer.errors import Refused
from holdfast_installer.plan import make_plan
from holdfast_installer.plan.model_contexts import contexts
from holdfast_installer.site_file import load_site
from holdfast_installer.survey.surveying import take_survey


@click.command()
@site_option
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    default=Path("bundle"),
    show_default=True,
    help="The bundle's folder; it is verified first.",
)
@click.option("--check", is_flag=True, help="Say what would change and change nothing.")
@click.option(
    "--capability",
    "capabilities",
    multiple=True,
    help="Only this capability (a role's name); may be given several times.",
)
@click.option(
    "--journal",
    type=click.Path(path_type=Path),
    help="Folder for the record of each apply; journal/ beside the site file by default.",
)
@json_option
def apply(
    *,
    site_path: Path,
    bundle: Path,
    check: bool,
    capabilities: tuple[str, ...],
    journal: Path | None,
    as_json: bool,
) -> None:
    """Make the hosts what the site file says, from the bundle alone.

    Run it again after any interruption: it goes on where it stopped. Exit 3 where something bars
    it; then nothing was touched.

    \b
    holdfast apply --site site.yml --bundle bundle
    holdfast apply --site site.yml --bundle bundle --check
    holdfast apply --site site.yml --bundle bundle --capability gateway
    """  # noqa: D301 - \b is click's mark for text to leave as it is
    site = load_site(site_path)
    unknown = sorted(set(capabilities) - capability_names())
    if unknown:
        raise click.UsageError(
            f"no capability {', '.join(unknown)}; there are {', '.join(sorted(capability_names()))}"
        )
    verified = verify(bundle)
    plan = make_plan(site, take_survey(site), verified.manifest, contexts(verified), unit_files())
    # Whether the lock is held is for apply_plan to find out: it waits for an apply of ours that was
    # killed and whose last task still runs.
    blockers = tuple(one for one in plan.blockers if one.name != LOCK)
    if blockers:
        raise Refused(
            f"{len(plan.blockers)} blockers; nothing was touched.",
            plan.blockers,
            next_command="mend them all, then run the same apply again",
        )
    applied = apply_plan(
        site,
        plan,
        bundle=bundle,
        journal_root=journal or site_path.parent / "journal",
        check=check,
        capabilities=capabilities,
    )
    if as_json or applied.outcome == "done":
        emit(applied, as_json=as_json, render=_render)
    complain(applied, site)


def _render(applied: Applied) -> None:
    changed = ", ".join(f"{host} {count}" for host, count in sorted(applied.changed.items()))
    verb = "would change" if applied.check else "changed"
    console.print(f"Applied {applied.release} in {applied.seconds:.0f} s; {verb}: {changed}.")
    console.print(f"Journal: {applied.journal}", soft_wrap=True)
