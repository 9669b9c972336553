"""Turns a Site and its Plan into the inventory that Ansible reads."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any  # Any: an inventory is nested plain data

import yaml

from holdfast_installer.errors import HoldfastError
from holdfast_installer.profiles import compose, hardware_profile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast_installer.plan.model import HostPlan, Plan
    from holdfast_installer.site import Site

# What no playbook needs, and of the other hosts what only they need.
LEFT_OUT: dict[str, Any] = {
    "blockers": True,
    "notes": True,
    "steps": True,
    "hosts": {
        "__all__": {
            "firewall",
            "environments",
            "debian",
            "certificate",
            "standing",
            "others",
            "replacements",
            "retiring",
        }
    },
}
TEMPLATE = re.compile(r"\{\{|\{%|\{#")


def make_inventory(site: Site, plan: Plan, bundle: Path, operator: str = "") -> dict[str, Any]:
    """Return the inventory as plain data: `site`, `plan`, `profile`, … for all, `host` each.

    `bundle` is the folder of the verified bundle on the operator's machine, `operator` who applies.

    Raises `HoldfastError` where a value would be read by Ansible as a template.
    """
    hosts = {name: _host(site, host) for name, host in plan.hosts.items()}
    groups: dict[str, Any] = {
        role: {"hosts": {host.name: {} for host in site.with_role(role)}}
        for role in ("control", "serving")
    }
    for pool in site.pools():
        members: dict[str, Any] = {host.name: {} for host in site.in_pool(pool)}
        groups[f"pool_{pool.replace('-', '_')}"] = {"hosts": members}
    groups["rolling"] = {"hosts": {h.name: {} for h in plan.hosts.values() if h.replacements}}
    groups["retiring"] = {"hosts": {h.name: {} for h in plan.hosts.values() if h.retiring}}
    inventory = {
        "all": {
            "vars": {
                "site": site.model_dump(mode="json"),
                "plan": plan.model_dump(mode="json", exclude=LEFT_OUT),
                "profile": compose(site).parameters(),
                "bundle": str(bundle.resolve()),
                "operator": operator,
                "signers": trusted_signers(site),
            },
            "hosts": hosts,
            "children": groups,
        }
    }
    _refuse_templates(inventory)
    return inventory


def inventory_text(site: Site, plan: Plan, bundle: Path, operator: str = "") -> str:
    """Return the inventory as the YAML text that is given to Ansible."""
    document = make_inventory(site, plan, bundle, operator)
    return yaml.safe_dump(document, sort_keys=False, width=100)


def trusted_signers(site: Site) -> list[dict[str, str]]:
    """Return the site's signers as the registry reads them: with their keys, not files' names."""
    return [{"name": signer.name, "key": _key(signer.key)} for signer in site.signers]


def _key(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise HoldfastError(
            "The key of a signer cannot be read.",
            where=str(path),
            cause=str(error),
            next_command="correct signers[].key in site.yml",
        ) from error


def _host(site: Site, host: HostPlan) -> dict[str, Any]:
    variables: dict[str, Any] = {
        "ansible_host": host.address,
        "ansible_port": site.ssh.port,
        "ansible_user": site.ssh.user,
        "ansible_ssh_private_key_file": str(site.ssh.private_key),
        "ansible_ssh_common_args": ssh_common_args(site),
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    if site.ssh.user != "root":
        variables["ansible_become"] = True
    entry = host.model_dump(mode="json")
    entry["hardware_profile"] = (
        hardware_profile(host.hardware).model_dump(mode="json") if host.hardware else {}
    )
    variables["host"] = entry
    return variables


def ssh_common_args(site: Site) -> str:
    """Return the ssh options that keep to the site's host keys and private key."""
    options = {
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(site.ssh.known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
    }
    return " ".join(f"-o {shlex.quote(f'{name}={value}')}" for name, value in options.items())


def _refuse_templates(inventory: dict[str, Any]) -> None:
    found = [where for where, text in _strings(inventory, "") if TEMPLATE.search(text)]
    if found:
        raise HoldfastError(
            "A value of the site would be read by Ansible as a template.",
            where=", ".join(found),
            cause="it holds {{, {% or {#",
            next_command="write the value in site.yml without these signs",
        )


def _strings(value: object, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(str(key), f"{where} (key)")
            yield from _strings(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings(inner, f"{where}[{index}]")
