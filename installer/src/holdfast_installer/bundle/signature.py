"""OpenSSH signatures over the manifest: `ssh-keygen -Y`, m of n as so many files."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from holdfast_installer import paths
from holdfast_installer.bundle.manifest import NAMESPACE
from holdfast_installer.errors import HoldfastError

KEY = "bundle_ed25519"
ALLOWED = "allowed_signers"
DEFAULT_SIGNER = "bundle@holdfast"


@dataclass(frozen=True)
class Check:
    """What came of one signature file: the principal it holds for, or why it does not."""

    file: str
    principal: str = ""
    problem: str = ""


def allowed_signers_path() -> Path:
    """Return the operator's own list of signers."""
    return paths.state_dir() / "keys" / ALLOWED


def own_key() -> Path:
    """Return this operator's signing key, made on first use and entered in allowed_signers."""
    folder = paths.state_dir() / "keys"
    key = folder / KEY
    if key.exists():
        return key
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch) / KEY
        _ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", DEFAULT_SIGNER, "-f", str(fresh))
        public = fresh.with_suffix(".pub")
        line = f'{DEFAULT_SIGNER} namespaces="{NAMESPACE}" {public.read_text(encoding="utf-8")}'
        with allowed_signers_path().open("a", encoding="utf-8") as known:
            known.write(line)
        public.rename(key.with_suffix(".pub"))
        fresh.rename(key)  # last: the key exists only once it is trusted here
    return key


def sign(content: bytes, key: Path) -> bytes:
    """Return the armoured signature of `content` by a key file, or by an agent's given its .pub."""
    with tempfile.TemporaryDirectory(prefix="holdfast-sign-") as scratch:
        file = Path(scratch) / "manifest.json"
        file.write_bytes(content)
        _ssh_keygen("-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(file))
        return file.with_suffix(".json.sig").read_bytes()


def check(content: bytes, signature: Path, allowed: Path) -> Check:
    """Say whether `signature` over `content` is by somebody in `allowed`."""
    found = _run("-Y", "find-principals", "-f", str(allowed), "-s", str(signature))
    principal = found.stdout.decode().splitlines()[0] if found.stdout else ""
    if found.returncode != 0 or not principal:
        return Check(signature.name, problem="signed by a key that is not in allowed_signers")
    verified = _run(
        *("-Y", "verify", "-f", str(allowed), "-I", principal),
        *("-n", NAMESPACE, "-s", str(signature)),
        stdin=content,
    )
    if verified.returncode != 0:
        said = (verified.stderr or verified.stdout).decode(errors="replace").strip()
        return Check(signature.name, problem=f"does not fit the manifest: {said}")
    return Check(signature.name, principal=principal)


def fits(content: bytes, signature: Path) -> bool:
    """Say whether `signature` is one over `content`, by whatever key: whose is for `check`."""
    arguments = ("-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(signature))
    return _run(*arguments, stdin=content).returncode == 0


def file_name(key: Path) -> str:
    """Return the name of a key's signature file: one per key, so that a key counts once."""
    public = key if key.suffix == ".pub" else key.with_name(key.name + ".pub")
    result = _run("-l", "-f", str(public if public.exists() else key))
    print_ = re.search(rb"SHA256:(\S+)", result.stdout)
    if result.returncode != 0 or print_ is None:
        raise HoldfastError(
            "The signing key cannot be read",
            where=str(key),
            cause=result.stderr.decode(errors="replace").strip(),
        )
    return re.sub(r"[^A-Za-z0-9]", "", print_[1].decode())[:16] + ".sig"


def _ssh_keygen(*arguments: str) -> None:
    result = _run(*arguments)
    if result.returncode != 0:
        raise HoldfastError(
            "ssh-keygen failed",
            where=" ".join(arguments[-2:]),
            cause=result.stderr.decode(errors="replace").strip(),
            next_command="ssh-keygen -Y sign -f KEY -n " + NAMESPACE + " FILE",
        )


def _run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as problem:
        raise HoldfastError(
            "ssh-keygen is not installed here",
            cause="bundles are signed and checked with OpenSSH",
            next_command="apt-get install openssh-client",
        ) from problem
