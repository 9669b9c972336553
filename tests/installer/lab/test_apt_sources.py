"""What of this machine's apt configuration the lab is built from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast_installer.errors import HoldfastError
from holdfast_installer.lab import apt_sources

if TYPE_CHECKING:
    from pathlib import Path

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://vendor.example/
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://off.example/
Suites: bookworm
Components: main
"""

LIST = """\
# deb http://commented.example bookworm main
deb [signed-by=/usr/share/keyrings/d.gpg] http://m.example/sec bookworm-security main # why
deb-src http://mirror.example/debian bookworm main
deb http://cloud.example cloud-sdk-bookworm main
"""


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    parts = tmp_path / "parts"
    parts.mkdir()
    monkeypatch.setattr(apt_sources, "_configured_paths", lambda: (tmp_path / "list", parts))
    return parts


def test_only_debian_12_main_is_taken_with_its_keyring(configure: Path) -> None:
    (configure / "debian.sources").write_text(DEB822)
    (configure / "old.list").write_text(LIST)
    (configure / "ignored.save").write_text(LIST)
    first, second = apt_sources.for_release().split("\n\n")
    assert first.splitlines() == [
        "Types: deb",
        "URIs: http://mirror.example/debian",
        "Suites: bookworm bookworm-updates",
        "Components: main",
        "Signed-By: ",
        " -----BEGIN PGP PUBLIC KEY BLOCK-----",
        " .",
        " abc",
        " -----END PGP PUBLIC KEY BLOCK-----",
    ]
    assert second.splitlines() == [
        "Types: deb",
        "URIs: http://m.example/sec",
        "Suites: bookworm-security",
        "Components: main",
        "Signed-By: /usr/share/keyrings/d.gpg",
    ]


def test_a_machine_without_debian_12_sources_is_told_what_to_add(configure: Path) -> None:
    (configure / "x.list").write_text("deb http://mirror.example/debian trixie main\n")
    with pytest.raises(HoldfastError, match="no source for Debian 12") as caught:
        apt_sources.for_release()
    assert "bookworm" in caught.value.next_command
