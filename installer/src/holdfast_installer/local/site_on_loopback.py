"""`up`, `down` and `status` of a whole site on one machine: the order of things."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict

from holdfast_installer.bundle.digests import digest_of_bytes
from holdfast_installer.bundle.durable import only_one, write_atomically
from holdfast_installer.bundle.verify import verify
from holdfast_installer.errors import Finding, HoldfastError
from holdfast_installer.inventory import trusted_signers
from holdfast_installer.local import installing, ports, services, supervision
from holdfast_installer.local.layout import Layout, Remembered, recall, remember
from holdfast_installer.local.limits import LIMITS
from holdfast_installer.local.pulling import pull
from holdfast_installer.profiles import compose, hardware_profile, model_policy
from holdfast_trust.tokens import mint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast_installer.bundle.manifest import Manifest
    from holdfast_installer.local.services import Placed, Programs, Service
    from holdfast_installer.profiles import HardwareProfile
    from holdfast_installer.site import Site

QUESTION = "What is Holdfast?"
_SERVING = "serving"  # the team of whatever serves
_PULLER = "this-machine"  # the service that pulls models; a team's name cannot be a service's too
_READY_SECONDS = {
    "registry": 60.0,
    "gateway": 60.0,
    "console": 60.0,
    "balancer": 120.0,
    "vllm": 900.0,
}


class State(BaseModel):
    """One service as it is now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pid: int
    healthy: bool
    restarts: int
    log: str


class Status(BaseModel):
    """What runs in a state folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: str
    running: bool
    bundle: str
    services: tuple[State, ...]
    not_shown: tuple[Finding, ...] = LIMITS

    @property
    def healthy(self) -> bool:
        """Whether everything that should run does, and answers."""
        return self.running and all(one.healthy for one in self.services)


class Up(BaseModel):
    """What `up` brought up, and how to use it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Status
    hub: str
    api: str
    console: str
    user: str
    token: str
    model: str
    answer: str
    hf_download: str
    curl_chat: str
    openai_client: str
    seconds: float


def up(site: Site, bundle: Path, layout: Layout, say: Callable[[str], None]) -> Up:
    """Bring the site up from the bundle, or reuse what runs; returns when a model has answered."""
    began = time.monotonic()
    user = _check(site)
    layout.prepare()
    with only_one(layout.root / "lock", doing="starting or stopping the local services"):
        known = recall(layout)
        known = known.model_copy(
            update={"ports": _ports(site, known, layout), "tokens": _tokens(site, known)}
        )
        remember(layout, known)
        digest = digest_of_bytes((bundle / "manifest.json").read_bytes()) if bundle.exists() else ""
        wanted = _digest_of_site(site, known)
        if not (digest and (known.bundle, known.site) == (digest, wanted) and _all_there(layout)):
            _bring(site, bundle, layout, known, say)
            remember(layout, known.model_copy(update={"bundle": digest, "site": wanted}))
        elif not supervision.running(layout):
            say("starting what was installed")
            supervision.ensure(layout, supervision.services(layout))
        else:
            say("everything runs already")
        for service in supervision.services(layout):
            _ready(layout, service)
        return _access(site, layout, known, user, began)


def down(layout: Layout) -> bool:
    """Stop everything of this state folder; return whether anything ran. State is kept."""
    if not layout.root.is_dir():
        return False
    with only_one(layout.root / "lock", doing="starting or stopping the local services"):
        return supervision.stop(layout)


def status(layout: Layout) -> Status:
    """Look at every service: its process and whether it answers."""
    known = supervision.report(layout)
    observed = {one.name: one for one in known.services} if known else {}
    states = tuple(
        State(
            name=service.name,
            pid=found.pid if (found := observed.get(service.name)) else 0,
            healthy=known is not None and supervision.answers(service.probe),
            restarts=found.restarts if found else 0,
            log=str(layout.logs / f"{service.name}.log"),
        )
        for service in supervision.services(layout)
    )
    bundle = recall(layout).bundle
    return Status(state=str(layout.root), running=known is not None, bundle=bundle, services=states)


