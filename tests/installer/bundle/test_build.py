from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from holdfast_installer.bundle import build, signature
from holdfast_installer.bundle.command import bundle as command
from holdfast_installer.bundle.digests import blob_path
from holdfast_installer.bundle.durable import only_one
from holdfast_installer.bundle.manifest import load
from holdfast_installer.bundle.store import Store
from holdfast_installer.bundle.verify import verify
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from pathlib import Path

    from bundle_parts import World

    from holdfast_installer.bundle.lockfile import Lock


def build_in(folder: Path, lock: Lock, store: Store | None = None) -> build.Built:
    return build.build(lock, folder, store=store or Store(), key=signature.own_key())


def test_a_second_build_changes_nothing(locked: tuple[World, Lock], tmp_path: Path) -> None:
    first = build_in(tmp_path / "bundle", locked[1])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "bundle").rglob("*")}
    second = build_in(tmp_path / "bundle", locked[1])
    assert (first.changed, second.changed) == (True, False)
    assert first.digest == second.digest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "bundle").rglob("*")} == before


def test_the_same_lock_gives_the_same_digest_in_another_place(
    locked: tuple[World, Lock], bundle: Path, tmp_path: Path
) -> None:
    assert build_in(tmp_path / "elsewhere", locked[1]).digest == load(bundle).digest()


def test_a_second_operators_signature_joins_the_first(
    locked: tuple[World, Lock], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_in(tmp_path / "bundle", locked[1])
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path / "second"))
    build_in(tmp_path / "bundle", locked[1])
    assert len(list((tmp_path / "bundle/signatures").iterdir())) == 2
    assert verify(tmp_path / "bundle").signers == ("bundle@holdfast",)


def test_what_is_in_the_cache_is_not_fetched_again(
    moved: tuple[World, Lock], tmp_path: Path
) -> None:
    world, lock = moved
    build_in(tmp_path / "one", lock)
    shutil.rmtree(world.wheels)
    shutil.rmtree(world.archive)
    assert build.plan(lock, Store()).download == 0
    build_in(tmp_path / "two", lock)
    verify(tmp_path / "two")


def test_the_plan_tells_sizes_before_anything_is_fetched(moved: tuple[World, Lock]) -> None:
    world, lock = moved
    ahead = build.plan(lock, Store())
    assert {each.kind for each in ahead.missing} == {"deb", "wheel"}
    assert ahead.download == sum(each.size for each in ahead.missing)
    lib = next(world.wheels.glob("lib-1.5*"))
    assert lib.stat().st_size in {each.size for each in ahead.missing}
    assert ahead.total > ahead.download, "the model is in the cache since it was locked"


def test_an_address_that_was_forgotten_is_asked_for_again(
    moved: tuple[World, Lock], tmp_path: Path
) -> None:
    world, lock = moved
    shutil.rmtree(world.cache / "addresses")
    build_in(tmp_path / "bundle", lock)
    verify(tmp_path / "bundle")


def test_a_package_gone_from_the_mirror_is_named(moved: tuple[World, Lock], tmp_path: Path) -> None:
    world, lock = moved
    changed = lock.model_copy(
        update={
            "artifacts": tuple(
                each.model_copy(update={"version": "0.1"}) if each.name == "hello" else each
                for each in lock.artifacts
            )
        }
    )
    shutil.rmtree(world.cache / "addresses")
    with pytest.raises(HoldfastError, match="no longer has a package") as refusal:
        build_in(tmp_path / "bundle", changed)
    assert refusal.value.where == "hello 0.1"
    assert "bundle lock" in refusal.value.next_command


@pytest.mark.parametrize("kind", ["deb", "wheel"])
def test_a_source_that_serves_other_bytes_is_refused(
    moved: tuple[World, Lock], tmp_path: Path, kind: str
) -> None:
    world, lock = moved
    pattern = {"deb": "archive/pool/libhello_*", "wheel": "wheels/lib-1.5*"}[kind]
    [served] = world.folder.glob(pattern)
    content = bytearray(served.read_bytes())
    content[-1] ^= 1
    served.write_bytes(content)
    with pytest.raises(HoldfastError, match="not what the lock says"):
        build_in(tmp_path / "bundle", lock)
    assert not (tmp_path / "bundle").exists()
    content[-1] ^= 1
    served.write_bytes(content)
    assert build_in(tmp_path / "bundle", lock).changed


def test_a_damaged_cache_is_noticed_and_mended(moved: tuple[World, Lock], tmp_path: Path) -> None:
    world, lock = moved
    build_in(tmp_path / "one", lock)
    shutil.rmtree(tmp_path / "one")
    [lib] = [each for each in lock.artifacts if each.name == "lib"]
    cached = blob_path(world.cache / "blobs", lib.digest)
    content = bytearray(cached.read_bytes())
    content[0] ^= 1
    cached.chmod(0o644)
    cached.write_bytes(content)
    with pytest.raises(HoldfastError, match="in the cache had changed") as refusal:
        build_in(tmp_path / "two", lock)
    assert "lib-1.5" in refusal.value.where
    assert not (tmp_path / "two").exists()
    assert build_in(tmp_path / "two", lock).changed
    verify(tmp_path / "two")


