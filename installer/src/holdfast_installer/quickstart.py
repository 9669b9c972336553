"""The whole way in one command: runs the real commands one after the other, in plain sight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import click
import yaml
from rich.table import Table

from holdfast_installer.console import console, emit, json_option
from holdfast_installer.errors import EXIT_REFUSED, HoldfastError
from holdfast_installer.lab.machine import missing_for_lab
from holdfast_installer.paths import state_dir

HOSTS = "control-1,serving-1,serving-2"
STARTER = "holdfast/starter"
USER = "ada"
TEAM = "research"


@dataclass(frozen=True)
class Stage:
    """One command of the way: its arguments, and the namespace of the lab it runs in, if any.

    What a stage with findings found is told and remembered, and does not end the way.
    """

    title: str
    arguments: tuple[str, ...]
    namespace: str = ""
    findings: bool = False


@dataclass
class Run:
    """How the stages went: their durations in seconds by title, and which of them found something.

    `answer` is what the last stage printed as JSON, where it was asked to.
    """

    times: dict[str, float] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)
    answer: str = ""


@click.command()
@click.option("--name", default="quickstart", show_default=True, help="Name of the lab and site.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("build/quickstart"),
    show_default=True,
    help="Where site.yml, the lock, the bundle and the journal go.",
)
@click.option(
    "--model",
    "model_folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("model-registry/starter/holdfast-starter"),
    show_default=True,
    help="Folder of the starter model.",
)
@click.option("--local", is_flag=True, help="Without a lab, as ordinary processes on loopback.")
@json_option
def quickstart(*, name: str, folder: Path, model_folder: Path, local: bool, as_json: bool) -> None:
    """From nothing to an answered prompt: bundle, sealed lab, apply, audit.

    Run it again and it reuses everything. `holdfast lab down --name NAME` removes the lab.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = missing_for_lab()
    if local or missing:
        if missing:
            console.print(
                f"No lab on this machine ({'; '.join(missing)}): running the embedded form."
            )
        run = _run_all(_local_stages(name, folder, model_folder, as_json=as_json), answer=as_json)
        made = json.loads(run.answer) if as_json else {}
        local_result = {**made, **_outcome(folder, run)}
        emit(local_result, as_json=as_json, render=lambda _: _render_times(run))
        return
    run = _run_all(_lab_stages(name, folder, model_folder))
    result = {**_outcome(folder, run), **_access(name, folder)}
    emit(result, as_json=as_json, render=lambda found: _render(found, run, name))
    if run.found:
        raise HoldfastError(
            f"The site runs, with findings: {', '.join(run.found)}.",
            where=str(folder / "evidence"),
            cause="what was found is told above, where that stage ran",
            next_command="mend it and run `make quickstart` again",
            exit_code=EXIT_REFUSED,
        )


def _outcome(folder: Path, run: Run) -> dict[str, object]:
    return {
        "site": str(folder / "site.yml"),
        "seconds": round(sum(run.times.values()), 1),
        "stages": run.times,
        "findings": run.found,
    }


def _site_stage(name: str, folder: Path, model_folder: Path, *hosts: str) -> list[Stage]:
    site = folder / "site.yml"
    if site.exists():
        return []
    arguments = ["init", "--name", name, "--domain", f"{name}.internal", "--jurisdiction", "de"]
    arguments += [*hosts, "--model", f"{STARTER}={model_folder}"]
    arguments += ["--team", f"{TEAM}={USER}", "--output", str(site)]
    return [Stage("Write the site file", tuple(arguments))]


def _bundle_stages(folder: Path) -> list[Stage]:
    site, lock, bundle = (str(folder / part) for part in ("site.yml", "bundle.lock", "bundle"))
    return [
        Stage("Lock the bundle", ("bundle", "lock", "--site", site, "--output", lock)),
        Stage("Build the bundle", ("bundle", "build", "--lock", lock, "--output", bundle)),
        Stage("Verify the bundle", ("bundle", "verify", bundle)),
    ]


def _lab_stages(name: str, folder: Path, model_folder: Path) -> list[Stage]:
    site, bundle = str(folder / "site.yml"), str(folder / "bundle")
    on_site = ("--site", site)
    return [
        Stage("Boot the lab", ("lab", "up", "--name", name, "--hosts", HOSTS)),
        *_site_stage(name, folder, model_folder, "--lab", name),
        *_bundle_stages(folder),
        # What it could not read bars nothing by itself: the plan says whether it does.
        Stage("Survey the hosts", ("survey", *on_site), "operator", findings=True),
        Stage("Plan", ("plan", *on_site, "--bundle", bundle), "operator"),
        Stage("Apply", ("apply", *on_site, "--bundle", bundle), "operator"),
        Stage("Audit", ("audit", *on_site), "operator", findings=True),
        Stage(
            "Give the user a token",
            ("token", "issue", USER, *on_site, "--output", str(folder / "token")),
            "operator",
        ),
        Stage(
            "Fetch the site's CA certificate",
            ("ca", *on_site, "--output", str(folder / "ca.pem")),
            "operator",
        ),
    ]


