from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from holdfast_installer.errors import HoldfastError
from holdfast_installer.local.debian_archive import shared_libraries

if TYPE_CHECKING:
    from pathlib import Path


def make_package(folder: Path, compression: str) -> Path:
    tree = folder / "tree"
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    (libraries / "libmade.so.1.0.0").write_bytes(b"machine code")
    (libraries / "libmade.so.1").symlink_to("libmade.so.1.0.0")
    (tree / "usr/share").mkdir()
    (tree / "usr/share/notes.txt").write_text("no library")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: libmade1\nVersion: 1.0\nArchitecture: amd64\n"
        "Maintainer: Nobody <nobody@holdfast.invalid>\nDescription: made up\n"
    )
    package = folder / "libmade1_1.0_amd64.deb"
    subprocess.run(
        ["dpkg-deb", f"-Z{compression}", "--root-owner-group", "--build", tree, package],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return package


@pytest.mark.parametrize("compression", ["xz", "gzip", "none"])
def test_libraries_come_out_under_both_of_their_names(tmp_path: Path, compression: str) -> None:
    package = make_package(tmp_path, compression)
    found = shared_libraries(package, tmp_path / "out")
    assert sorted(path.name for path in found) == ["libmade.so.1", "libmade.so.1.0.0"]
    assert {path.read_bytes() for path in found} == {b"machine code"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in found
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"something else", "does not begin"),
        (b"!<arch>\n" + b"x" * 60, "no valid header"),
        (b"!<arch>\n", "no data.tar"),
    ],
)
def test_what_is_no_package_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "broken.deb"
    path.write_bytes(content)
    with pytest.raises(HoldfastError, match=r"not a Debian package") as caught:
        shared_libraries(path, tmp_path / "out")
    assert why in caught.value.cause
    assert str(path) in str(caught.value)
