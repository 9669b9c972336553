"""Pull one revision of a model from the site's registry; started by systemd.

Argument: a JSON file {hub, model, commit, path, files: {name: {digest, size}}}. The node's token
comes as a credential. What is pulled lies beside `path` until check_model.py has read it; with it
comes the manifest of the commit, signed by the registry. What is there already is let be.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path


def token() -> str:
    """Return the node's token."""
    return Path(os.environ["CREDENTIALS_DIRECTORY"], "token").read_text(encoding="utf-8").strip()


def pull(spec: dict[str, object], staging: Path) -> None:
    """Fetch the revision with the stock client; what a cut run fetched is kept."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - not needed for what is here

    snapshot_download(
        str(spec["model"]),
        revision=str(spec["commit"]),
        local_dir=staging,
        token=token(),
        endpoint=str(spec["hub"]),
        max_workers=4,
    )


def pull_manifest(spec: dict[str, object], path: Path) -> None:
    """Fetch the signed manifest of the commit; whoever checks it knows the registry's key."""
    model = urllib.parse.quote(str(spec["model"]))
    address = f"{spec['hub']}/api/holdfast/models/{model}/manifest/{spec['commit']}"
    request = urllib.request.Request(  # noqa: S310 - the registry's own address
        address, headers={"Authorization": f"Bearer {token()}"}
    )
    # SSL_CERT_FILE of the unit names the site's authority.
    context = ssl.create_default_context()
    try:
        with urllib.request.urlopen(request, timeout=120, context=context) as answer:  # noqa: S310
            content = answer.read()
    except urllib.error.URLError as error:
        sys.exit(f"the registry did not hand out the manifest of {address}: {error}")
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.chmod(0o440)
    fresh.replace(path)


def main() -> None:
    """Bring what is not here yet beside its path."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    final = Path(spec["path"])
    manifest = final.with_name(f"{spec['commit']}.manifest.json")
    final.parent.mkdir(parents=True, exist_ok=True)
    if not manifest.is_file():
        pull_manifest(spec, manifest)
    if not final.is_dir():
        staging = final.with_name(f".{spec['commit']}.partial")
        staging.mkdir(exist_ok=True)
        pull(spec, staging)


if __name__ == "__main__":
    main()
