"""What runs in the embedded form: each service with its command, environment and probe."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict

from holdfast_installer.bundle.durable import write_atomically
from holdfast_installer.plan.context_tokens import stated

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_installer.local.layout import Layout
    from holdfast_installer.profiles import HardwareProfile
    from holdfast_installer.site import Model, Site, VllmValue

LOOPBACK = "127.0.0.1"
CLASSIFICATION = "internal"
NO_DOMAIN = "none.invalid"  # .invalid is never anybody's (RFC 2606)
# The order of the default ports is that of an installed site; taken ones are replaced.
DEFAULT_PORTS = {
    "registry": 8101, "gateway": 8102, "console": 8103, "balancer": 8200, "metrics": 8300,
    "vllm": 8400,
}  # fmt: skip


class Service(BaseModel):
    """One process to keep alive. `probe` answers 200 when it is ready for use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    probe: str
    stop_seconds: int = 20


@dataclass(frozen=True)
class Programs:
    """Folders of the two environments, and of the shared libraries beside them."""

    platform: Path
    vllm: Path
    libraries: Path


@dataclass(frozen=True)
class Placed:
    """A model of the site with the revision that was pulled and the folder it lies in."""

    model: Model
    commit: str
    folder: Path


def port_names(site: Site) -> list[str]:
    """Return a name for every port the site needs here."""
    names = ["registry", "gateway", "console"]
    for pool in dict.fromkeys(model.pool for model in site.models):
        names += [f"balancer-{pool}", f"metrics-{pool}"]
    return names + [f"vllm-{model.id.replace('/', '--')}" for model in site.models]


def base_environment(layout: Layout, name: str) -> dict[str, str]:
    """Return the variables every service gets: the operator's own are not handed on."""
    home = layout.scratch / name
    home.mkdir(parents=True, exist_ok=True)
    return {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),  # noqa: S108 - sockets need a short path
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
    }


def registry(layout: Layout, programs: Programs, site: Site, ports: dict[str, int]) -> Service:
    """Return the model registry, over SQLite."""
    address = f"{LOOPBACK}:{ports['registry']}"
    return Service(
        name="registry",
        command=(
            *(str(programs.platform / "bin/holdfast-model-registry"), "serve"),
            *("--data", str(layout.registry), "--listen", address),
            *("--trust-database", layout.trust_database, "--ledger", str(layout.ledger)),
            *("--seed", str(layout.seed), "--jurisdiction", site.jurisdiction),
            *("--policy", str(layout.policy), "--config", str(layout.registry_settings)),
        ),
        environment=base_environment(layout, "registry"),
        probe=f"http://{address}/healthz",
    )


def gateway(layout: Layout, programs: Programs, ports: dict[str, int]) -> Service:
    """Return the gateway; its configuration is written by `write_gateway`."""
    address = f"{LOOPBACK}:{ports['gateway']}"
    return Service(
        name="gateway",
        command=(
            *(str(programs.platform / "bin/holdfast-gateway"), "serve"),
            *("--config", str(layout.gateway)),
        ),
        environment=base_environment(layout, "gateway"),
        probe=f"http://{address}/healthz",
    )


def console(layout: Layout, programs: Programs, ports: dict[str, int]) -> Service:
    """Return the console; signing in again after a restart costs nobody anything here."""
    address = f"{LOOPBACK}:{ports['console']}"
    return Service(
        name="console",
        command=(
            *(str(programs.platform / "bin/holdfast-console"), "serve"),
            *("--registry", f"http://{LOOPBACK}:{ports['registry']}", "--listen", address),
        ),
        environment=base_environment(layout, "console"),
        probe=f"http://{address}/healthz",
    )


def write_gateway(layout: Layout, site: Site, ports: dict[str, int]) -> None:
    """Write gateway.yml: each model goes to the balancer of its pool."""
    tariffs = {model: each.model_dump(mode="json") for model, each in site.tariffs.items()}
    document = {
        "listen": f"{LOOPBACK}:{ports['gateway']}",
        "database": layout.usage_database,
        "trust": {"database": layout.trust_database},
        "ledger": str(layout.ledger),
        "fairness": {
            **site.fairness.model_dump(mode="json"),
            "teams": {team.name: team.share.model_dump(mode="json") for team in site.teams},
        },
        "currency": site.currency,
        "budgets": [each.model_dump(mode="json", exclude_none=True) for each in site.budgets],
        "budget_rules": site.budget_rules.model_dump(mode="json"),
        "models": [
            {
                "id": model.id,
                "tariff": tariffs.get(model.id),
                "context_tokens": stated(model.vllm),
                "upstream": f"http://{LOOPBACK}:{ports[f'balancer-{model.pool}']}",
                "teams": list(model.teams),
                "labels": {"jurisdiction": site.jurisdiction, "classification": CLASSIFICATION},
            }
            for model in site.models
        ],
    }
    write_atomically(layout.gateway, yaml.safe_dump(document, sort_keys=False).encode(), mode=0o600)


