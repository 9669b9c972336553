"""Each thing that bars an apply, alone and then all at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from site_parts import COMMIT, DATA, GIB, example_site, facts, manifest, survey, write_bundle

from holdfast_installer import plan_command
from holdfast_installer.bundle.manifest import Environment
from holdfast_installer.errors import Refused
from holdfast_installer.plan import Plan, make_plan
from holdfast_installer.plan.blockers import NEEDED
from holdfast_installer.survey import facts as f

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = (DATA / "site-example.yml").read_text()
OLD_CPU = f.Cpu(model="Xeon E5520", vendor="Intel", threads=8, sockets=1, flags=("sse4_2",))
SMALL_DISK = f.Mount(
    target="/", source="/dev/vda1", kind="ext4", size_bytes=9 * GIB, free_bytes=2 * GIB
)
SQUATTER = f.Listener(
    protocol="tcp", address="0.0.0.0", port=8400, process="java", unit="tomcat.service"
)


def plan(text: str = EXAMPLE, **of_serving_1: object) -> Plan:
    return make_plan(example_site(text), survey(**of_serving_1), manifest())


def only(made: Plan) -> tuple[str, str]:
    assert len(made.blockers) == 1, [one.detail for one in made.blockers]
    (finding,) = made.blockers
    assert finding.verdict == "fail"
    assert finding.fix
    return finding.name, finding.detail


@pytest.mark.parametrize(
    ("change", "name", "detail"),
    [
        ({"cpu": OLD_CPU}, "cpu-isa", "Xeon E5520 has none of avx2"),
        ({"mounts": (SMALL_DISK,)}, "disk", "10.0 GiB needed on /, 2.0 GiB free"),
        (
            {"memory": f.Memory(total_bytes=16 * GIB, available_bytes=2 * GIB)},
            "memory",
            "4.0 GiB needed (1 replica), 2.0 GiB available",
        ),
        ({"listeners": (SQUATTER,)}, "port", "tcp port 8400 is taken by tomcat.service"),
        (
            {
                "os": f.OperatingSystem(
                    id="ubuntu", version="24.04", codename="noble", name="Ubuntu 24.04"
                )
            },
            "unsupported-os",
            "runs Ubuntu 24.04",
        ),
        (
            {
                "kernel": f.Kernel(
                    release="6.1", architecture="aarch64", virtualisation="none", container=False
                )
            },
            "architecture",
            "is aarch64",
        ),
        ({"clock": f.Clock(offset_seconds=-90, doubt_seconds=0.1)}, "clock", "90 s behind"),
        ({"clock": f.Clock(offset_seconds=61, doubt_seconds=0.1)}, "clock", "61 s ahead of"),
        ({"apply_lock": f.ApplyLock(held=True, holder="bo on desk")}, "apply-lock", "bo on desk"),
        (
            {
                "interfaces": (
                    f.Interface(
                        name="e", mac="", state="up", addresses=("10.0.0.9/24", "fd98:12:1::21/64")
                    ),
                )
            },
            "address",
            "198.18.1.21 is on none of its interfaces",
        ),
        (
            {"host_key": f.HostKey(kind="ssh-ed25519", fingerprint="SHA256:control-1")},
            "host-key-shared",
            "same host key as control-1",
        ),
    ],
)
def test_each_blocker_on_a_host(change: dict[str, object], name: str, detail: str) -> None:
    if "cpu" in change:
        text = EXAMPLE.replace("hardware: auto", "hardware: cpu-low-power")
        found = only(plan(text, **change))
    else:
        found = only(plan(**change))
    assert found[0] == name
    assert detail in found[1]


@pytest.mark.parametrize(
    "reach",
    ["unreachable", "wrong-host-key", "unknown-host-key", "authentication-failed", "error"],
)
def test_a_host_out_of_reach_says_which_way(reach: str) -> None:
    away = f.HostFacts(name="serving-1", address="198.18.1.21", reach=reach, detail="so")  # type: ignore[arg-type]  # listed above
    seen = survey()
    hosts = (seen.hosts[0], away, seen.hosts[2])
    text = EXAMPLE.replace("hardware: auto", "hardware: cpu-low-power")
    made = make_plan(example_site(text), seen.model_copy(update={"hosts": hosts}), manifest())
    assert only(made)[0] == reach


@pytest.mark.parametrize("fact", NEEDED)
def test_an_unread_fact_is_never_taken_for_fine(fact: str) -> None:
    text = EXAMPLE.replace("hardware: auto", "hardware: cpu-low-power")
    name, detail = only(plan(text, **{fact: f.UNREAD}))
    assert name == "unread"
    assert fact in detail


def test_a_cpu_that_fits_nothing_has_no_profile_to_choose() -> None:
    assert "hardware-profile" in {one.name for one in plan(cpu=OLD_CPU).blockers}


def test_our_own_units_on_their_own_ports_are_no_strangers() -> None:
    own = SQUATTER.model_copy(update={"unit": "holdfast-vllm@holdfast-starter-0.service"})
    assert plan(listeners=(own,)).blockers == ()
    other = SQUATTER.model_copy(update={"unit": "holdfast-vllm-watch@holdfast-starter-0.service"})
    assert only(plan(listeners=(other,)))[0] == "port"


def test_another_address_of_the_same_port_is_not_in_the_way() -> None:
    elsewhere = SQUATTER.model_copy(update={"address": "127.0.0.1"})
    assert plan(listeners=(elsewhere,)).blockers == ()


def test_a_second_apply_counts_what_the_first_one_holds() -> None:
    digest = manifest().digest().removeprefix("sha256:")
    there = f.Releases(current=digest, installed=(digest,))
    full = {
        "memory": f.Memory(total_bytes=16 * GIB, available_bytes=1 * GIB),
        "mounts": (SMALL_DISK,),
    }
    assert plan(releases=there, **full).blockers == ()
    assert {one.name for one in plan(**full).blockers} == {"memory", "disk"}


def bundle_plan(text: str = EXAMPLE, **changes: object) -> Plan:
    return make_plan(example_site(text), survey(), manifest(**changes))  # type: ignore[arg-type]  # fields of the manifest


def test_what_the_bundle_lacks() -> None:
    whole = manifest()
    kept = {"platform": whole.environments["platform"]}
    assert only(bundle_plan(environments=kept))[0] == "bundle-environment"
    no_model = tuple(one for one in whole.artifacts if one.kind != "model")
    assert only(bundle_plan(artifacts=no_model)) == (
        "bundle-model",
        "holdfast/starter at main: the bundle does not hold it",
    )
    no_numa = tuple(one for one in whole.artifacts if one.name != "libnuma1")
    assert only(bundle_plan(artifacts=no_numa))[1].endswith("no Debian package libnuma1")
    no_chrony = tuple(one for one in whole.artifacts if one.name != "chrony")
    assert only(bundle_plan(artifacts=no_chrony))[1].endswith("no Debian package chrony")


def test_a_pinned_commit_that_is_not_in_the_bundle() -> None:
    here = EXAMPLE.replace("revision: main", f"revision: {COMMIT}")
    assert bundle_plan(here).blockers == ()
    other = EXAMPLE.replace("revision: main", f"revision: {'ab' * 20}")
    assert only(bundle_plan(other))[0] == "bundle-model"


def test_wheels_for_another_python_than_the_releases() -> None:
    text = EXAMPLE.replace("hardware: auto", "hardware: gpu-amd")
    extra = Environment(requirements="sha256:" + "b" * 64, python="3.12")
    whole = manifest()
    made = make_plan(
        example_site(text),
        survey(),
        manifest(environments={**whole.environments, "vllm-gpu-amd": extra}),
    )
    names = {one.name for one in made.blockers}
    assert {"python", "gpu"} <= names


def test_two_models_that_would_share_a_unit_name() -> None:
    block = EXAMPLE[EXAMPLE.index("  - id:") : EXAMPLE.index("teams:\n")]
    text = EXAMPLE.replace(block, block + block.replace("holdfast/starter", "holdfast.starter/x"))
    clash = text.replace("holdfast.starter/x", "holdfast-starter/x")
    again = clash.replace("id: holdfast/starter", "id: holdfast/starter.x")
    names = {one.name for one in plan(again).blockers}
    assert "name-clash" in names


def test_a_pool_that_mixes_hardware() -> None:
    text = EXAMPLE.replace("pool: cpu}", "pool: cpu, hardware: gpu-nvidia}", 1)
    assert "pool-hardware" in {one.name for one in plan(text).blockers}


def test_a_host_elsewhere_holds_no_model() -> None:
    text = EXAMPLE.replace("pool: cpu}", "pool: cpu, jurisdiction: fr}", 1)
    made = plan(text)
    assert made.blockers == ()
    assert [len(host.replicas) for host in made.hosts.values()] == [0, 0, 2]
    assert only(plan(EXAMPLE.replace("pool: cpu}", "pool: cpu, jurisdiction: fr}")))[0] == (
        "placement"
    )


def test_a_control_host_elsewhere_keeps_every_model_elsewhere() -> None:
    text = EXAMPLE.replace("roles: [control]}", "roles: [control], jurisdiction: us-ma}")
    name, detail = only(plan(text))
    assert name == "jurisdiction"
    assert "control host stands in us-ma; the profiles permit de" in detail


def test_two_control_hosts_are_more_than_this_release_installs() -> None:
    text = EXAMPLE.replace("roles: [serving], pool", "roles: [serving, control], pool", 1)
    assert "control-hosts" in {one.name for one in plan(text).blockers}


def test_all_of_them_at_once() -> None:
    text = EXAMPLE.replace("hardware: auto", "hardware: cpu-low-power")
    made = plan(
        text,
        cpu=OLD_CPU,
        mounts=(SMALL_DISK,),
        listeners=(SQUATTER,),
        clock=f.Clock(offset_seconds=500, doubt_seconds=1),
        gpus=f.UNREAD,
        apply_lock=f.ApplyLock(held=True, holder="bo"),
    )
    names = [one.name for one in made.blockers]
    assert sorted(names) == ["apply-lock", "clock", "cpu-isa", "disk", "port", "unread"]


def run_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> tuple[int, str]:
    """Run the command over a bundle on disk, with hosts as a survey saw them on another day."""
    bundle = tmp_path / "bundle"
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path / "state"))
    write_bundle(bundle)
    (tmp_path / "site.yml").write_text(EXAMPLE)
    seen = survey(clock=f.Clock(offset_seconds=500, doubt_seconds=1))
    monkeypatch.setattr(plan_command, "take_survey", lambda _site: seen)
    arguments = ["--site", str(tmp_path / "site.yml"), "--bundle", str(bundle), *flags]
    result = CliRunner().invoke(plan_command.plan, arguments)
    if isinstance(result.exception, Refused):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.stdout


def test_the_command_refuses_with_every_blocker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = run_command(tmp_path, monkeypatch)
    assert code == 3
    assert "500 s ahead" in text
    assert "nothing was touched" in text


def test_the_commands_json_holds_the_plan_and_its_blockers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = run_command(tmp_path, monkeypatch, "--json")
    assert code == 3
    read = Plan.model_validate(json.loads(text))
    assert [one.name for one in read.blockers] == ["clock"]


def test_the_command_opens_no_bundle_that_does_not_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path / "state"))
    bundle = tmp_path / "bundle"
    write_bundle(bundle)
    blob = next(path for path in (bundle / "blobs").rglob("*") if path.is_file())
    blob.write_bytes(b"x" * blob.stat().st_size)
    (tmp_path / "site.yml").write_text(EXAMPLE)
    arguments = ["--site", str(tmp_path / "site.yml"), "--bundle", str(bundle)]
    result = CliRunner().invoke(plan_command.plan, arguments)
    assert isinstance(result.exception, Refused)
    assert "not what was signed" in str(result.exception)


def test_a_gpu_profile_needs_a_gpu_that_answers() -> None:
    text = EXAMPLE.replace("hardware: auto", "hardware: gpu-nvidia")
    silent = f.Gpu(
        vendor="nvidia", model="PCI device 10de:2330", memory_bytes=f.UNREAD, driver="", identity=""
    )
    details = [one.detail for one in plan(text, gpus=(silent,)).blockers if one.name == "gpu"]
    assert any("its driver does not answer" in detail for detail in details)
    assert any("none found" in detail for detail in details)


def test_the_example_facts_are_in_order() -> None:
    assert facts().unread() == ()
