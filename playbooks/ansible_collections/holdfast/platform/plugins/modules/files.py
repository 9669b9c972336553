"""Bring several files, folders and links of a capability to a wanted state in one call."""

from __future__ import annotations

import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.platform.plugins.module_utils import atomic, systemd_unit

DOCUMENTATION = r"""
module: files
short_description: Several files, folders and links, and the units that read them, in one call
description:
  - One round trip for a whole capability, where a task per file would cost one each.
  - Files are replaced atomically, after their own check command accepted the new content.
author: The Holdfast founders
options:
  directories:
    description: Folders to make, parents first.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The folder., type: path, required: true}
      mode: {description: Octal mode., type: str, default: "0755"}
      owner: {description: Owning user., type: str, default: root}
      group: {description: Owning group., type: str, default: root}
      purge:
        description: Names that may stay in the folder; everything else there is removed.
        type: list
        elements: str
  files:
    description: Files to write.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The file., type: path, required: true}
      content: {description: What it holds., type: str, required: true}
      mode: {description: Octal mode., type: str, default: "0644"}
      owner: {description: Owning user., type: str, default: root}
      group: {description: Owning group., type: str, default: root}
      validate: {description: Command that must accept the new content; %s is the file., type: str}
      secret: {description: Keep the content out of diffs., type: bool, default: false}
  links:
    description: Symbolic links to set.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The link., type: path, required: true}
      target: {description: What it points at., type: str, required: true}
  absent:
    description: Files and links that must not exist.
    type: list
    elements: path
    default: []
  units:
    description: Units to have running with their files as they are now; see module unit.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: The unit., type: str, required: true}
      files: {description: What it reads at its start., type: list, elements: path, default: []}
      verb:
        description: What makes a running unit read its files again.
        type: str
        choices: [restart, reload]
        default: restart
      wait: {description: Seconds to wait until it runs., type: int, default: 60}
"""

EXAMPLES = r"""
- name: Configure the resolver
  holdfast.platform.files:
    files:
      - path: /etc/unbound/unbound.conf
        content: "{{ lookup('ansible.builtin.template', 'unbound.conf.j2') }}"
        validate: unbound-checkconf %s
    units:
      - {name: unbound.service, files: [/etc/unbound/unbound.conf]}
"""

RETURN = r"""
paths:
  description: The paths that differed.
  returned: always
  type: list
  elements: str
did:
  description: What was done to the units.
  returned: always
  type: list
  elements: str
"""

OWNED: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}


class Convergence:
    """What this call found and did; `dry` only looks."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.dry: bool = module.check_mode
        self.paths: list[str] = []
        self.diffs: list[dict[str, str]] = []

    def ids(self, item: dict[str, Any]) -> tuple[int, int]:
        """Return the wanted owner, as numbers."""
        try:
            return atomic.owner_ids(item["owner"], item["group"])
        except KeyError as error:
            if self.dry:  # a first run in check mode has not made the accounts yet
                return (0, 0)
            self.module.fail_json(
                msg=f"{item['path']}: {error.args[0]}; does base_system run first?"
            )
            raise

    def directory(self, item: dict[str, Any]) -> None:
        """Make a folder, and remove what may not be in it."""
        path, mode, ids = Path(item["path"]), int(item["mode"], 8), self.ids(item)
        if not path.is_dir() or atomic.attributes_differ(path, mode, ids):
            self.paths.append(str(path))
            if not self.dry:
                path.mkdir(parents=True, exist_ok=True)
                shutil.chown(path, *ids)
                path.chmod(mode)
        if item.get("purge") is not None and path.is_dir():
            for entry in sorted(path.iterdir()):
                if entry.name not in item["purge"]:
                    self.remove(entry)

    def remove(self, path: Path) -> None:
        """Remove whatever is at the path."""
        self.paths.append(str(path))
        if self.dry:
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def file(self, item: dict[str, Any]) -> None:
        """Write a file whose content differs; mend owner and mode of one that does not."""
        path, mode, ids = Path(item["path"]), int(item["mode"], 8), self.ids(item)
        wanted = item["content"].encode()
        regular = path.exists() and stat.S_ISREG(path.lstat().st_mode)
        found = path.read_bytes() if regular else None
        if found == wanted:
            if atomic.attributes_differ(path, mode, ids):
                self.paths.append(str(path))
                if not self.dry:
                    shutil.chown(path, *ids)
                    path.chmod(mode)
            return
        self.paths.append(str(path))
        hidden = item["secret"]
        self.diffs.append(
            {
                "before_header": str(path),
                "after_header": str(path),
                "before": "(hidden)\n" if hidden else (found or b"").decode(errors="replace"),
                "after": "(hidden, differs)\n" if hidden else item["content"],
            }
        )
        if self.dry:
            return
        if item.get("validate"):
            self.check(path, wanted, item["validate"])
        atomic.write(path, wanted, mode, ids)

    def check(self, path: Path, data: bytes, command: str) -> None:
        """Have the content checked by its own program, or fail with what that said."""
        with tempfile.NamedTemporaryFile(prefix=f"{path.name}.", dir="/tmp") as draft:
            draft.write(data)
            draft.flush()
            Path(draft.name).chmod(0o600)
            arguments = [part.replace("%s", draft.name) for part in shlex.split(command)]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            self.module.fail_json(
                msg=f"{path} was left as it is: {arguments[0]} refused it: {said}"
            )

    def link(self, item: dict[str, Any]) -> None:
        """Set a link."""
        path = Path(item["path"])
        if path.is_symlink() and str(path.readlink()) == item["target"]:
            return
        self.paths.append(str(path))
        if not self.dry:
            atomic.link(path, item["target"])


def main() -> None:
    """Run the module."""
    mode = {"type": "str"}
    module = AnsibleModule(
        argument_spec={
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    **OWNED,
                    "mode": {**mode, "default": "0755"},
                    "purge": {"type": "list", "elements": "str"},
                },
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    **OWNED,
                    "mode": {**mode, "default": "0644"},
                    "content": {"type": "str", "required": True},
                    "validate": {"type": "str"},
                    "secret": {"type": "bool", "default": False, "no_log": False},
                },
            },
            "links": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "target": {"type": "str", "required": True},
                },
            },
            "absent": {"type": "list", "elements": "path", "default": []},
            "units": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": systemd_unit.OPTIONS,
            },
        },
        supports_check_mode=True,
    )
    state = Convergence(module)
    for item in module.params["directories"]:
        state.directory(item)
    # links before files: a file's own check may follow them
    for item in module.params["links"]:
        state.link(item)
    for item in module.params["files"]:
        state.file(item)
    for name in module.params["absent"]:
        if Path(name).exists() or Path(name).is_symlink():
            state.remove(Path(name))
    did = []
    for item in module.params["units"]:
        unit = systemd_unit.Unit(module, item)
        unit.converge()
        did += [f"{verb} {unit.name}" for verb in unit.did]
    module.exit_json(changed=bool(state.paths or did), paths=state.paths, diff=state.diffs, did=did)


if __name__ == "__main__":
    main()