def balancers(
    layout: Layout, programs: Programs, site: Site, ports: dict[str, int]
) -> list[Service]:
    """Return one smg for each pool, its list of workers written."""
    found = []
    for pool in dict.fromkeys(model.pool for model in site.models):
        workers = [
            f'{{"url": "http://{LOOPBACK}:{ports[vllm_name(model)]}"}}'
            for model in site.models
            if model.pool == pool
        ]
        listed = layout.run / f"workers-{pool}.json"
        content = f'{{"version": 1, "workers": [{", ".join(workers)}]}}\n'
        write_atomically(listed, content.encode())
        port = str(ports[f"balancer-{pool}"])
        found.append(
            Service(
                name=f"balancer-{pool}",
                command=(
                    *(str(programs.platform / "bin/smg"), "launch", "--backend", "vllm"),
                    *("--host", LOOPBACK, "--port", port, "--policy", "cache_aware"),
                    *("--prometheus-host", LOOPBACK),
                    *("--prometheus-port", str(ports[f"metrics-{pool}"])),
                    *("--discovery-provider", "file", "--discovery-file", str(listed)),
                    *("--discovery-check-interval-secs", "2", "--disable-tokenizer-autoload"),
                    # Unset, a worker that came back stays unused for minutes.
                    *("--health-check-interval-secs", "2", "--health-check-timeout-secs", "2"),
                    *("--health-failure-threshold", "2", "--health-success-threshold", "1"),
                    *("--worker-startup-check-interval", "1", "--cb-timeout-duration-secs", "5"),
                    *("--shutdown-grace-period-secs", "5", "--history-backend", "none"),
                    *("--log-level", "warn"),
                ),
                environment=base_environment(layout, f"balancer-{pool}"),
                probe=f"http://{LOOPBACK}:{port}/readiness",
            )
        )
    return found


def vllm_name(model: Model) -> str:
    """Return the name of a model's vLLM service and port."""
    return f"vllm-{model.id.replace('/', '--')}"


def vllm(
    layout: Layout,
    programs: Programs,
    hardware: HardwareProfile,
    placed: Placed,
    ports: dict[str, int],
) -> Service:
    """Return the one replica of a model, eager: no compiler is asked of this machine."""
    name, model = vllm_name(placed.model), placed.model
    environment = base_environment(layout, name)
    scratch = layout.scratch / name
    environment |= hardware.vllm.env
    environment |= {
        "HF_HOME": str(scratch / "huggingface"),
        "LD_LIBRARY_PATH": str(programs.libraries),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        # Eager alone is not enough: the first request for logprobs would call a C++ compiler,
        # and where there is none it would end the engine.
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_CACHE_ROOT": str(scratch / "vllm"),
        "VLLM_CONFIG_ROOT": str(scratch / "config"),
        "VLLM_HOST_IP": LOOPBACK,
    }
    port = ports[name]
    options: dict[str, VllmValue] = {**hardware.vllm.args, **model.vllm, "enforce_eager": True}
    return Service(
        name=name,
        command=(
            *(str(programs.vllm / "bin/python"), "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(placed.folder), "--served-model-name", model.id),
            *("--host", LOOPBACK, "--port", str(port)),
            # Unset, or empty, it would fetch an image from any address that a prompt names.
            *("--allowed-media-domains", NO_DOMAIN),
            *_flags(options),
        ),
        environment=environment,
        probe=f"http://{LOOPBACK}:{port}/health",
        stop_seconds=40,
    )


def _flags(options: dict[str, VllmValue]) -> list[str]:
    """Return vLLM options as its command line takes them: max_model_len -> --max-model-len."""
    flags = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{name.replace('_', '-')}")
        else:
            flags += [flag, str(value)]
    return flags
