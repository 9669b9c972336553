"""Keep a systemd unit running with the files it reads as they are now."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.platform.plugins.module_utils import systemd_unit

DOCUMENTATION = r"""
module: unit
short_description: A systemd unit, enabled, running, and started after its files last changed
description:
  - Handlers forget when a run is killed between the change and the restart. This module looks
    instead. A unit that started before one of O(files) changed is restarted or reloaded.
  - Where the same role writes the files, M(holdfast.platform.files) does both in one call.
author: The Holdfast founders
options:
  name: {description: The unit., type: str, required: true}
  files:
    description: Files and links the unit reads at its start; a folder stands for its entries.
    type: list
    elements: path
    default: []
  verb:
    description: What makes a running unit read its files again.
    type: str
    choices: [restart, reload]
    default: restart
  wait: {description: Seconds to wait until it runs., type: int, default: 60}
"""

EXAMPLES = r"""
- name: Run the resolver
  holdfast.platform.unit:
    name: unbound.service
    files: [/etc/unbound/unbound.conf]
"""

RETURN = r"""
did:
  description: What was done, in order.
  returned: always
  type: list
  elements: str
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=systemd_unit.OPTIONS, supports_check_mode=True)
    unit = systemd_unit.Unit(module, module.params)
    unit.converge()
    module.exit_json(changed=bool(unit.did), did=unit.did)


if __name__ == "__main__":
    main()
