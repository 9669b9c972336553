"""`holdfast rollout`: another revision or other options of a model, by way of a canary."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from pydantic import BaseModel, ConfigDict

from holdfast_installer.console import console, emit, json_option, site_option
from holdfast_installer.errors import EXIT_USAGE, Finding, HoldfastError, Refused
from holdfast_installer.remote import operator_name
from holdfast_installer.serving.canary import CAPABILITIES, Canary, choose, only, tell
from holdfast_installer.serving.converging import REVISION, converged, planned
from holdfast_installer.serving.judging import Figure, Thresholds, findings, of_prompts
from holdfast_installer.serving.recording import record
from holdfast_installer.serving.scale_command import bundle_option, journal_option
from holdfast_installer.serving.site_edit import Edit, model_of
from holdfast_installer.site_file import load_site

if TYPE_CHECKING:
    from holdfast_installer.plan import Plan
    from holdfast_installer.site import Site

HISTORY = "rollouts.jsonl"
_DEFAULT = Thresholds()
PROMPTS = (
    "The capital of France is",
    "Write one sentence about the sea.",
    "2 + 2 =",
    "List three colours:",
    "What is Holdfast?",
)

Outcome = Literal["nothing to do", "rolled out", "taken back", "canary holds"]


class RolledOut(BaseModel):
    """What became of a rollout, with every figure that was compared."""

    model_config = ConfigDict(frozen=True)

    model: str
    outcome: Outcome
    revision: str
    commit: str
    canary: str
    figures: tuple[Figure, ...]
    findings: tuple[Finding, ...]
    operator: str
    at: datetime
    seconds: float
    journal: Path | None = None


@click.command()
@click.argument("model", metavar="ORG/NAME")
@click.option("--revision", help="Revision to go to; it is written into the site file at the end.")
@site_option
@bundle_option
@click.option(
    "--prompts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with prompts to compare by, one a line; a few of ours by default.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="How often each prompt is asked.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1, 4096),
    default=32,
    show_default=True,
    help="Tokens that each prompt asks for.",
)
@click.option(
    "--live",
    type=click.IntRange(0, 86400),
    default=0,
    show_default=True,
    help="Seconds for which the canary is given its share of the users' requests.",
)
@click.option(
    "--errors",
    type=click.FloatRange(0, 1),
    default=_DEFAULT.errors,
    show_default=True,
    help="Share of requests that may fail beyond what fails at the old one.",
)
@click.option(
    "--ttft-ratio",
    type=click.FloatRange(1),
    default=_DEFAULT.ttft_ratio,
    show_default=True,
    help="Time to a first token, times the old one's; 0.1 s more is always allowed.",
)
@click.option("--canary-only", is_flag=True, help="Judge the canary, take it back and end there.")
@journal_option
@json_option
def rollout(
    *,
    model: str,
    revision: str | None,
    site_path: Path,
    bundle: Path,
    prompts: Path | None,
    rounds: int,
    max_tokens: int,
    live: int,
    errors: float,
    ttft_ratio: float,
    canary_only: bool,
    journal: Path | None,
    as_json: bool,
) -> None:
    """Replace a model's replicas with another revision or other options, after a canary held.

    One new replica is started beside the old ones and asked the same prompts as one of them. If it
    fails more, or takes longer to a first token, it is taken back: exit 1, the site file and what
    serves are as before. Else the rest follows, one at a time, without a broken request.

    \b
    holdfast rollout org/name --site site.yml
    holdfast rollout org/name --revision v2 --live 300 --site site.yml
    holdfast rollout org/name --revision v2 --prompts ours.txt --canary-only --site site.yml
    """  # noqa: D301 - \b is click's mark for text to leave as it is
    limits = Thresholds(errors=errors, ttft_ratio=ttft_ratio)
    root = journal or site_path.absolute().parent / "journal"
    edit = Edit(site_path, model, "revision", revision) if revision else None
    site = edit.site if edit is not None else load_site(site_path)
    wanted = model_of(site, model, site_path).revision
    asked = _prompts(prompts)
    began = time.monotonic()
    plan = planned(site, bundle)
    canary = choose(site, plan, model)
    result = RolledOut(
        model=model,
        outcome="nothing to do",
        revision=wanted,
        commit=canary.commit if canary is not None else "",
        canary=canary.unit if canary is not None else "",
        figures=(),
        findings=(),
        operator=operator_name(),
        at=datetime.now(UTC),
        seconds=0.0,
    )
    if canary is not None:
        told = {"model": model, "revision": wanted, "commit": canary.commit, "unit": canary.unit}
        record(site, "model.canary", **told)
        figures = _judged(canary, plan, bundle, root, asked, rounds, max_tokens, live, limits)
        against = findings(figures)
        back = bool(against) or canary_only
        if back:
            canary.take_back()
        outcome: Outcome = "taken back" if against else "canary holds" if back else "rolled out"
        record(site, "model.rollout", outcome=outcome, **told)
        result = result.model_copy(
            update={
                "outcome": outcome,
                "figures": tuple(figures),
                "findings": against,
            }
        )
        if not back:
            result = result.model_copy(update=_rest(site, edit, bundle, root))
    elif edit is not None and not canary_only:
        edit.write()
    result = result.model_copy(update={"seconds": round(time.monotonic() - began, 1)})
    _note(root, result)
    if as_json or not result.findings:
        emit(result, as_json=as_json, render=_render)
    if result.findings:
        raise _worse(result, site_path)


def _judged(  # noqa: PLR0917 - each is one decision of the operator
    canary: Canary,
    plan: Plan,
    bundle: Path,
    journal: Path,
    prompts: list[str],
    rounds: int,
    max_tokens: int,
    live: int,
    limits: Thresholds,
) -> list[Figure]:
    """Start a canary and compare; whatever ends this early takes the canary back."""
    console.print(f"Starting the canary {canary.unit} on {canary.host.name}.", markup=False)
    try:
        converged(canary.site, only(plan, canary.unit), bundle, journal, CAPABILITIES)
        console.print(f"Asking it and what serves {len(prompts)} prompts, {rounds} times.")
        figures = list(of_prompts(*canary.ask(prompts, rounds, max_tokens), limits))
        if live and not findings(figures):
            console.print(f"Giving it its share of the requests for {live} s.")
            figures += canary.live(live, limits)
    except Refused:
        raise  # another apply holds the site: nothing was started, and the unit may be its own
    except BaseException:
        canary.take_back()
        raise
    tell(figures)
    return figures


def _rest(site: Site, edit: Edit | None, bundle: Path, journal: Path) -> dict[str, object]:
    """Write the revision down and replace what is left of the old one."""
    if edit is not None:
        edit.write()
    console.print("The canary holds; replacing the rest, one at a time.")
    applied = converged(site, planned(site, bundle), bundle, journal, REVISION)
    return {"journal": applied.journal}


def _prompts(path: Path | None) -> list[str]:
    if path is None:
        return list(PROMPTS)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        lines, cause = [], str(error)
    else:
        cause = "it holds none"
    found = [line for line in lines if line.strip()]
    if not found:
        raise HoldfastError(
            "The prompts cannot be read.", where=str(path), cause=cause, exit_code=EXIT_USAGE
        )
    return found


def _note(journal: Path, result: RolledOut) -> None:
    """Keep the result beside the applies it consists of."""
    journal.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (journal / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(result.model_dump(mode="json")) + "\n")


def _worse(result: RolledOut, site_path: Path) -> HoldfastError:
    return HoldfastError(
        f"The canary of {result.model} did worse than what serves, and was taken back.",
        where=f"{result.canary}, commit {result.commit[:12]}",
        cause="; ".join(f"{one.name}: {one.detail}" for one in result.findings),
        next_command=f"nothing else was changed, {site_path} neither; mend the revision, or allow "
        "more with --errors and --ttft-ratio",
    )


def _render(result: RolledOut) -> None:
    if result.outcome == "nothing to do":
        console.print(f"{result.model}: every replica is at {result.revision} as asked for.")
        return
    words = f"{result.model}: {result.outcome}, commit {result.commit[:12]}"
    console.print(f"{words}, in {result.seconds:.0f} s.", markup=False, soft_wrap=True)
    if result.journal is not None:
        console.print(f"Journal: {result.journal}", soft_wrap=True)
