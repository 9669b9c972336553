"""HfFileSystem: files and folders of a repository as if they were local."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hub import weights
from huggingface_hub import HfFileSystem

if TYPE_CHECKING:
    from hub import Hub


def _mounted(hub: Hub) -> tuple[HfFileSystem, str]:
    files = HfFileSystem(endpoint=hub.endpoint, token=hub.api.token, skip_instance_cache=True)
    return files, hub.repository()


def scenario_write_and_read(hub: Hub) -> None:
    files, name = _mounted(hub)
    content = weights("filesystem", 300_000)
    with files.open(f"{name}/w.safetensors", "wb") as file:
        file.write(content)
    with files.open(f"{name}/notes/a.txt", "w") as file:
        file.write("first\nsecond\n")
    assert files.cat_file(f"{name}/w.safetensors", start=1_000, end=2_000) == content[1_000:2_000]
    with files.open(f"{name}/w.safetensors", "rb", block_size=65_536) as file:
        file.seek(600_000)
        assert file.read(70_000) == content[600_000:670_000]
        file.seek(-10, os.SEEK_END)
        assert file.read() == content[-10:]
    with files.open(f"{name}/notes/a.txt", "r") as file:
        assert file.readlines() == ["first\n", "second\n"]


def scenario_look_around(hub: Hub) -> None:
    files, name = _mounted(hub)
    for path in ("a.txt", "sub/b.txt", "sub/deep/c.txt"):
        files.pipe_file(f"{name}/{path}", path.encode())
    assert sorted(files.ls(name, detail=False)) == [
        *(f"{name}/.gitattributes", f"{name}/a.txt"),
        f"{name}/sub",
    ]
    assert files.glob(f"{name}/**/*.txt") == [
        f"{name}/{path}" for path in ("a.txt", "sub/b.txt", "sub/deep/c.txt")
    ]
    assert files.isdir(f"{name}/sub")
    assert files.isfile(f"{name}/sub/b.txt")
    assert not files.exists(f"{name}/absent")
    info = files.info(f"{name}/sub/deep/c.txt")
    assert (info["type"], info["size"]) == ("file", len("sub/deep/c.txt"))
    assert files.du(f"{name}/sub") == len("sub/b.txt") + len("sub/deep/c.txt")


def scenario_copy_move_remove(hub: Hub) -> None:
    files, name = _mounted(hub)
    content = weights("moved")
    files.pipe_file(f"{name}/w.safetensors", content)
    files.pipe_file(f"{name}/sub/a.txt", b"a")
    files.cp_file(f"{name}/w.safetensors", f"{name}/copies/w.safetensors")
    assert files.cat_file(f"{name}/copies/w.safetensors") == content
    files.mv(f"{name}/sub/a.txt", f"{name}/sub/b.txt")
    assert not files.exists(f"{name}/sub/a.txt")
    assert files.cat_file(f"{name}/sub/b.txt") == b"a"
    files.rm(f"{name}/copies", recursive=True)
    assert sorted(files.find(name)) == [
        *(f"{name}/.gitattributes", f"{name}/sub/b.txt"),
        f"{name}/w.safetensors",
    ]


def scenario_another_revision(hub: Hub) -> None:
    files, name = _mounted(hub)
    files.pipe_file(f"{name}/a.txt", b"main")
    hub.api.create_branch(name, branch="other")
    files.pipe_file(f"{name}@other/a.txt", b"other")
    assert files.cat_file(f"{name}@other/a.txt") == b"other"
    assert files.cat_file(f"{name}/a.txt") == b"main"
