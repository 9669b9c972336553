"""SSH to a site's hosts, always with the host keys the site file names."""

from __future__ import annotations

import getpass
import platform
import shlex
import subprocess
from typing import TYPE_CHECKING

from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_installer.site import Host, Site

CONNECTION_FAILED = 255


def operator_name() -> str:
    """Return who sits here, as ledgers on the site name them: login@machine."""
    return f"{getpass.getuser()}@{platform.node()}"


def ssh_arguments(site: Site, host: Host) -> list[str]:
    """Return the ssh command up to and including the host, for one of the site's hosts."""
    arguments = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    arguments += ["-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"]
    arguments += ["-o", f"UserKnownHostsFile={site.ssh.known_hosts}"]
    arguments += ["-o", "GlobalKnownHostsFile=/dev/null"]
    arguments += ["-o", "IdentitiesOnly=yes", "-i", str(site.ssh.private_key)]
    arguments += ["-p", str(site.ssh.port), "-l", site.ssh.user]
    return [*arguments, str(host.address)]


def as_root(site: Site, command: Sequence[str]) -> str:
    """Return the shell text that runs a command as root: by sudo, unless the account is root."""
    by = () if site.ssh.user == "root" else ("sudo", "-n", "--")
    return shlex.join([*by, *command])


def run_on(
    site: Site, host: Host, command: Sequence[str], *, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run one command on one host as root, `given` on its standard input; the caller judges it.

    Raises HoldfastError where the host cannot be reached or its key is not the known one.
    """
    done = subprocess.run(
        [*ssh_arguments(site, host), as_root(site, command)],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == CONNECTION_FAILED:
        raise HoldfastError(
            f"Host {host.name} cannot be reached over SSH.",
            where=f"{site.ssh.user}@{host.address}:{site.ssh.port}",
            cause=done.stderr.strip() or "ssh gave no reason",
            next_command="holdfast survey --site SITE.yml",
        )
    return done
