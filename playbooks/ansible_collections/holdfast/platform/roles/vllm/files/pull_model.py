"""Pull one revision of a model from the site's registry and verify it; started by systemd.

Argument: a JSON file {hub, model, commit, path, files: {name: {digest, size}}}. The node's token
comes as a credential. Nothing appears at `path` before every file has the planned digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

CHUNK = 1 << 20


def measured(path: Path) -> str:
    """Return the digest of a file as the plan writes it."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def shortcomings(folder: Path, files: dict[str, dict[str, str | int]]) -> list[str]:
    """Say what differs from the plan: missing, altered, or not planned at all."""
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }
    problems = [f"{name} is not planned" for name in sorted(found - set(files))]
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif (have := measured(path)) != wanted["digest"]:
            problems.append(f"{name} is {have}, planned {wanted['digest']}")
    return problems


def pull(spec: dict[str, object], staging: Path) -> None:
    """Fetch the revision with the stock client; what a cut run fetched is kept."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - not needed for what is here

    token = Path(os.environ["CREDENTIALS_DIRECTORY"], "token").read_text(encoding="utf-8").strip()
    snapshot_download(
        str(spec["model"]),
        revision=str(spec["commit"]),
        local_dir=staging,
        token=token,
        endpoint=str(spec["hub"]),
        max_workers=4,
    )


def main() -> None:
    """Bring the model to its path or exit with what is wrong."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    final, files = Path(spec["path"]), spec["files"]
    if final.is_dir():
        problems = shortcomings(final, files)
        if not problems:
            return
        print("\n".join(problems), file=sys.stderr)  # noqa: T201 - the journal is the place
        shutil.rmtree(final)
    staging = final.with_name(f".{final.name}.partial")
    staging.mkdir(parents=True, exist_ok=True)
    pull(spec, staging)
    shutil.rmtree(staging / ".cache", ignore_errors=True)
    if problems := shortcomings(staging, files):
        shutil.rmtree(staging)
        sys.exit(f"{spec['model']} is not what was planned and was removed: {'; '.join(problems)}")
    for path in staging.rglob("*"):
        path.chmod(0o750 if path.is_dir() else 0o440)
    staging.chmod(0o750)
    staging.rename(final)


if __name__ == "__main__":
    main()
