"""`holdfast init`: write a commented site.yml from flags or from answers."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import click
import jinja2
import yaml

import holdfast_profiles
from holdfast_installer.console import console, emit, json_option
from holdfast_installer.errors import EXIT_USAGE, HoldfastError
from holdfast_installer.paths import state_dir
from holdfast_installer.site_file import SiteError, parse_site

TEMPLATE = Path(__file__).parent / "site.yml.j2"
DEFAULT_POOL = {"cpu-low-power": "cpu", "auto": "cpu"}


@dataclass
class Answers:
    """What the template is filled with: plain text, checked by reading the result back."""

    name: str
    domain: str
    jurisdiction: str
    level: str
    hardware: str
    user: str = "root"
    port: int = 22
    private_key: str = "ssh/id_ed25519"
    known_hosts: str = "ssh/known_hosts"
    operators: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    hosts: list[dict[str, object]] = field(default_factory=list)
    models: list[dict[str, object]] = field(default_factory=list)
    teams: list[dict[str, object]] = field(default_factory=list)
    canary: dict[str, object] | None = None


@click.command()
@click.option("--name", help="Name of the site.")
@click.option("--domain", help="DNS domain of the site. [default: NAME.internal]")
@click.option(
    "--jurisdiction",
    type=click.Choice(holdfast_profiles.names("jurisdiction")),
    help="Law the site stands under.",
)
@click.option(
    "--level",
    type=click.Choice(holdfast_profiles.names("level")),
    default="restricted",
    show_default=True,
    help="How closed the site is.",
)
@click.option(
    "--hardware",
    type=click.Choice(("auto", *holdfast_profiles.names("hardware"))),
    default="auto",
    show_default=True,
    help="Hardware profile of serving hosts.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME=ADDRESS=ROLES[=POOL]",
    help="Host; ROLES is control, serving or control+serving.",
)
@click.option("--lab", metavar="NAME", help="Take hosts, keys and canary from this lab.")
@click.option("--model", "models", multiple=True, metavar="ID=SOURCE", help="Model to serve.")
@click.option(
    "--replicas", type=click.IntRange(1), help="Copies of each model. [default: one a host]"
)
@click.option("--team", "teams", multiple=True, metavar="NAME=USER[,USER]", help="Team.")
@click.option("--operators", multiple=True, metavar="CIDR", help="Network that may use SSH.")
@click.option("--users", multiple=True, metavar="CIDR", help="Network that may use the services.")
@click.option("--ssh-user", default="root", show_default=True, help="Account on the hosts.")
@click.option("--private-key", type=click.Path(path_type=Path), help="The operator's SSH key.")
@click.option("--known-hosts", type=click.Path(path_type=Path), help="The hosts' public keys.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("site.yml"),
    show_default=True,
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Write over an existing file.")
@json_option
def init(  # noqa: PLR0913 - a command has as many parameters as options
    *,
    name: str | None,
    domain: str | None,
    jurisdiction: str | None,
    level: str,
    hardware: str,
    hosts: tuple[str, ...],
    lab: str | None,
    models: tuple[str, ...],
    replicas: int | None,
    teams: tuple[str, ...],
    operators: tuple[str, ...],
    users: tuple[str, ...],
    ssh_user: str,
    private_key: Path | None,
    known_hosts: Path | None,
    output: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Write a commented site.yml; what no flag says is asked for.

    The file is read back before it is kept, so what is written is valid.
    """
    if output.exists() and not force:
        raise HoldfastError(
            "There is a site file already; it is left as it is.",
            where=str(output),
            next_command=f"choose another name with --output, or add --force to replace {output}",
            exit_code=EXIT_USAGE,
        )
    name = name or lab or _ask("Name of the site", "quickstart")
    answers = Answers(
        name=name,
        domain=domain or _ask("DNS domain", f"{name}.internal", quiet=bool(lab)),
        jurisdiction=jurisdiction or _ask("Jurisdiction", "de"),
        level=level,
        hardware=hardware,
        user=ssh_user,
    )
    if lab is not None:
        _from_lab(lab, answers)
    if private_key is not None:
        answers.private_key = str(private_key.expanduser().absolute())
    if known_hosts is not None:
        answers.known_hosts = str(known_hosts.expanduser().absolute())
    answers.hosts += [_host(text, hardware) for text in hosts]
    if not answers.hosts:
        asked = _ask("Hosts, as NAME=ADDRESS=ROLES[=POOL], separated by spaces", "")
        answers.hosts = [_host(text, hardware) for text in asked.split()]
    answers.operators = list(operators) or answers.operators or _operators(answers.hosts)
    answers.users = list(users) or answers.users or answers.operators
    answers.teams = [_team(text) for text in teams]
    answers.models = [_model(text, answers, replicas) for text in models]
    text = render(answers)
    _keep(text, output)
    console.print(f"Wrote {output}. Next: holdfast bundle lock --site {output}")
    emit({"site": str(output.absolute())}, as_json=as_json, render=lambda _: None)


