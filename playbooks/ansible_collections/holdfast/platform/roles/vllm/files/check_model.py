"""Decide whether the files of a model may be served: against the plan and the registry's manifest.

Arguments: what to do, and the JSON file {hub, model, commit, path, key, files}. The manifest of
the commit, signed by the registry, lies beside the folder; its public key came with the installer.
Every byte is read once a boot; after that the times, sizes and inodes that were noted then tell
whether a file was touched since, so that a server that crashed starts again at once.

--pull-with PYTHON   pull what is not here with that environment's client, then check
--stamp              only ask for the note; what a server that is about to start does
--set-aside          move an altered model away, so that it is pulled anew; what an apply does
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1 << 20
NOTES = Path("/run/holdfast-model")  # gone with every boot
PULL = Path(__file__).with_name("pull_model.py")
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://holdfast.invalid/commit-manifest/v1"
SOME = 5


class Model:
    """One revision on this host, as the plan describes it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.name: str = spec["model"]
        self.commit: str = spec["commit"]
        self.path = Path(spec["path"])
        self.key = Path(spec["key"])
        self.planned: dict[str, dict[str, Any]] = spec["files"]
        self.partial = self.path.with_name(f".{self.commit}.partial")
        self.manifest = self.path.with_name(f"{self.commit}.manifest.json")
        self.note = NOTES / f"{self.name.replace('/', '--')}@{self.commit}.json"

    def bound_by(self) -> str:
        """Return a digest over all that the decision rests on but the files themselves."""
        digest = hashlib.sha256(json.dumps(self.planned, sort_keys=True).encode())
        for path in (self.manifest, self.key):
            digest.update(path.read_bytes() if path.is_file() else b"missing")
        return digest.hexdigest()


def measured(path: Path) -> str:
    """Return the digest of a file as the plan writes it."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def look(folder: Path) -> dict[str, list[int]]:
    """Return what tells that a file was touched, by its path: a write always moves its ctime."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if (path.is_dir() and not path.is_symlink()) or ".cache" in name.parts:
            continue
        seen = path.lstat()
        found[str(name)] = [seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns]
    return found


def signed_files(model: Model) -> dict[str, tuple[str, int]]:
    """Return what the registry signed for this commit; ValueError says why nothing can be."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - a stamp needs none
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_public_key,
    )

    try:
        key: Any = load_pem_public_key(model.key.read_bytes())  # Ed25519; others lack this verify
        envelope = json.loads(model.manifest.read_bytes())
        payload = base64.b64decode(envelope["payload"], validate=True)
        head = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode()
        key.verify(base64.b64decode(envelope["signatures"][0]["sig"]), head + payload)
        statement = json.loads(payload)
        said = statement["predicate"]
        signed = {
            each["path"]: (f"sha256:{each['sha256']}", each["size"]) for each in said["files"]
        }
        of_this = statement["predicateType"] == PREDICATE and said["commit"] == model.commit
    except InvalidSignature:
        raise ValueError("its signature is not the registry's") from None
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from error
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(str(error)) from error
    if not of_this:
        raise ValueError("it speaks of another commit")
    return signed


def contradictions(model: Model) -> list[str]:
    """Say where the plan and the registry's signed manifest differ."""
    try:
        signed = signed_files(model)
    except ValueError as error:
        return [f"no signed manifest of this commit: {error}"]
    planned = {name: (file["digest"], file["size"]) for name, file in model.planned.items()}
    return [
        f"{name}: planned {planned.get(name, ('nothing',))[0]}, "
        f"the registry signed {signed.get(name, ('nothing',))[0]}"
        for name in sorted(planned.keys() | signed.keys())
        if planned.get(name) != signed.get(name)
    ]


def shortcomings(folder: Path, model: Model) -> list[str]:
    """Say what differs from the plan: missing, altered, or not planned at all."""
    found = look(folder)
    problems = [f"{name} is not planned" for name in sorted(set(found) - set(model.planned))]
    for name, wanted in model.planned.items():
        path = folder / name
        if name not in found or path.is_symlink():
            problems.append(f"{name} is missing")
        elif (have := measured(path)) != wanted["digest"]:
            problems.append(f"{name} was altered: it is {have}, planned {wanted['digest']}")
    return problems


