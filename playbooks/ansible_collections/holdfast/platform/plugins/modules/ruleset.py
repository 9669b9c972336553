"""Load an nftables table so that a mistake in it is taken back, and notice when it was altered."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: ruleset
short_description: One nftables table, loaded whole, with a way back
description:
  - Compares what the kernel holds with what was last loaded, so that a flushed or altered table is
    seen although its file is untouched.
  - Refuses to load a table under which the operator's own address could not open a new connection.
  - A loaded table is taken back after O(seconds) unless a task over a new connection confirms it.
author: The Holdfast founders
options:
  path: {description: File that defines the table and nothing else., type: path, required: true}
  table: {description: Family and name., type: str, default: inet holdfast}
  phase:
    description: Load it or confirm what was loaded.
    type: str
    choices: [load, confirm]
    required: true
  operators:
    description: Networks that the file lets in over SSH.
    type: list
    elements: str
    default: []
  seconds: {description: Time until an unconfirmed table is taken back., type: int, default: 60}
"""

EXAMPLES = r"""
- name: Load the rules
  holdfast.platform.ruleset:
    path: /etc/nftables.conf
    phase: load
    operators: [192.0.2.0/24]
"""

RETURN = r"""
pending:
  description: Whether a confirmation is awaited.
  returned: always
  type: bool
"""

STATE = Path("/var/lib/holdfast/ruleset.json")
PREVIOUS = Path("/run/holdfast-ruleset-previous.nft")
UNIT = "holdfast-ruleset-rollback"
NFT = "/usr/sbin/nft"


def held(table: str) -> str:
    """Return the table as the kernel holds it, without counts; empty when it is absent."""
    done = subprocess.run(
        [NFT, "--stateless", "list", "table", *table.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else ""


def digest(text: str) -> str:
    """Return the sha256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def reachable(operators: list[str]) -> str:
    """Return the operator's address if the rules would shut it out, empty if they let it in."""
    client = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    if not client:
        return ""
    address = ipaddress.ip_address(client)
    networks = [ipaddress.ip_network(network) for network in operators]
    return (
        ""
        if any(address in network for network in networks if network.version == address.version)
        else client
    )


def load(module: AnsibleModule, table: str, source: Path) -> None:
    """Arm the way back, then load the file in one transaction."""
    before = held(table)
    PREVIOUS.write_text(f"table {table}\ndelete table {table}\n{before}")
    subprocess.run(["systemctl", "stop", f"{UNIT}.timer"], capture_output=True, check=False)
    arm = [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={UNIT}",
        f"--on-active={module.params['seconds']}",
        NFT,
        "-f",
        str(PREVIOUS),
    ]
    for command in (arm, [NFT, "-f", str(source)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            subprocess.run(["systemctl", "stop", f"{UNIT}.timer"], capture_output=True, check=False)
            module.fail_json(msg=f"{command[0]} refused: {done.stderr.strip()[-1500:]}")


def confirm(module: AnsibleModule, table: str, source: Path) -> None:
    """Keep the loaded table; it is an error if it was taken back already."""
    stopped = subprocess.run(
        ["systemctl", "stop", f"{UNIT}.timer"], capture_output=True, check=False
    )
    if stopped.returncode:
        module.fail_json(
            msg="the rules were taken back before a new connection came through; "
            "networks.operators of the site must hold the address this run comes from"
        )
    STATE.parent.mkdir(parents=True, exist_ok=True)
    STATE.write_text(
        json.dumps({"source": digest(source.read_text()), "held": digest(held(table))})
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "table": {"type": "str", "default": "inet holdfast"},
            "phase": {"type": "str", "choices": ["load", "confirm"], "required": True},
            "operators": {"type": "list", "elements": "str", "default": []},
            "seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    table, source = module.params["table"], Path(module.params["path"])
    if module.params["phase"] == "confirm":
        if not module.check_mode:
            confirm(module, table, source)
        module.exit_json(changed=True, pending=False)
    if not source.exists() and module.check_mode:
        module.exit_json(changed=True, pending=False)
    state = json.loads(STATE.read_text()) if STATE.exists() else {}
    if state == {"source": digest(source.read_text()), "held": digest(held(table))}:
        module.exit_json(changed=False, pending=False)
    if shut_out := reachable(module.params["operators"]):
        module.fail_json(
            msg=f"the rules would shut out {shut_out}, from where this run comes; "
            "networks.operators of the site has "
            f"{', '.join(module.params['operators'])}. Nothing was loaded.",
        )
    if not module.check_mode:
        load(module, table, source)
    module.exit_json(changed=True, pending=not module.check_mode)


if __name__ == "__main__":
    main()