def _check(site: Site) -> str:
    """Return the user the commands are shown for; refuse a site that has nothing to run."""
    served = [model for model in site.models if model.teams]
    users = [
        user
        for team in site.teams
        if served and team.name in served[0].teams
        for user in team.users
    ]
    if users:
        return users[0]
    raise HoldfastError(
        "This site has no model that a user may call, so there is nothing to bring up",
        where="site.yml: models, teams",
        cause="a model needs a team, and the team a user",
        next_command="holdfast init --help shows --model and --team",
    )


def _all_there(layout: Layout) -> bool:
    return bool(supervision.services(layout)) and layout.seed.exists()


def _ports(site: Site, known: Remembered, layout: Layout) -> dict[str, int]:
    ours = frozenset(known.ports.values()) if supervision.running(layout) else frozenset[int]()
    return ports.choose(services.port_names(site), known.ports, ours)


def _tokens(site: Site, known: Remembered) -> dict[str, str]:
    """Return a token for every user and for the service that pulls; those of before are kept."""
    users = dict.fromkeys(user for team in site.teams for user in team.users)
    return {name: known.tokens.get(name) or mint() for name in (*users, _PULLER)}


def _digest_of_site(site: Site, known: Remembered) -> str:
    text = json.dumps(
        {
            "models": [model.model_dump(mode="json") for model in site.models],
            "teams": [team.model_dump(mode="json") for team in site.teams],
            "jurisdiction": site.jurisdiction,
            "ports": known.ports,
            "policy": model_policy(compose(site)),
            "signers": trusted_signers(site),
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _bring(
    site: Site, folder: Path, layout: Layout, known: Remembered, say: Callable[[str], None]
) -> None:
    """Install what is missing and have the right services run."""
    say("verifying the bundle")
    bundle = verify(folder.absolute())
    hardware = _hardware(site, bundle.manifest)
    placed_in = bundle.models()
    installed = installing.programs(bundle, layout, hardware, say)
    _write_seed(site, layout, known)
    policy = yaml.safe_dump(model_policy(compose(site)), sort_keys=False)
    write_atomically(layout.policy, policy.encode(), mode=0o600)
    settings = yaml.safe_dump({"signers": trusted_signers(site)}, sort_keys=False)
    write_atomically(layout.registry_settings, settings.encode(), mode=0o600)
    say("importing the models into the registry")
    installing.import_models(bundle, layout, installed, site)
    registry = services.registry(layout, installed, site, known.ports)
    running = supervision.services(layout) if supervision.running(layout) else []
    if registry not in running:
        supervision.ensure(layout, [registry])
    _ready(layout, registry)
    placed = []
    for model in site.models:
        files = next((files for (name, _), files in placed_in.items() if name == model.id), None)
        if files is None:
            raise HoldfastError(
                f"The bundle has no model {model.id}",
                where=str(folder),
                next_command="holdfast bundle lock --site site.yml, then bundle build",
            )
        installing.check_approved(layout, installed, model.id, files[0].version)
        say(f"pulling {model.id} from the local registry")
        path = pull(
            layout, installed, files, port=known.ports["registry"], token=known.tokens[_PULLER]
        )
        placed.append(services.Placed(model=model, commit=files[0].version, folder=path))
    supervision.ensure(layout, _everything(site, layout, installed, hardware, placed, known.ports))


def _everything(  # noqa: PLR0913, PLR0917 - all that a site consists of
    site: Site,
    layout: Layout,
    installed: Programs,
    hardware: HardwareProfile,
    placed: list[Placed],
    chosen: dict[str, int],
) -> list[Service]:
    services.write_gateway(layout, site, chosen)
    return [
        services.registry(layout, installed, site, chosen),
        *(services.vllm(layout, installed, hardware, one, chosen) for one in placed),
        *services.balancers(layout, installed, site, chosen),
        services.gateway(layout, installed, chosen),
        services.console(layout, installed, chosen),
    ]


def _hardware(site: Site, manifest: Manifest) -> HardwareProfile:
    """Return the hardware profile: the site's word, or the only one the bundle has wheels for."""
    carried = [name.removeprefix("vllm-") for name in manifest.environments if "vllm-" in name]
    asked = site.profiles.hardware
    if asked == "auto" and "cpu-low-power" in carried:
        return hardware_profile("cpu-low-power")
    if asked in carried:
        return hardware_profile(asked)
    raise HoldfastError(
        "The bundle has no vLLM for this machine",
        where="site.yml: profiles.hardware",
        cause=f"asked for {asked}; the bundle carries {', '.join(carried) or 'none'}",
        next_command="set profiles.hardware to cpu-low-power, then lock and build the bundle again",
    )


def _write_seed(site: Site, layout: Layout, known: Remembered) -> None:
    teams: dict[str, list[str]] = {}
    for team in site.teams:
        for user in team.users:
            teams.setdefault(user, []).append(team.name)
    document = {
        "teams": [team.name for team in site.teams],
        "users": [
            {"name": user, "teams": names, "tokens": [_token("local", known.tokens[user])]}
            for user, names in teams.items()
        ],
        "services": [
            {
                "name": _PULLER,
                "teams": [_SERVING],
                "tokens": [_token("local", known.tokens[_PULLER])],
            }
        ],
    }
    write_atomically(layout.seed, yaml.safe_dump(document, sort_keys=False).encode(), mode=0o600)


def _token(name: str, secret: str) -> dict[str, str]:
    return {"name": name, "secret": secret}


def _ready(layout: Layout, service: Service) -> None:
    supervision.wait_ready(layout, service, _READY_SECONDS[service.name.partition("-")[0]])


def _access(site: Site, layout: Layout, known: Remembered, user: str, began: float) -> Up:
    """Ask the model through the gateway, and write down how others do."""
    model = next(one for one in site.models if one.teams)
    hub = f"http://{services.LOOPBACK}:{known.ports['registry']}"
    api = f"http://{services.LOOPBACK}:{known.ports['gateway']}/v1"
    token = known.tokens[user]
    programs = next(
        Path(one.command[0]).parent
        for one in supervision.services(layout)
        if one.name == services.vllm_name(model)
    )
    question = {"model": model.id, "messages": [{"role": "user", "content": QUESTION}]}
    program = (
        "import openai; stream = openai.OpenAI().chat.completions.create("
        f'model="{model.id}", stream=True, '
        f'messages=[{{"role": "user", "content": "{QUESTION}"}}]); '
        '[print(part.choices[0].delta.content or "", end="", flush=True) '
        "for part in stream if part.choices]; print()"
    )
    return Up(
        status=status(layout),
        hub=hub,
        api=api,
        console=f"http://{services.LOOPBACK}:{known.ports['console']}",
        user=user,
        token=token,
        model=model.id,
        answer=_ask(api, token, question),
        hf_download=f"HF_ENDPOINT={hub} HF_TOKEN={token} {programs / 'hf'} download {model.id}",
        curl_chat=(
            f"curl --silent --show-error {api}/chat/completions "
            f"-H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' "
            f"-d '{json.dumps(question)}'"
        ),
        openai_client=(
            f"OPENAI_BASE_URL={api} OPENAI_API_KEY={token} {programs / 'python'} -c '{program}'"
        ),
        seconds=round(time.monotonic() - began, 1),
    )


def _ask(api: str, token: str, question: Mapping[str, object]) -> str:
    """Return a model's greedy answer, as any client gets it."""
    request = urllib.request.Request(  # noqa: S310 - our own http URL
        f"{api}/chat/completions",
        json.dumps({**question, "temperature": 0, "max_tokens": 120}).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310 - as above
            answer = json.load(response)
    except OSError as problem:
        raise HoldfastError(
            "Everything runs, but the gateway did not answer a question",
            where=api,
            cause=str(problem),
            next_command="holdfast status --local",
        ) from problem
    return str(answer["choices"][0]["message"]["content"]).strip()