def _local_stages(name: str, folder: Path, model_folder: Path, *, as_json: bool) -> list[Stage]:
    return [
        *_site_stage(name, folder, model_folder, "--host", "local=127.0.0.1=control+serving=local"),
        *_bundle_stages(folder),
        Stage(
            "Start everything on loopback",
            (
                *("up", "--local", "--site", str(folder / "site.yml")),
                *("--bundle", str(folder / "bundle"), "--state", str(folder / "local")),
                *(("--json",) if as_json else ()),
            ),
        ),
    ]


def _run_all(stages: list[Stage], *, answer: bool = False) -> Run:
    """Run the stages one after the other; with `answer` the last one's standard output is kept."""
    holdfast = str(Path(sys.executable).with_name("holdfast"))
    run = Run()
    for number, stage in enumerate(stages, start=1):
        shown = ["holdfast", *stage.arguments]
        command = [holdfast, *stage.arguments]
        if stage.namespace:
            lab = stages_lab(stages)
            inside = ["lab", "exec", "--name", lab, stage.namespace, "--"]
            shown = ["holdfast", *inside, *shown]
            command = [holdfast, *inside, *command]
        console.print(f"\n[bold]{number}/{len(stages)} {stage.title}[/bold]")
        console.print("$ " + " ".join(shown), style="cyan", markup=False, soft_wrap=True)
        began = time.monotonic()
        # Data that a stage prints is for its own caller; here people read stderr.
        kept = subprocess.PIPE if answer and number == len(stages) else sys.stderr
        done = subprocess.run(command, check=False, stdout=kept, text=True, env=os.environ)
        run.times[stage.title] = round(time.monotonic() - began, 1)
        run.answer = done.stdout or ""
        if stage.findings and done.returncode == EXIT_REFUSED:
            run.found.append(stage.title)
        elif done.returncode != 0:
            raise HoldfastError(
                f"The quickstart stopped at: {stage.title}.",
                cause=f"`{' '.join(shown)}` ended with exit code {done.returncode}",
                next_command="mend it and run `make quickstart` again; it goes on from here",
                exit_code=done.returncode,
            )
    return run


def stages_lab(stages: list[Stage]) -> str:
    """Return the name of the lab that the stages boot."""
    boot = next(stage for stage in stages if stage.arguments[:2] == ("lab", "up"))
    return boot.arguments[boot.arguments.index("--name") + 1]


def _access(name: str, folder: Path) -> dict[str, str]:
    """Return what a researcher needs: token, CA file and three commands to paste."""
    token = (folder / "token").read_text().strip()
    certificate = str((folder / "ca.pem").resolve())
    domain = yaml.safe_load((folder / "site.yml").read_text())["domain"]
    binary = Path(sys.executable).parent
    sudo = "sudo " if os.geteuid() else ""
    inside = f"{sudo}{binary / 'holdfast'} lab exec --name {name} researcher --"
    download = (
        f"{inside} env HF_ENDPOINT=https://hub.{domain} HF_TOKEN={token} "
        f"SSL_CERT_FILE={certificate} HF_HOME={state_dir() / 'lab' / name / 'researcher'} "
        f"{binary / 'hf'} download {STARTER}"
    )
    question = json.dumps(
        {"model": STARTER, "messages": [{"role": "user", "content": "What is Holdfast?"}]}
    )
    chat = (
        f"{inside} curl --silent --show-error --cacert {certificate} "
        f"https://api.{domain}/v1/chat/completions -H 'Authorization: Bearer {token}' "
        f"-H 'Content-Type: application/json' -d '{question}'"
    )
    program = (
        "import openai; stream = openai.OpenAI().chat.completions.create("
        f'model="{STARTER}", stream=True, '
        'messages=[{"role": "user", "content": "What is Holdfast?"}]); '
        '[print(part.choices[0].delta.content or "", end="", flush=True) '
        "for part in stream if part.choices]; print()"
    )
    client = (
        f"{inside} env OPENAI_BASE_URL=https://api.{domain}/v1 OPENAI_API_KEY={token} "
        f"SSL_CERT_FILE={certificate} {sys.executable} -c '{program}'"
    )
    return {
        "user": USER,
        "token": token,
        "ca": certificate,
        "console": f"https://console.{domain}",
        "hf_download": download,
        "curl_chat": chat,
        "openai_client": client,
    }


def _render_times(run: Run) -> None:
    table = Table("stage", "seconds", title="\nWhere the time went", title_justify="left")
    for title, seconds in run.times.items():
        table.add_row(title, f"{seconds:.1f}")
    table.add_row("in all", f"{sum(run.times.values()):.1f}")
    console.print(table)


def _render(result: dict[str, object], run: Run, name: str) -> None:
    _render_times(run)
    console.print("\n[bold]What now runs[/bold]: ", end="")
    console.print(f"`holdfast lab status --name {name}` lists the hosts.")
    console.print(f"User {result['user']}, token [bold]{result['token']}[/bold]")
    console.print(f"CA certificate: {result['ca']}")
    console.print(f"Console, for browsers inside: {result['console']}")
    console.print("\nThree commands to paste:")
    for command in ("hf_download", "curl_chat", "openai_client"):
        console.print(f"\n{result[command]}", markup=False, soft_wrap=True)
    console.print("\n`make clean-lab` removes all of it.")
