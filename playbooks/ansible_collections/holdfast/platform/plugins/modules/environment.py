"""Build a Python environment from hash-pinned wheels, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import ssl
import subprocess
import urllib.request
import zipfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: environment
short_description: A virtual environment, built by uv from the site's own wheels
description:
  - The folder is named after the digest of its requirements, so another set is another folder.
  - An environment cannot be moved once built. One that a killed run left behind has no C(.complete)
    file, and is built anew; what was unpacked before the kill is used again.
author: The Holdfast founders
options:
  name: {description: Name of the environment., type: str, required: true}
  digest: {description: sha256 of its requirements file, in hex., type: str, required: true}
  bundle:
    description: sha256 of the bundle's manifest, in hex. The manifest names the uv to build with.
    type: str
    required: true
  source:
    description: Folder or https address of C(manifest.json), C(environments/) and C(wheels/).
    type: str
    required: true
  root: {description: Folder of the environments., type: path, default: /opt/holdfast/environments}
  ca: {description: Authority that the source's certificate is checked against., type: path}
  python: {description: Interpreter., type: path, default: /usr/bin/python3}
  compile:
    description: Compile every module now; otherwise the first start compiles those it imports.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Build the platform's environment
  holdfast.platform.environment:
    name: platform
    digest: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    bundle: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
    source: https://mirror.example.internal:8443
    ca: /etc/holdfast/tls/ca.pem
"""

RETURN = r"""
path:
  description: The environment.
  returned: always
  type: str
"""


def fetch(module: AnsibleModule, name: str, digest: str) -> bytes:
    """Return one file of the source, verified."""
    source = module.params["source"].rstrip("/")
    if source.startswith("https://"):
        context = ssl.create_default_context(cafile=module.params["ca"])
        with urllib.request.urlopen(f"{source}/{name}", timeout=60, context=context) as answer:  # noqa: S310 - https only
            data: bytes = answer.read()
    else:
        data = Path(source, name).read_bytes()
    if (measured := hashlib.sha256(data).hexdigest()) != digest:
        module.fail_json(msg=f"{source}/{name} has digest {measured}, the bundle says {digest}")
    return data


def uv_program(module: AnsibleModule, root: Path) -> Path:
    """Return the uv of the bundle, unpacked once for each digest."""
    manifest = json.loads(fetch(module, "manifest.json", module.params["bundle"]))
    wheels = [
        item for item in manifest["artifacts"] if item["kind"] == "wheel" and item["name"] == "uv"
    ]
    if not wheels:
        module.fail_json(
            msg="the bundle holds no wheel of uv: build it with this release's software profile"
        )
    filename, digest = wheels[0]["filename"], wheels[0]["digest"].removeprefix("sha256:")
    program = root / ".uv" / digest[:12] / "uv"
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    wheel = program.with_name("uv.whl.partial")
    wheel.write_bytes(fetch(module, f"wheels/{filename}", digest))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".data/scripts/uv"))
        partial = program.with_name("uv.partial")
        partial.write_bytes(archive.read(member))
    partial.chmod(0o755)
    partial.rename(program)
    wheel.unlink()
    return program


def build(module: AnsibleModule, path: Path, root: Path) -> None:
    """Make the environment at its final path and mark it complete."""
    uv = uv_program(module, root)
    cache = root / f".cache-{path.name}"
    requirements = root / f".{path.name}.txt"
    requirements.write_bytes(
        fetch(module, f"environments/{module.params['digest']}.txt", module.params["digest"])
    )
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "UV_CACHE_DIR": str(cache),
        "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    if module.params["ca"]:
        environment["SSL_CERT_FILE"] = module.params["ca"]
    shutil.rmtree(path, ignore_errors=True)
    steps = (
        [str(uv), "venv", "--quiet", "--python", module.params["python"], str(path)],
        [
            str(uv),
            "pip",
            "install",
            "--quiet",
            "--python",
            str(path / "bin/python"),
            "--require-hashes",
            "--no-index",
            "--no-deps",
            "--find-links",
            f"{module.params['source']}/wheels/",
            *(["--compile-bytecode"] if module.params["compile"] else []),
            "--requirement",
            str(requirements),
        ],
    )
    for step in steps:
        done = subprocess.run(step, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            module.fail_json(
                msg=f"uv {step[1]} failed for {path.name}:\n{done.stderr.strip()[-2000:]}"
            )
    (path / ".complete").write_text(module.params["digest"] + "\n")
    os.sync()
    shutil.rmtree(cache, ignore_errors=True)
    requirements.unlink()


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "name": text,
            "digest": text,
            "bundle": text,
            "source": text,
            "root": {"type": "path", "default": "/opt/holdfast/environments"},
            "ca": {"type": "path"},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "compile": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    path = root / f"{module.params['name']}-{module.params['digest'][:12]}"
    changed = not (path / ".complete").exists()
    if changed and not module.check_mode:
        root.mkdir(parents=True, exist_ok=True)
        build(module, path, root)
    module.exit_json(changed=changed, path=str(path))


if __name__ == "__main__":
    main()
