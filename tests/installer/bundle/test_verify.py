from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from holdfast_installer.bundle import manifest as manifests
from holdfast_installer.bundle import signature
from holdfast_installer.bundle.command import bundle as command
from holdfast_installer.bundle.digests import blob_path
from holdfast_installer.bundle.verify import verify
from holdfast_installer.errors import HoldfastError, Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def new_key(folder: Path, name: str) -> Path:
    key = folder / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key], check=True
    )
    return key


def allow(allowed: Path, keys: dict[str, list[Path]], namespace: str = "holdfast-bundle") -> Path:
    lines = [
        f'{principal} namespaces="{namespace}" {key.with_suffix(".pub").read_text()}'
        for principal, several in keys.items()
        for key in several
    ]
    allowed.write_text("".join(lines))
    return allowed


def sign(bundle: Path, key: Path) -> None:
    raw = (bundle / "manifest.json").read_bytes()
    (bundle / "signatures" / signature.file_name(key)).write_bytes(signature.sign(raw, key))


def a_blob(bundle: Path, kind: str = "wheel") -> Path:
    [first, *_] = [each for each in manifests.load(bundle).artifacts if each.kind == kind]
    return blob_path(bundle / "blobs", first.digest)


def test_an_untouched_bundle_is_whole_and_opens(bundle: Path, signers: Path) -> None:
    checked: list[int] = []
    good = verify(bundle, signers, moved=checked.append)
    assert good.signers == ("bundle@holdfast",)
    assert sum(checked) == sum(good.manifest.sizes().values())
    requirements = good.blob(good.environment("app").requirements).read_text()
    assert requirements.count("--hash=sha256:") == 4
    assert "http" not in requirements
    assert good.file("apt/Packages").is_file()
    [(name, commit)] = good.models()
    assert (name, len(commit)) == ("made/up", 40)
    assert {each.name for each in good.wheels("app")} == {"app", "lib", "extra", "quick"}
    with pytest.raises(KeyError):
        good.blob("sha256:" + "0" * 64)


def flip_a_byte(bundle: Path) -> None:
    blob = a_blob(bundle)
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)


def cut_a_blob(bundle: Path) -> None:
    os.truncate(a_blob(bundle, "deb"), 10)


def remove_a_blob(bundle: Path) -> None:
    a_blob(bundle, "model").unlink()


def add_a_file(bundle: Path) -> None:
    (bundle / "blobs/sha256/passenger").write_text("not signed for")


def add_a_link(bundle: Path) -> None:
    (bundle / "outside").symlink_to("/etc")


def replace_a_blob_by_a_link(bundle: Path) -> None:
    blob = a_blob(bundle)
    blob.rename(bundle.parent / "elsewhere")
    blob.symlink_to(bundle.parent / "elsewhere")


def rewrite_the_bill_of_materials(bundle: Path) -> None:
    (bundle / "sbom.cdx.json").write_text("{}")


def remove_the_bill_of_materials(bundle: Path) -> None:
    (bundle / "sbom.cdx.json").unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip_a_byte, "has changed"),
        (cut_a_blob, "has 10 bytes and should have"),
        (remove_a_blob, "is missing"),
        (add_a_file, "is not part of the signed bundle"),
        (add_a_link, "is not part of the signed bundle"),
        (replace_a_blob_by_a_link, "is not part of the signed bundle"),
        (rewrite_the_bill_of_materials, "does not say what the manifest says"),
        (remove_the_bill_of_materials, "is missing"),
    ],
)
def test_every_damage_is_refused_and_named(
    bundle: Path, signers: Path, damage: Callable[[Path], None], told: str
) -> None:
    damage(bundle)
    with pytest.raises(Refused) as refusal:
        verify(bundle, signers)
    assert [told in finding.detail for finding in refusal.value.findings] == [True]
    assert refusal.value.exit_code == 3


def test_all_damage_is_told_at_once(bundle: Path, signers: Path) -> None:
    flip_a_byte(bundle)
    remove_a_blob(bundle)
    add_a_file(bundle)
    with pytest.raises(Refused) as refusal:
        verify(bundle, signers)
    assert len(refusal.value.findings) == 3


def unsign(bundle: Path, scratch: Path) -> None:
    del scratch
    for file in (bundle / "signatures").iterdir():
        file.unlink()


def sign_by_a_stranger(bundle: Path, scratch: Path) -> None:
    unsign(bundle, scratch)
    sign(bundle, new_key(scratch, "stranger"))


def edit_the_manifest(bundle: Path, scratch: Path) -> None:
    del scratch
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"bookworm", b"bookw0rm"))


def empty_the_signature(bundle: Path, scratch: Path) -> None:
    del scratch
    [file] = (bundle / "signatures").iterdir()
    file.write_text("")


