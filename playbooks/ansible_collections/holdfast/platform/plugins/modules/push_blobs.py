"""Documentation of the action push_blobs, which runs on the operator's machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: push_blobs
short_description: Carry the blobs of a verified bundle to a host
description:
  - Asks the host which digests it lacks and streams just those, one tar over the inventory's ssh.
  - The host verifies each blob against its name before it gets that name, so a run that was cut
    goes on with the blobs that are still missing.
author: The Holdfast founders
options:
  bundle: {description: Folder of the bundle on the operator's machine., type: path, required: true}
  digest:
    description: sha256 of the bundle's manifest as it was verified; another one is refused.
    type: str
    required: true
  root: {description: Folder of the blobs on the host., type: path, required: true}
"""

EXAMPLES = r"""
- name: Carry the bundle
  holdfast.platform.push_blobs:
    bundle: /media/bundle
    digest: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
    root: /srv/holdfast/bundle
"""

RETURN = r"""
pushed:
  description: How many blobs were carried.
  returned: always
  type: int
bytes:
  description: Their size.
  returned: always
  type: int
"""
