"""Builders of sites, surveys and manifests that are in order, for tests to spoil one thing at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_installer.bundle import sbom, signature
from holdfast_installer.bundle.digests import blob_path, digest_of_bytes
from holdfast_installer.bundle.manifest import Artifact, Environment, Manifest
from holdfast_installer.plan.blockers import software_packages
from holdfast_installer.profiles import hardware_profile
from holdfast_installer.site_file import parse_site
from holdfast_installer.survey import facts as f

if TYPE_CHECKING:
    from holdfast_installer.site import Site

DATA = Path(__file__).parent / "data"
GIB = 1024**3
COMMIT = "3f" * 20
MODEL = "holdfast/starter"


def example_site(text: str | None = None) -> Site:
    path = DATA / "site-example.yml"
    return parse_site(path.read_text() if text is None else text, path)


def digest(character: str) -> str:
    return f"sha256:{character * 64}"


HARDWARE_PACKAGES = hardware_profile("cpu-low-power").debian


def manifest(packages: tuple[str, ...] | None = None, **changes: object) -> Manifest:
    if packages is None:
        packages = (*HARDWARE_PACKAGES, *software_packages())
    debs = tuple(
        Artifact(
            kind="deb",
            name=name,
            version="1",
            filename=f"{name}_1_amd64.deb",
            digest=digest("d"),
            size=1_000_000,
            origin="debian",
            architecture="amd64",
        )
        for name in packages
    )
    requirements = tuple(
        Artifact(
            kind="file",
            name=f"environments/{name}.txt",
            filename=f"environments/{name}.txt",
            digest=digest(character),
            size=100,
            origin="holdfast",
        )
        for name, character in (("platform", "a"), ("vllm-cpu-low-power", "b"))
    )
    wheels = (
        Artifact(
            kind="wheel",
            name="torch",
            version="2.13.0+cpu",
            filename="torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl",
            digest=digest("c"),
            size=200_000_000,
            origin="index",
            environments=("vllm-cpu-low-power",),
        ),
        Artifact(
            kind="wheel",
            name="starlette",
            version="1.0",
            filename="starlette-1.0-py3-none-any.whl",
            digest=digest("e"),
            size=70_000,
            origin="index",
            environments=("platform",),
        ),
    )
    model = (
        Artifact(
            kind="model",
            name=MODEL,
            version=COMMIT,
            filename="config.json",
            digest=digest("1"),
            size=600,
            origin="folder",
            git_oid="4" * 40,
        ),
        Artifact(
            kind="model",
            name=MODEL,
            version=COMMIT,
            filename="model.safetensors",
            digest=digest("2"),
            size=7_000_000,
            origin="folder",
        ),
    )
    fields: dict[str, object] = {
        "release": "bookworm",
        "architecture": "amd64",
        "environments": {
            "platform": Environment(requirements=digest("a"), python="3.11"),
            "vllm-cpu-low-power": Environment(requirements=digest("b"), python="3.11"),
        },
        "artifacts": (*debs, *requirements, *wheels, *model),
    }
    return Manifest.model_validate({**fields, **changes})


def write_bundle(folder: Path) -> Manifest:
    """Write the example as a bundle that verifies: each blob is a few bytes, signed by own key."""
    blobs: dict[str, bytes] = {}
    example = manifest()
    artifacts = []
    for artifact in example.artifacts:
        content = f"{artifact.kind} {artifact.digest}".encode()
        blobs[artifact.digest] = content
        changed = {"digest": digest_of_bytes(content), "size": len(content)}
        artifacts.append(artifact.model_copy(update=changed))
    environments = {
        name: one.model_copy(update={"requirements": digest_of_bytes(blobs[one.requirements])})
        for name, one in example.environments.items()
    }
    small = manifest(artifacts=tuple(artifacts), environments=environments)
    for content in blobs.values():
        path = blob_path(folder / "blobs", digest_of_bytes(content))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "manifest.json").write_bytes(small.canonical())
    (folder / "sbom.cdx.json").write_bytes(sbom.render(small))
    key = signature.own_key()
    (folder / "signatures").mkdir()
    signed = signature.sign(small.canonical(), key)
    (folder / "signatures" / signature.file_name(key)).write_bytes(signed)
    return small


def facts(name: str = "serving-1", **changes: object) -> f.HostFacts:
    host = example_site().host(name)
    number = str(host.address).rsplit(".", 1)[1]
    fields: dict[str, object] = {
        "name": name,
        "address": str(host.address),
        "reach": "read",
        "os": f.OperatingSystem(
            id="debian", version="12", codename="bookworm", name="Debian GNU/Linux 12 (bookworm)"
        ),
        "kernel": f.Kernel(
            release="6.1.0-40-amd64",
            architecture="x86_64",
            virtualisation="systemd-nspawn",
            container=True,
        ),
        "cpu": f.Cpu(
            model="AMD EPYC 9254", vendor="AuthenticAMD", threads=8, sockets=1,
            flags=("fpu", "sse2", "avx", "avx2", "bf16"),
        ),
        "numa": (f.NumaNode(node=0, cpus="0-7", memory_bytes=32 * GIB),),
        "memory": f.Memory(total_bytes=32 * GIB, available_bytes=30 * GIB),
        "mounts": (
            f.Mount(
                target="/", source="/dev/vda1", kind="ext4",
                size_bytes=100 * GIB, free_bytes=80 * GIB,
            ),
        ),
        "interfaces": (
            f.Interface(
                name="host0", mac="02:00:00:00:00:01", state="up",
                addresses=(f"198.18.1.{number}/24", f"fd98:12:1::{number}/64"),
            ),
        ),
        "gpus": (),
        "listeners": (
            f.Listener(protocol="tcp", address="0.0.0.0", port=22, process="sshd",
                       unit="ssh.service"),
        ),
        "clock": f.Clock(offset_seconds=0.01, doubt_seconds=0.02),
        "power": f.Power(readable=False, domains=()),
        "releases": f.Releases(current="", installed=()),
        "replicas": (),
        "host_key": f.HostKey(kind="ssh-ed25519", fingerprint=f"SHA256:{name}"),
        "apply_lock": f.ApplyLock(held=False, holder=""),
    }  # fmt: skip
    return f.HostFacts.model_validate({**fields, **changes})


def survey(**of_serving_1: object) -> f.Survey:
    """Every host in order, but for what is changed on serving-1."""
    return f.Survey(
        site="quickstart",
        taken_at="2026-11-20T08:00:00Z",
        hosts=(
            facts("control-1"),
            facts("serving-1", **of_serving_1),
            facts("serving-2"),
        ),
    )