@pytest.mark.parametrize(
    "forge", [unsign, sign_by_a_stranger, edit_the_manifest, empty_the_signature]
)
def test_a_bundle_not_signed_by_a_trusted_key_is_refused(
    bundle: Path, signers: Path, tmp_path: Path, forge: Callable[[Path, Path], None]
) -> None:
    forge(bundle, tmp_path)
    with pytest.raises(Refused, match="not signed by whom you trust") as refusal:
        verify(bundle, signers)
    assert refusal.value.findings


def test_signatures_are_checked_before_a_single_blob_is_read(
    bundle: Path, signers: Path, tmp_path: Path
) -> None:
    sign_by_a_stranger(bundle, tmp_path)
    remove_a_blob(bundle)
    with pytest.raises(Refused) as refusal:
        verify(bundle, signers, moved=lambda _: pytest.fail("read a blob"))
    assert all("signatures/" in finding.name for finding in refusal.value.findings)


NESTED = b"[" * 200_000
HUGE = (
    b'{"architecture":"x","artifacts":[],"environments":{},"format":1,"release":"x","size":1e999}'
)


@pytest.mark.parametrize(
    "content", [NESTED, HUGE, b"\xff", b""], ids=["deep", "huge", "raw", "none"]
)
def test_what_a_stranger_wrote_is_not_even_parsed(
    bundle: Path, signers: Path, content: bytes
) -> None:
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(Refused, match="not signed by whom you trust"):
        verify(bundle, signers)
    done = CliRunner().invoke(command, ["verify", str(bundle), "--allowed-signers", str(signers)])
    assert isinstance(done.exception, Refused)


@pytest.mark.parametrize("content", [NESTED, HUGE], ids=["deep", "huge"])
def test_a_signed_manifest_that_cannot_be_read_is_refused_in_words(
    bundle: Path, signers: Path, content: bytes
) -> None:
    (bundle / "manifest.json").write_bytes(content)
    sign(bundle, signature.own_key())
    with pytest.raises(HoldfastError, match="can read") as refusal:
        verify(bundle, signers)
    assert refusal.value.exit_code == 3


def test_a_key_allowed_for_another_purpose_does_not_count(bundle: Path, tmp_path: Path) -> None:
    unsign(bundle, tmp_path)
    key = new_key(tmp_path, "git")
    sign(bundle, key)
    allowed = allow(tmp_path / "allowed", {"git@holdfast": [key]}, namespace="git")
    with pytest.raises(Refused, match="not signed"):
        verify(bundle, allowed)


def test_two_of_three_signers(bundle: Path, tmp_path: Path) -> None:
    unsign(bundle, tmp_path)
    keys = {name: new_key(tmp_path, name) for name in ("ada", "bob", "cyd")}
    allowed = allow(tmp_path / "allowed", {name: [key] for name, key in keys.items()})
    sign(bundle, keys["ada"])
    with pytest.raises(Refused, match="2 signatures needed, 1 hold"):
        verify(bundle, allowed, threshold=2)
    sign(bundle, keys["cyd"])
    assert verify(bundle, allowed, threshold=2).signers == ("ada", "cyd")
    with pytest.raises(Refused, match="3 signatures needed, 2 hold"):
        verify(bundle, allowed, threshold=3)


def test_one_signer_with_two_keys_counts_once(bundle: Path, tmp_path: Path) -> None:
    keys = [new_key(tmp_path, "laptop"), new_key(tmp_path, "token")]
    allowed = allow(tmp_path / "allowed", {"ada": keys})
    for key in keys:
        sign(bundle, key)
    with pytest.raises(Refused, match="2 signatures needed, 1 hold"):
        verify(bundle, allowed, threshold=2)


def test_a_stranger_beside_a_trusted_signer_does_no_harm(
    bundle: Path, signers: Path, tmp_path: Path
) -> None:
    sign(bundle, new_key(tmp_path, "stranger"))
    assert verify(bundle, signers).signers == ("bundle@holdfast",)


def test_without_a_list_of_signers_nothing_is_trusted(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="no list of allowed signers") as refusal:
        verify(bundle, tmp_path / "nobody")
    assert refusal.value.exit_code == 3


def test_an_empty_folder_is_no_bundle(tmp_path: Path, signers: Path) -> None:
    with pytest.raises(HoldfastError, match="No bundle here"):
        verify(tmp_path, signers)


def test_verify_writes_nothing(bundle: Path, signers: Path) -> None:
    flip_a_byte(bundle)
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    with pytest.raises(Refused):
        verify(bundle, signers)
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


def test_the_command_prints_findings_as_json_and_exits_3(bundle: Path, signers: Path) -> None:
    arguments = ["verify", str(bundle), "--allowed-signers", str(signers), "--json"]
    good = CliRunner().invoke(command, arguments)
    assert (good.exit_code, json.loads(good.stdout)["verified"]) == (0, True)
    flip_a_byte(bundle)
    bad = CliRunner().invoke(command, arguments)
    told = json.loads(bad.stdout)
    assert (bad.exit_code, told["verified"]) == (3, False)
    assert [finding["verdict"] for finding in told["findings"]] == ["fail"]
