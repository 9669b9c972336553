"""The far side of push_blobs: a whole program, sent as text and run by the host's own python3.

First line in: JSON with the wanted digests and sizes. First line out: JSON with those missing.
Then a tar with one member per missing digest comes in; one JSON line of counts goes out.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 20


def place(root: Path, digest: str) -> Path:
    """Return where a blob lives."""
    return root / "blobs" / "sha256" / digest[:2] / digest


def lacking(root: Path, wanted: dict[str, int]) -> list[str]:
    """Return the digests that are absent or cut short; only verified blobs ever got their name."""
    return [
        digest
        for digest, size in wanted.items()
        if not place(root, digest).is_file() or place(root, digest).stat().st_size != size
    ]


def receive(root: Path, stream: BinaryIO, missing: set[str]) -> int:
    """Store the members of the tar, each verified before it gets its name; return how many."""
    count = 0
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            source = tar.extractfile(member)
            if source is None or member.name not in missing:
                raise SystemExit(f"unexpected member {member.name!r} in the stream")
            path = place(root, member.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{member.name}.partial")
            measured = hashlib.sha256()
            with partial.open("wb") as out:
                while chunk := source.read(CHUNK):
                    measured.update(chunk)
                    out.write(chunk)
                out.flush()
                os.fdatasync(out.fileno())
            if measured.hexdigest() != member.name:
                partial.unlink()
                raise SystemExit(f"blob {member.name} arrived as {measured.hexdigest()}: refused")
            partial.chmod(0o644)
            partial.rename(path)
            count += 1
    return count


def main() -> None:
    """Speak the protocol over standard input and output."""
    root = Path(sys.argv[1])
    wanted = json.loads(sys.stdin.buffer.readline())
    missing = lacking(root, wanted)
    print(json.dumps(missing), flush=True)  # noqa: T201 - standard output is the protocol
    if missing and wanted:
        done = receive(root, sys.stdin.buffer, set(missing))
        print(json.dumps({"stored": done}), flush=True)  # noqa: T201 - standard output is the protocol


if __name__ == "__main__":
    main()
