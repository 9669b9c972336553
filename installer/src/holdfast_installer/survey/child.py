"""The child process that talks to the hosts: the only importer of pyinfra.

Reads a request as JSON on standard input, prints what each host answered as JSON on standard
output. Run as `python -m holdfast_installer.survey.child`; nothing else imports this module.
"""

# gevent must replace the standard library's blocking calls before anything imports them.
# ruff: noqa: E402 - hence the order of what follows
from gevent import monkey  # type: ignore[import-untyped]  # gevent ships no stubs

monkey.patch_all()

import base64
import hashlib
import json
import os
import sys
import time
from typing import Any  # Any: JSON in and out, and pyinfra's own untyped data

from gevent.pool import Pool  # type: ignore[import-untyped]  # gevent ships no stubs
from paramiko import AuthenticationException, BadHostKeyException, SSHException
from pyinfra.api.config import Config
from pyinfra.api.exceptions import ConnectError, FactProcessError, PyinfraError
from pyinfra.api.facts import FactBase, get_fact
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State
from pyinfra.context import ctx_host, ctx_state

from holdfast_installer.survey.commands import END, SCRIPTS, script

PARALLEL = 50
CONNECT_SECONDS = 10
FACT_SECONDS = 30


class Script(FactBase[list[str] | None]):
    """The output of one script of the survey; None, pyinfra's default, where it failed."""

    abstract = False

    def command(self, fact: str) -> str:
        """Return the shell text of the fact of that name."""
        return script(fact)

    def process(self, output: list[str]) -> list[str]:
        """Return the lines before the end mark; without it the script did not run to its end."""
        lines = list(output)
        if not lines or lines[-1] != END:
            raise FactProcessError("the script did not run to its end")
        return lines[:-1]


def main() -> None:
    """Survey the hosts of the request, all at once."""
    request = json.load(sys.stdin)
    ssh = request["ssh"]
    names = [(host["name"], _data(host, ssh)) for host in request["hosts"]]
    inventory = Inventory((names, {}))  # type: ignore[no-untyped-call]  # pyinfra's own
    config = Config(CONNECT_TIMEOUT=CONNECT_SECONDS)  # type: ignore[no-untyped-call]  # as above
    state = State(inventory, config)
    sudo = ssh["user"] != "root"
    with ctx_state.use(state):
        answers = Pool(PARALLEL).map(lambda host: _survey(state, host, sudo=sudo), state.inventory)
    json.dump(dict(answers), sys.stdout)


def _data(host: dict[str, str], ssh: dict[str, Any]) -> dict[str, Any]:
    return {
        "ssh_hostname": host["address"],
        "ssh_user": ssh["user"],
        "ssh_port": ssh["port"],
        "ssh_key": ssh["private_key"],
        "ssh_known_hosts_file": ssh["known_hosts"],
        "ssh_strict_host_key_checking": "yes",
        "ssh_config_file": os.devnull,  # the site says everything; no other file has a say
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
    }


def _survey(state: State, host: Host, *, sudo: bool) -> tuple[str, dict[str, Any]]:
    with ctx_host.use(host):
        try:
            host.connect(raise_exceptions=True, show_errors=False)
        except ConnectError as error:
            reach, detail = _why(error)
            return host.name, {"reach": reach, "detail": detail}
        except (PyinfraError, OSError) as error:
            return host.name, {"reach": "error", "detail": str(error)}
        try:
            return host.name, {"reach": "read", "detail": "", **_facts(state, host, sudo=sudo)}
        finally:
            host.disconnect()


def _why(error: ConnectError) -> tuple[str, str]:
    """Tell apart the reasons why a connection was not made, by what pyinfra caught."""
    cause = error.__context__
    text = str(cause or error)
    if isinstance(cause, BadHostKeyException):
        return "wrong-host-key", "the host shows another key than known_hosts has for it"
    if isinstance(cause, AuthenticationException):
        return "authentication-failed", "the host does not accept this user with this key"
    if isinstance(cause, SSHException) and "No host key for" in text:
        return "unknown-host-key", "known_hosts has no key for this host"
    if isinstance(cause, (OSError, EOFError)):
        return "unreachable", text or "the host closed the connection"
    return "error", text


def _facts(state: State, host: Host, *, sudo: bool) -> dict[str, Any]:
    lines: dict[str, list[str] | None] = {}
    clock: dict[str, float] = {}
    for fact in SCRIPTS:
        before = time.time()
        lines[fact] = _one(state, host, fact, sudo=sudo)
        if fact == "clock":
            clock = {"before": before, "after": time.time()}
    return {"lines": lines, "clock": clock, "host_key": _host_key(host)}


def _one(state: State, host: Host, fact: str, *, sudo: bool) -> list[str] | None:
    wanted = {"fact": fact, "_timeout": FACT_SECONDS, "_sudo": sudo, "_ignore_errors": True}
    try:
        read: list[str] | None = get_fact(
            state, host, Script, kwargs=wanted, apply_failed_hosts=False
        )
    except (PyinfraError, SSHException, OSError, EOFError) as error:
        sys.stderr.write(f"{host.name}: {fact}: {error}\n")
        return None
    return read


def _host_key(host: Host) -> dict[str, str] | None:
    client = getattr(host.connector, "client", None)
    transport = client.get_transport() if client is not None else None
    if transport is None:
        return None
    key = transport.get_remote_server_key()
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return {"kind": key.get_name(), "fingerprint": f"SHA256:{digest}"}


if __name__ == "__main__":
    main()
