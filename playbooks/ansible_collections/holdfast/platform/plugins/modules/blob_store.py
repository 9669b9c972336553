"""Say which blobs of a bundle a host lacks, and lay out the folders that present them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.platform.plugins.module_utils import atomic

DOCUMENTATION = r"""
module: blob_store
short_description: The bundle's blobs as a mirror's folders
description:
  - Links every artifact under the name its clients ask for; the blobs stay where they are.
  - Blobs come in through the action M(holdfast.platform.push_blobs).
author: The Holdfast founders
options:
  root: {description: Folder of the blobs., type: path, required: true}
  tree: {description: Folder of the names., type: path, required: true}
  digest: {description: sha256 of the bundle's manifest., type: str, required: true}
"""

EXAMPLES = r"""
- name: Lay out the mirror
  holdfast.platform.blob_store:
    root: /srv/holdfast/bundle
    tree: /srv/holdfast/mirror
    digest: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
"""

RETURN = r"""
linked:
  description: How many names were added or turned.
  returned: always
  type: int
removed:
  description: How many names of earlier bundles were removed.
  returned: always
  type: int
archive_key:
  description: The OpenPGP key that signed the apt repository, armored.
  returned: always
  type: str
"""


APT = {
    "apt/Packages": ["apt/dists/holdfast/main/binary-amd64/Packages"],
    "apt/InRelease": ["apt/dists/holdfast/InRelease"],
}


def names(artifact: dict[str, Any]) -> list[str]:
    """Return where an artifact appears in the tree; empty for what no client fetches by name."""
    kind, filename, name = artifact["kind"], artifact["filename"], artifact["name"]
    digest = artifact["digest"].removeprefix("sha256:")
    if kind == "deb":
        return [f"apt/pool/{filename}"]
    if kind == "wheel":
        return [f"wheels/{filename}"]
    if kind == "file" and name.startswith("environments/"):
        return [f"environments/{digest}.txt"]
    return APT.get(name, [name]) if kind == "file" else []


def wanted_links(manifest: dict[str, Any], manifest_path: Path, root: Path) -> dict[str, str]:
    """Return name -> absolute path of the blob, for everything the mirror offers."""
    links = {"manifest.json": str(manifest_path)}
    for artifact in manifest["artifacts"]:
        digest = artifact["digest"].removeprefix("sha256:")
        for name in names(artifact):
            links[name] = str(root / "blobs/sha256" / digest[:2] / digest)
    return links


def found_links(tree: Path) -> dict[str, str]:
    """Return name -> target of the links that are there now."""
    found = {}
    for folder, _, files in os.walk(tree):
        for file in files:
            path = Path(folder, file)
            found[str(path.relative_to(tree))] = str(path.readlink()) if path.is_symlink() else ""
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "tree": {"type": "path", "required": True},
            "digest": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    root, tree = Path(module.params["root"]), Path(module.params["tree"])
    digest = module.params["digest"]
    path = root / "blobs/sha256" / digest[:2] / digest
    if not path.exists() and module.check_mode:
        module.exit_json(changed=True, linked=0, removed=0, archive_key="")
    wanted = wanted_links(json.loads(path.read_text()), path, root)
    found = found_links(tree)
    turned = {name: target for name, target in wanted.items() if found.get(name) != target}
    extra = sorted(set(found) - set(wanted))
    if not module.check_mode:
        for name in sorted(turned):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            atomic.link(tree / name, turned[name])
        for name in extra:
            (tree / name).unlink()
    record = root / "manifests" / f"{digest}.json"
    if not record.is_symlink() and not module.check_mode:
        atomic.link(record, f"../blobs/sha256/{digest[:2]}/{digest}")
    key = wanted.get("apt/holdfast-archive.asc")
    module.exit_json(
        changed=bool(turned or extra),
        linked=len(turned),
        removed=len(extra),
        archive_key=Path(key).read_text() if key else "",
    )


if __name__ == "__main__":
    main()
