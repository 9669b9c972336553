from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from bundle_parts import Deb, World, make_archive, make_lock, make_simple_index, make_wheel

from holdfast_installer.bundle import lockfile
from holdfast_installer.bundle.lockfile import EnvironmentSource, Lock
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from pathlib import Path


def names(lock: Lock, kind: str) -> dict[str, str]:
    return {each.name: each.version for each in lock.artifacts if each.kind == kind}


def test_the_debian_closure_has_the_base_and_dependencies_and_no_recommends(
    locked: tuple[World, Lock],
) -> None:
    debs = names(locked[1], "deb")
    # libhello 9.9 of another vendor's archive, in a suite of the same name, must not win
    assert debs == {
        "apt": "2.6.1",
        "base-files": "1.0-1",
        "hello": "1:2.0-1",
        "libhello": "3.0+b1",
    }


def test_a_package_with_an_epoch_is_named_as_debians_pool_names_it(
    locked: tuple[World, Lock],
) -> None:
    [hello] = [each for each in locked[1].artifacts if each.name == "hello"]
    assert hello.filename == "hello_2.0-1_amd64.deb"
    assert hello.origin == "debian bookworm main"
    assert (locked[0].archive / "pool" / hello.filename).stat().st_size == hello.size


def test_the_python_closure_follows_extras_and_markers_and_stops_at_what_is_left_out(
    locked: tuple[World, Lock],
) -> None:
    wheels = names(locked[1], "wheel")
    assert wheels == {"app": "1.0", "lib": "1.5", "extra": "1.0", "quick": "1.0"}
    assert locked[1].environments["app"].excluded == {
        "heavy": "needs a GPU nobody has",
        "heavy-kernels": "only what is left out needs it",
    }


def test_a_lock_names_no_place_anything_was_fetched_from(locked: tuple[World, Lock]) -> None:
    world, lock = locked
    text = json.dumps(lock.model_dump(mode="json")["artifacts"])
    assert str(world.folder) not in text
    assert "file:" not in text
    assert "http" not in text


def test_a_written_lock_reads_back_the_same(locked: tuple[World, Lock], tmp_path: Path) -> None:
    path = tmp_path / "bundle.lock"
    locked[1].write(path)
    assert lockfile.read(path) == locked[1]


def test_pins_are_kept_until_what_is_asked_for_changes(moved: tuple[World, Lock]) -> None:
    world, first = moved
    first = first.model_copy(update={"sources": world.sources()})
    make_wheel(world.wheels, "lib", "2.0", requires=("extra[fast]",))
    assert make_lock(world, first) == first
    assert names(make_lock(world, None), "wheel")["lib"] == "2.0"
    asked = EnvironmentSource(requirements=("app", "lib"), exclude={"heavy": "no"})
    changed = make_lock(world, first, environments={"app": asked})
    assert names(changed, "wheel")["lib"] == "2.0"
    assert names(changed, "deb") == names(first, "deb")


def test_a_changed_model_folder_is_taken_as_it_is_now(moved: tuple[World, Lock]) -> None:
    world, first = moved
    (world.folder / "model/config.json").write_text("{}")
    second = make_lock(world, first)
    assert names(second, "model") != names(first, "model")
    assert names(second, "wheel") == names(first, "wheel")


@pytest.mark.slow
def test_a_further_index_is_asked_only_for_what_is_not_found_otherwise(
    world: World, tmp_path: Path
) -> None:
    rare = make_wheel(tmp_path / "rare", "rare")
    newer = make_wheel(tmp_path / "rare", "lib", "7.0")
    index = make_simple_index(tmp_path / "index", [rare, newer])
    found = make_lock(
        world, environments={"e": EnvironmentSource(requirements=("lib",), index=index)}
    )
    assert names(found, "wheel")["lib"] == "1.5", "the index was asked without need"
    needs = EnvironmentSource(requirements=("rare", "quick"), index=index)
    assert set(names(make_lock(world, environments={"e": needs}), "wheel")) == {"rare", "quick"}
    without = needs.model_copy(update={"index": None})
    with pytest.raises(HoldfastError, match="no set of wheels") as refusal:
        make_lock(world, environments={"e": without})
    assert "rare" in refusal.value.cause


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["cp312-cp312-manylinux_2_28_x86_64", "py3-none-macosx_11_0_arm64"])
def test_a_wheel_for_another_target_is_refused(world: World, tag: str) -> None:
    make_wheel(world.wheels, "alien", tag=tag)
    with pytest.raises(HoldfastError, match="no set of wheels"):
        make_lock(world, environments={"e": EnvironmentSource(requirements=("alien",))})


@pytest.mark.slow
def test_a_wheel_for_the_target_is_taken_whatever_this_machine_is(world: World) -> None:
    make_wheel(world.wheels, "native", tag="cp311-cp311-manylinux_2_36_x86_64")
    lock = make_lock(world, environments={"e": EnvironmentSource(requirements=("native",))})
    assert names(lock, "wheel") == {"native": "1.0"}


def test_an_unknown_package_is_named(world: World) -> None:
    with pytest.raises(HoldfastError, match="apt-get install failed") as refusal:
        make_lock(world, debian=("hello", "no-such-package"))
    assert "no-such-package" in refusal.value.cause


def test_a_machine_without_sources_for_the_release_is_told_so(world: World) -> None:
    with pytest.raises(HoldfastError, match="no source for Debian sid"):
        make_lock(world, release="sid")


def test_an_archive_whose_index_was_tampered_with_is_refused(world: World) -> None:
    index = world.archive / "dists/bookworm/main/binary-amd64/Packages"
    content = index.read_bytes()
    index.write_bytes(content.replace(b"made up", b"made Up", 1))
    with pytest.raises(HoldfastError, match="apt-get update failed"):
        make_lock(world)


@pytest.mark.slow
def test_packages_of_this_machine_do_not_count_as_there(world: World, tmp_path: Path) -> None:
    # libc6 is installed on any Debian; the closure must still ask for it
    del tmp_path
    archive = world.folder / "archive-two"
    key = make_archive(
        archive,
        [
            Deb("base-files", fields="Essential: yes\nPriority: required\n"),
            Deb("apt"),
            Deb("hello", depends="libc6"),
            Deb("libc6", "0.1"),
        ],
    )
    (world.folder / "etc/apt/sources.list").write_text(
        f"deb [signed-by={key}] file:{archive} bookworm main\n"
    )
    assert names(make_lock(world), "deb")["libc6"] == "0.1"