def test_a_damaged_bundle_is_mended_by_building_again(
    locked: tuple[World, Lock], bundle: Path
) -> None:
    blob = next(path for path in (bundle / "blobs").rglob("*") if path.is_file())
    blob.unlink()
    (bundle / "blobs/passenger").touch()
    assert build_in(bundle, locked[1]).changed
    verify(bundle)


def test_a_new_bundle_takes_the_old_ones_place_at_once(
    moved: tuple[World, Lock], tmp_path: Path
) -> None:
    world, lock = moved
    folder = tmp_path / "bundle"
    first = build_in(folder, lock)
    fewer = tuple(each for each in lock.artifacts if each.kind != "model")
    second = build_in(folder, lock.model_copy(update={"artifacts": fewer}))
    assert first.digest != second.digest == verify(folder).digest
    assert sorted(path.name for path in tmp_path.iterdir() if path != world.folder) == [
        ".bundle.lock",
        "bundle",
    ]


def test_blobs_are_linked_from_the_cache_and_cannot_be_written(
    locked: tuple[World, Lock],
) -> None:
    world, lock = locked
    for digest in lock.sizes():
        cached = blob_path(world.cache / "blobs", digest)
        built = blob_path(world.folder / "bundle/blobs", digest)
        assert cached.samefile(built)
        assert built.stat().st_mode & 0o222 == 0


def test_a_folder_with_something_else_in_it_is_left_alone(
    locked: tuple[World, Lock], tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(HoldfastError, match="not a bundle"):
        build_in(tmp_path, locked[1])
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_manifest_of_another_kind_makes_no_folder_a_bundle(
    locked: tuple[World, Lock], tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "my web application"}')
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(HoldfastError, match="not a bundle") as refusal:
        build_in(tmp_path, locked[1])
    assert "thesis.txt" in refusal.value.cause
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_notes_beside_a_bundle_are_not_lost_to_its_successor(
    locked: tuple[World, Lock], bundle: Path
) -> None:
    (bundle / "notes.txt").write_text("who carried it")
    with pytest.raises(HoldfastError, match=r"not a bundle"):
        build_in(bundle, locked[1])
    assert (bundle / "notes.txt").exists()


@pytest.mark.parametrize("content", ["", "-----BEGIN SSH SIGNATURE-----\nAAAA\n"])
def test_a_damaged_signature_is_made_anew(
    locked: tuple[World, Lock], bundle: Path, content: str
) -> None:
    [file] = (bundle / "signatures").iterdir()
    file.write_text(content)
    build_in(bundle, locked[1])
    verify(bundle)


def test_two_builds_of_one_folder_do_not_meet(locked: tuple[World, Lock], tmp_path: Path) -> None:
    with only_one(tmp_path / ".bundle.lock", doing="building bundle"):
        with pytest.raises(HoldfastError, match="Somebody else") as refusal:
            build_in(tmp_path / "bundle", locked[1])
        assert str(os.getpid()) in refusal.value.cause
    assert build_in(tmp_path / "bundle", locked[1]).changed


def test_a_lock_whose_local_parts_left_the_cache_says_what_to_do(
    moved: tuple[World, Lock], tmp_path: Path
) -> None:
    world, lock = moved
    shutil.rmtree(world.cache)
    with pytest.raises(HoldfastError, match="not in the cache any more") as refusal:
        build_in(tmp_path / "bundle", lock)
    assert "bundle lock" in refusal.value.next_command


def test_an_unprivileged_reader_takes_from_a_shared_cache_without_writing_to_it(
    locked: tuple[World, Lock], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, lock = locked
    monkeypatch.setattr("holdfast_installer.paths.SHARED_CACHE", world.cache)
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "own"))
    before = sorted(path for path in world.cache.rglob("*"))
    build_in(tmp_path / "bundle", lock)
    verify(tmp_path / "bundle")
    assert sorted(path for path in world.cache.rglob("*")) == before


def test_the_command_builds_and_shows(locked: tuple[World, Lock], tmp_path: Path) -> None:
    lock_file = tmp_path / "bundle.lock"
    locked[1].write(lock_file)
    folder = tmp_path / "bundle"
    started = time.monotonic()
    arguments = ["build", "--lock", str(lock_file), "-o", str(folder), "--json"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["digest"] == load(folder).digest()
    assert time.monotonic() - started < 30
    shown = json.loads(CliRunner().invoke(command, ["show", str(folder), "--json"]).stdout)
    assert shown["totals"]["deb"]["artifacts"] == 4
    assert shown["size"] == sum(load(folder).sizes().values())
    assert shown["excluded"]["app"]["heavy"] == "needs a GPU nobody has"
    words = CliRunner().invoke(command, ["show", str(folder), "--kind", "deb"]).stderr
    assert "libhello" in words
    assert "GPL-2+ or Artistic" in words
    assert "made/up" not in words
    of_lock = json.loads(CliRunner().invoke(command, ["show", str(lock_file), "--json"]).stdout)
    assert of_lock["totals"]["wheel"] == shown["totals"]["wheel"]
