"""Install Debian packages in one transaction, and once per bundle bring all of them up to date."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: packages
short_description: Debian packages of a host, in one transaction
description:
  - Asks dpkg first, so that a host that has everything costs a tenth of a second.
  - No file is synced on its own; packages that a power cut caught in between are unpacked again.
  - Services are not started by the installation; their own roles do that, configured.
author: The Holdfast founders
options:
  names: {description: Packages to have., type: list, elements: str, required: true}
  release:
    description: Identity of the bundle; a new one upgrades what is installed from it.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Install the packages of this host
  holdfast.platform.packages:
    names: [nginx-light, unbound]
    release: "{{ base_system_release }}"
"""

RETURN = r"""
missing:
  description: The packages that were not installed.
  returned: always
  type: list
  elements: str
"""

STAMP = Path("/var/lib/holdfast/packages.release")
# While it is there, what was installed since may not be on the disk: the boot, and what was there.
UNSETTLED = Path("/var/lib/holdfast/packages.unsettled")
BOOT = Path("/proc/sys/kernel/random/boot_id")
POLICY = Path("/usr/sbin/policy-rc.d")
NO_STARTS = "#!/bin/sh\n# holdfast: the roles start services, configured\nexit 101\n"
QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def installed() -> set[str]:
    """Return the names that dpkg holds as fully installed."""
    out = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package}\t${db:Status-Status}\n"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pairs = (line.split("\t") for line in out.splitlines())
    return {name for name, state in pairs if state == "installed"}


def begin(there: set[str]) -> list[str]:
    """Note that packages begin to change; return those that a power cut may have spoiled."""
    boot = BOOT.read_text().strip()
    try:
        noted = json.loads(UNSETTLED.read_text())
        if noted["boot"] == boot:
            return []  # killed, not cut off: the kernel still holds every byte
        spoiled = sorted(there - set(noted["there"]))
        there = set(noted["there"])
    except FileNotFoundError:
        spoiled = []
    except (ValueError, KeyError):
        spoiled = sorted(there)  # the note itself was caught
    UNSETTLED.parent.mkdir(parents=True, exist_ok=True)
    with UNSETTLED.open("w") as note:
        json.dump({"boot": boot, "there": sorted(there)}, note)
        note.flush()
        os.fsync(note.fileno())
    return spoiled


def settle(release: str) -> None:
    """Put all of it on the disk, then say so."""
    os.sync()
    STAMP.write_text(release + "\n")
    UNSETTLED.unlink(missing_ok=True)


def run(module: AnsibleModule, *command: str) -> None:
    """Run one step or fail with the end of what it said."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **QUIET},
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        module.fail_json(msg=f"{' '.join(command[:4])} failed:\n{said}")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "release": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    there = installed()
    missing = sorted(set(module.params["names"]) - there)
    current = STAMP.read_text().strip() if STAMP.exists() else ""
    stale = current != module.params["release"] or UNSETTLED.exists()
    if not (missing or stale) or module.check_mode:
        module.exit_json(changed=bool(missing or stale), missing=missing)
    spoiled = begin(there)
    # the mark tells a file that a killed run left behind from one that somebody else wants
    ours = not POLICY.exists() or POLICY.read_text() == NO_STARTS
    if ours:
        POLICY.write_text(NO_STARTS)
        POLICY.chmod(0o755)
    try:
        apt = ("apt-get", "--yes", "--quiet", "--option", "DPkg::Lock::Timeout=120")
        # one sync at the end instead of one after every file
        keep = (
            "--option",
            "Dpkg::Options::=--force-unsafe-io",
            "--option",
            "Dpkg::Options::=--force-confdef",
            "--option",
            "Dpkg::Options::=--force-confold",
        )
        # a run killed in the middle leaves packages unpacked: finish those first
        run(module, "dpkg", "--configure", "--pending", "--force-confdef", "--force-confold")
        run(module, *apt, "--error-on=any", "update")
        run(module, *apt, *keep, "--no-install-recommends", "install", *module.params["names"])
        if spoiled:
            run(module, *apt, *keep, "--reinstall", "install", *spoiled)
        if stale:
            run(module, *apt, *keep, "upgrade")
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)
    settle(module.params["release"])
    module.exit_json(changed=True, missing=missing)


if __name__ == "__main__":
    main()
