"""From a bundle to programs on this machine: environments, shared libraries, imported models."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from holdfast_installer.bundle.manifest import MANIFEST
from holdfast_installer.errors import HoldfastError
from holdfast_installer.local import debian_archive, environments
from holdfast_installer.local.services import CLASSIFICATION, Programs, base_environment
from holdfast_installer.remote import operator_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_installer.bundle.verify import VerifiedBundle
    from holdfast_installer.local.layout import Layout
    from holdfast_installer.profiles import HardwareProfile
    from holdfast_installer.site import Site

# What vLLM links against and a small installation lacks; the rest of a profile's Debian packages
# serve compilation, which is switched off here.
_LIBRARIES = ("libnuma1",)


def programs(
    bundle: VerifiedBundle, layout: Layout, hardware: HardwareProfile, say: Callable[[str], None]
) -> Programs:
    """Build what is not built yet, and return where it is."""
    uv = environments.uv_of(bundle, layout.tools)
    folders = []
    for name in ("platform", hardware.environment):
        count = len(bundle.wheels(name))
        say(f"environment {name}: {count} wheels")
        folders.append(environments.build(bundle, name, layout.environments, uv))
    libraries = layout.tools / f"libraries-{bundle.digest.removeprefix('sha256:')[:12]}"
    for package in bundle.manifest.of_kind("deb"):
        if package.name in _LIBRARIES and not libraries.exists():
            debian_archive.shared_libraries(bundle.blob(package.digest), libraries)
    return Programs(platform=folders[0], vllm=folders[1], libraries=libraries)


def import_models(bundle: VerifiedBundle, layout: Layout, installed: Programs, site: Site) -> None:
    """Give the registry the site's models, each to its teams; what is there stays as it is."""
    for model in site.models:
        command = [
            *(str(installed.platform / "bin/holdfast-model-registry"), "import"),
            *("--data", str(layout.registry), "--ledger", str(layout.ledger)),
            *("--manifest", str(bundle.directory / MANIFEST)),
            *("--blobs", str(bundle.directory / "blobs"), "--model", model.id),
            *("--policy", str(layout.policy), "--importer", operator_name()),
            *("--config", str(layout.registry_settings)),
            *("--jurisdiction", site.jurisdiction, "--classification", CLASSIFICATION, "--json"),
        ]
        for team in model.teams:
            command += ["--team", team]
        if not model.teams:
            command.append("--no-team")  # without either, the teams of an earlier start would stay
        done = subprocess.run(
            command,
            env=base_environment(layout, "import"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise HoldfastError(
                f"The model {model.id} could not be imported into the local registry",
                where=str(layout.registry),
                cause=done.stderr.strip()[-1000:],
                next_command="holdfast bundle verify DIR, then the same command again",
            )


def check_approved(layout: Layout, installed: Programs, model: str, commit: str) -> None:
    """Raise HoldfastError, with what to do, unless the registry lets the revision be served."""
    where = (
        *("--data", str(layout.registry), "--ledger", str(layout.ledger)),
        *("--trust-database", layout.trust_database, "--policy", str(layout.policy)),
    )
    program = str(installed.platform / "bin/holdfast-model-registry")
    done = subprocess.run(
        [program, "model", "show", f"{model}@{commit}", "--json", *where],
        env=base_environment(layout, "import"),
        capture_output=True,
        text=True,
        check=False,
    )
    review: dict[str, Any] = {"state": "unread"}
    if done.returncode == 0:
        review = json.loads(done.stdout)
    if review["state"] != "approved":
        findings = [f"{each['path']}: {each['detail']}" for each in review.get("findings", ())]
        given = f"{len(review.get('approvals', ()))} of {review.get('approvals_needed')} approvals"
        raise HoldfastError(
            f"The model {model} may not be served: it is {review['state']}, not approved",
            where=f"{model}@{commit}",
            cause="; ".join([given, *findings])
            if findings or done.returncode == 0
            else done.stderr,
            next_command=f"{program} model approve {model} {' '.join(where)} --token-file FILE",
        )
