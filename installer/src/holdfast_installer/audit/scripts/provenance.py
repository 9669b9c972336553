"""Runs on a host: offers apt its own repository as published, altered, unsigned and a stranger's.

Everything happens in a private folder that is removed again; the host's own apt state is only read.
Prints {"sources": [line, …], "trials": {name: {"accepted": bool, "said": str}}}. The trial
"published" must be accepted, or the refusal of the others proves nothing. Standard library only.
"""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

LISTS = Path("/var/lib/apt/lists")
STRANGER = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
INDEX = "main/binary-amd64/Packages"


def sources() -> tuple[list[str], list[str]]:
    """Return every source apt knows, each as one line, and the keys they are signed by."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    lines, keys = [], []
    for file in files:
        text = file.read_text() if file.is_file() else ""
        kept = [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
        if not kept:
            continue
        lines.append(f"{file.name}: {' | '.join(kept)}")
        keys += re.findall(r"[Ss]igned-[Bb]y[:=]\s*(\S+?)\]?(?:\s|$)", text)
    return lines, keys


def accepts(folder: Path, key: str) -> dict[str, object]:
    """Let apt read the repository in `folder` with nothing but `key` trusted."""
    root = folder.parent / f"{folder.name}-root"
    for part in ("lists/partial", "cache/archives/partial"):
        (root / part).mkdir(parents=True)
    (root / "status").touch()
    listed = root / "sources.list"
    listed.write_text(f"deb [arch=amd64 signed-by={key}] file:{folder} holdfast main\n")
    command = ["apt-get", "-q", "update"]
    for option in (
        f"Dir::Etc::sourcelist={listed}",
        "Dir::Etc::sourceparts=/dev/null",
        f"Dir::State::lists={root}/lists",
        f"Dir::State::status={root}/status",
        f"Dir::Cache={root}/cache",
        "APT::Sandbox::User=root",
        "APT::Update::Error-Mode=any",
        "Acquire::Languages=none",
    ):
        command += ["-o", option]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line[:2] in {"E:", "W:"}]
    return {"accepted": done.returncode == 0, "said": " ".join(said)[:300]}


def repository(folder: Path, files: dict[str, bytes]) -> Path:
    """Lay out a repository of the given files."""
    for name, content in files.items():
        path = folder / "dists/holdfast" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def unsigned(inrelease: bytes) -> bytes:
    """Return the signed text of an InRelease file without its signature."""
    text = inrelease.split(b"\n\n", 1)[1].split(b"-----BEGIN PGP SIGNATURE-----")[0]
    return text.replace(b"\n- ", b"\n")


def main() -> None:
    """Try the four repositories and print what apt made of them."""
    lines, keys = sources()
    key = keys[0] if len(set(keys)) == 1 else ""
    inrelease = next(LISTS.glob("*_dists_holdfast_InRelease"), None)
    index = next(LISTS.glob("*_dists_holdfast_main_binary-amd64_Packages"), None)
    trials: dict[str, dict[str, object]] = {}
    if key and inrelease and index:
        signed, packages = inrelease.read_bytes(), index.read_bytes()
        # One hexadecimal digit of the first package's digest: same length, another package.
        at = packages.index(b"SHA256: ") + len(b"SHA256: ")
        other = (
            packages[:at] + (b"0" if packages[at : at + 1] != b"0" else b"1") + packages[at + 1 :]
        )
        folder = Path(tempfile.mkdtemp(prefix="holdfast-probe-"))
        folder.chmod(0o755)
        try:
            for name, files, trusted in (
                ("published", {"InRelease": signed, INDEX: packages}, key),
                ("altered", {"InRelease": signed, INDEX: other}, key),
                ("unsigned", {"Release": unsigned(signed), INDEX: packages}, key),
                ("stranger", {"InRelease": signed, INDEX: packages}, str(STRANGER)),
            ):
                trials[name] = accepts(repository(folder / name, files), trusted)
        finally:
            shutil.rmtree(folder)
    print(json.dumps({"sources": lines, "trials": trials}))


main()