def _ask(question: str, default: str, *, quiet: bool = False) -> str:
    """Ask on a terminal; elsewhere take the default, or say which flag is missing."""
    if quiet or not sys.stdin.isatty():
        if default:
            return default
        raise HoldfastError(
            f"An answer is missing: {question}.",
            next_command="holdfast init --help lists the flags",
            exit_code=EXIT_USAGE,
        )
    answer: str = click.prompt(question, default=default or None, err=True)
    return answer


def _operators(hosts: list[dict[str, object]]) -> list[str]:
    """Ask who may use SSH, unless every host is this machine."""
    if all(str(host["address"]).startswith("127.") for host in hosts):
        return ["127.0.0.0/8"]
    return _ask("Networks of the operators (CIDR, separated by spaces)", "").split()


def _parts(text: str, flag: str, shape: str, least: int, most: int) -> list[str]:
    parts = text.split("=", most - 1)
    if not least <= len(parts) <= most or not all(parts):
        raise HoldfastError(
            f"{flag} {text!r} cannot be read: {shape} is expected.",
            next_command="holdfast init --help",
            exit_code=EXIT_USAGE,
        )
    return parts


def _host(text: str, hardware: str) -> dict[str, object]:
    parts = _parts(text, "--host", "NAME=ADDRESS=ROLES[=POOL]", 3, 4)
    name, address = parts[:2]
    roles = re.split(r"[+,]", parts[2])
    host: dict[str, object] = {"name": name, "address": address, "roles": roles}
    if "serving" in roles:
        pool = DEFAULT_POOL.get(hardware, hardware.removeprefix("gpu-"))
        host["pool"] = parts[3] if len(parts) == 4 else pool
    return host


def _team(text: str) -> dict[str, object]:
    name, users = _parts(text, "--team", "NAME=USER[,USER]", 2, 2)
    return {"name": name, "users": users.split(",")}


def _model(text: str, answers: Answers, replicas: int | None) -> dict[str, object]:
    identity, source = _parts(text, "--model", "ID=SOURCE", 2, 2)
    folder = Path(source).expanduser()
    if folder.is_dir():
        source = str(folder.absolute())
    serving = [host for host in answers.hosts if "pool" in host]
    pool = serving[0]["pool"] if serving else "cpu"
    members = [host for host in serving if host["pool"] == pool]
    return {
        "id": identity,
        "source": source,
        "pool": pool,
        "replicas": replicas or max(1, len(members)),
        "teams": [team["name"] for team in answers.teams],
    }


def _from_lab(lab: str, answers: Answers) -> None:
    """Take over what a lab wrote about itself: hosts, SSH, networks and canary."""
    path = state_dir() / "lab" / lab / "lab.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise HoldfastError(
            f"There is no lab named {lab!r} here.",
            where=str(path),
            cause=str(error),
            next_command=f"holdfast lab up --name {lab}",
        ) from error
    index = found["index"]
    answers.operators = [f"198.18.{index}.2/32", f"fd98:12:{index}::2/128"]
    answers.users = [f"198.18.{index}.0/24", f"fd98:12:{index}::/64"]
    answers.user = found["ssh"]["user"]
    answers.private_key = found["ssh"]["private_key"]
    answers.known_hosts = found["ssh"]["known_hosts"]
    known = ("ipv4", "ipv6", "tcp_port", "udp_port")
    answers.canary = {key: found["canary"][key] for key in known if key in found["canary"]}
    answers.canary["witness"] = found["canary"]["control"]
    alone = len(found["hosts"]) == 1
    for one in found["hosts"]:
        host: dict[str, object] = {"name": one["name"], "address": one["address"]}
        if one.get("address6"):
            host["address6"] = one["address6"]
        control = one["name"].startswith("control")
        serving = alone or not control
        host["roles"] = ["control"] * (control or alone) + ["serving"] * serving
        if serving:
            host["pool"] = DEFAULT_POOL.get(answers.hardware, "gpu")
        answers.hosts.append(host)


def render(answers: Answers) -> str:
    """Fill the commented template; every value is written as JSON, which is YAML too."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - YAML, not HTML; values are JSON and read back
    )
    environment.filters["value"] = _value
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(vars(answers))


def _value(value: object) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items())
        return f"{{{inside}}}"
    if isinstance(value, list):
        return f"[{', '.join(_value(inner) for inner in value)}]"
    if isinstance(value, str) and re.fullmatch(r"[a-z][a-z/-]*", value):
        # Bare only where YAML reads the word as itself: `no` is a country and a boolean.
        return value if yaml.safe_load(value) == value else json.dumps(value)
    return json.dumps(value)


def _keep(text: str, output: Path) -> None:
    """Write the file whole or not at all, once it has been read back."""
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        parse_site(text, output)
    except SiteError as error:
        raise HoldfastError(
            "These answers make no valid site; nothing was written.\n"
            + "\n".join(f"  {problem}" for problem in error.problems),
            where=str(output),
            next_command="run holdfast init again with other answers",
            exit_code=EXIT_USAGE,
        ) from error
    with tempfile.NamedTemporaryFile(
        "w", dir=output.parent, prefix=f".{output.name}.", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(output)