def noted(model: Model) -> dict[str, Any]:
    """Return the note of the last check of this boot, empty if there is none."""
    try:
        note: dict[str, Any] = json.loads(model.note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note


def holds(model: Model) -> list[str]:
    """Return nothing if every file is as it was when all of them were read, or else why not."""
    note = noted(model)
    if not note:
        return [
            f"not checked since this host started; see the log of the unit that does: {helper()}"
        ]
    if note["problems"]:
        return [str(each) for each in note["problems"]]
    if note["bound_by"] != model.bound_by():
        return ["the plan or the registry's manifest changed since the check"]
    seen, known = look(model.path), note["seen"]
    return [
        f"{name} changed since it was checked at {note['checked']}"
        for name in sorted(seen.keys() | known.keys())
        if seen.get(name) != known.get(name)
    ]


def check(model: Model) -> list[str]:
    """Read every file unless this boot did already; note the outcome and return what is wrong."""
    if model.path.is_dir() and not holds(model):
        return []
    began = time.monotonic()
    folder = model.path if model.path.is_dir() else model.partial
    if not folder.is_dir():
        problems = ["it is not here: nothing was pulled"]
    else:
        seen = look(folder)  # before reading: what changes meanwhile is seen by the next start
        problems = contradictions(model)
        if not problems and (problems := shortcomings(folder, model)) and folder == model.partial:
            shutil.rmtree(folder)  # it never was what was planned: pulled anew
    if not problems and folder == model.partial:
        seen = accept(model)
    note = {
        "model": model.name,
        "commit": model.commit,
        "path": str(model.path),
        "checked": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - began, 1),
        "problems": problems,
        "bound_by": model.bound_by(),
        "seen": {} if problems else seen,
    }
    fresh = model.note.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(note), encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(model.note)
    return problems


def accept(model: Model) -> dict[str, list[int]]:
    """Give what was pulled its name, read-only; return what tells that it was touched later."""
    shutil.rmtree(model.partial / ".cache", ignore_errors=True)
    for path in model.partial.rglob("*"):
        path.chmod(0o750 if path.is_dir() else 0o440)
    model.partial.chmod(0o750)
    model.partial.rename(model.path)
    return look(model.path)


def set_aside(model: Model) -> str:
    """Move an altered model away; return what was done, nothing for a model that is whole."""
    if not model.path.is_dir():
        return ""
    problems = check(model)
    if not problems:
        return ""
    aside = model.path.with_name(f".{model.commit}.altered")
    shutil.rmtree(aside, ignore_errors=True)
    model.path.rename(aside)
    model.manifest.unlink(missing_ok=True)
    model.note.unlink(missing_ok=True)
    return f"set aside as {aside}: {'; '.join(problems[:SOME])}"


@contextmanager
def alone(model: Model) -> Iterator[None]:
    """Let one at a time work on a model: two replicas of a host share its files."""
    with model.note.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def helper() -> str:
    """Return the unit that checks models, for somebody to look up."""
    return "journalctl -u 'holdfast-model@*'"


def main() -> None:
    """Do what the arguments say; exit 1 with the reasons where the model may not be served."""
    what, *tool, file = sys.argv[1:]
    model = Model(json.loads(Path(file).read_text(encoding="utf-8")))
    where = f"{model.name}@{model.commit[:12]}"
    if what == "--set-aside":
        with alone(model):
            print(set_aside(model))  # noqa: T201 - what the role reads
        return
    if what == "--stamp":
        problems = holds(model)
    else:
        with alone(model):
            if not (model.path.is_dir() and model.manifest.is_file()):
                subprocess.run([*tool, "-I", str(PULL), file], check=False)  # says itself why not
            problems = check(model)
    if problems:
        more = f"; and {len(problems) - SOME} more" if len(problems) > SOME else ""
        sys.exit(
            f"{where} is not served: {'; '.join(problems[:SOME])}{more}\n"
            f"to have it pulled again: holdfast apply, or mv {model.path} {model.path}.altered "
            "and start the unit"
        )


if __name__ == "__main__":
    main()
