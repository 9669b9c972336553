"""Stop and disable units of a family that are no longer wanted."""

from __future__ import annotations

import fnmatch
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: strays
short_description: Units of a family that are no longer wanted are stopped and disabled
description:
  - A unit whose files are gone runs on. This module looks for units by a pattern, running or
    enabled, and lets go of those that are not in O(keep).
author: The Holdfast founders
options:
  units: {description: Pattern of unit names., type: str, required: true}
  keep: {description: Units to leave as they are., type: list, elements: str, required: true}
"""

EXAMPLES = r"""
- name: Let go of gateways that are no longer wanted
  holdfast.platform.strays:
    units: holdfast-gateway*.service
    keep: [holdfast-gateway@1.service]
"""

RETURN = r"""
gone:
  description: The units that were let go.
  returned: always
  type: list
  elements: str
"""

UNITS = Path("/etc/systemd/system")


def enabled(pattern: str, units: Path = UNITS) -> set[str]:
    """Return the units that something pulls in at boot."""
    return {link.name for link in units.glob("*.wants/*") if fnmatch.fnmatch(link.name, pattern)}


def loaded(listing: str) -> set[str]:
    """Return the units of a `systemctl list-units --plain` that are not simply remembered."""
    rows = (line.split() for line in listing.splitlines())
    return {row[0] for row in rows if len(row) >= 3 and row[2] not in {"inactive", "failed"}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "str", "required": True},
            "keep": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    pattern = module.params["units"]
    command = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", pattern]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    gone = sorted((loaded(listed) | enabled(pattern)) - set(module.params["keep"]))
    for unit in gone:
        if module.check_mode:
            continue
        subprocess.run(
            ["systemctl", "disable", "--now", "--", unit], capture_output=True, check=False
        )
        left = subprocess.run(
            ["systemctl", "stop", "--", unit], capture_output=True, text=True, check=False
        )
        if left.returncode:
            module.fail_json(msg=f"{unit} does not stop: {left.stderr.strip()}", gone=gone)
    module.exit_json(changed=bool(gone), gone=gone)


if __name__ == "__main__":
    main()
