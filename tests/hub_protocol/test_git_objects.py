from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from holdfast_hub_protocol import git_objects

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *arguments: str, **extra: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        **extra,
    }
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_ids_are_those_of_git_itself(tmp_path: Path) -> None:
    contents = {
        "a.txt": b"a",
        # A folder sorts as if its name ended in a slash: after "a.txt", unlike "a" itself.
        "a/z.txt": b"",
        "a-b": b"x\0y",
        "a0": b"\n",
        "deep/er/still/größe": b"deep",
        "deep/er/one": b"one",
    }
    for path, content in contents.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    tree = git(tmp_path, "write-tree")

    blobs = {path: git_objects.blob_id(content) for path, content in contents.items()}
    folders = git_objects.folder_ids(blobs)
    assert folders[""] == tree
    assert folders["deep/er"] == git(tmp_path, "rev-parse", f"{tree}:deep/er")
    assert blobs["a-b"] == git(tmp_path, "rev-parse", f"{tree}:a-b")

    date = "1234567890 +0000"
    commit = git(
        tmp_path,
        *("commit-tree", tree, "-m", "Why"),
        GIT_AUTHOR_NAME="A",
        GIT_AUTHOR_EMAIL="a@b",
        GIT_AUTHOR_DATE=date,
        GIT_COMMITTER_NAME="A",
        GIT_COMMITTER_EMAIL="a@b",
        GIT_COMMITTER_DATE=date,
    )
    found = git_objects.commit_id(tree, author="A <a@b>", seconds=1234567890, message="Why")
    assert found == commit


def test_an_empty_tree_has_gits_own_id() -> None:
    assert git_objects.folder_ids({}) == {"": "4b825dc642cb6eb9a060e54bf8d69288fbee4904"}


def test_hashing_in_pieces_is_hashing_at_once() -> None:
    piecewise = git_objects.blob_hasher(6)
    piecewise.update(b"abc")
    piecewise.update(b"def")
    assert piecewise.hexdigest() == git_objects.blob_id(b"abcdef")
