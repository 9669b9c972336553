"""Starting vLLM as its unit does and as anybody does, outside a lab, and timing the first token."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jinja2
from on_host.first_token import drop, first_token
from servers import Running, free_port
from workshop import ROOT, STARTER, STARTER_FOLDER, NotMeasuredError

from holdfast_installer.plan.sizes import KV_CACHE
from holdfast_installer.profiles import hardware_profile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROLE = ROOT / "playbooks/ansible_collections/holdfast/platform/roles/vllm"
UNIT = "benchmark"
PATIENCE = 600
# One token answers every question here.
CONTEXT = 512


@dataclass(frozen=True)
class Start:
    """Seconds from the start of the process to the first token, and what it used until then."""

    first_token: float
    processor: float


class Replica:
    """One way to start vLLM: an interpreter, its environment, the unit's flags, and its caches."""

    def __init__(self, python: Path, folder: Path, *, bare: bool) -> None:
        self._python = python
        self._folder = folder
        self._caches = folder / "caches"
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        certificate(folder)
        self.context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        self.context.load_cert_chain(folder / "host.pem", folder / "host.key")
        profile = hardware_profile("cpu-low-power").vllm
        env = dict(profile.env)
        if profile.args.get("enforce_eager"):
            env["TORCHDYNAMO_DISABLE"] = "1"
        replica = {
            "unit": UNIT,
            "model": STARTER,
            "port": self.port,
            "model_path": str(STARTER_FOLDER),
            "args": {**profile.args, "max_model_len": CONTEXT},
            "env": env,
        }
        self._write("unit.yml", replica)
        self._write("openssl.cnf", replica)
        self._environment = (
            # Left to itself vLLM claims nine tenths of the memory, and fails where less is free.
            {"PATH": "/usr/bin:/bin", "HOME": str(self._caches), KV_CACHE: env[KV_CACHE]}
            if bare
            else {"PATH": "/usr/bin:/bin"} | self._unit_environment(replica)
        )

    def _write(self, name: str, replica: dict[str, object]) -> None:
        (self._folder / name).write_text(self._render(name, replica))

    def _render(self, name: str, replica: dict[str, object]) -> str:
        templates = jinja2.Environment(
            trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
        )
        templates.filters["to_json"] = json.dumps
        return templates.from_string((ROLE / "templates" / f"{name}.j2").read_text()).render(
            replica=replica,
            vllm_address="127.0.0.1",
            vllm_tls=str(self._folder),
            vllm_tls_min_version="1.3",
        )

    def _unit_environment(self, replica: dict[str, object]) -> dict[str, str]:
        """Return what the role's file for systemd says, with our folders for the host's."""
        text = self._render("unit.env", replica)
        text = text.replace(f"/var/cache/holdfast-vllm/{UNIT}", str(self._caches))
        text = text.replace("/etc/holdfast/vllm/openssl.cnf", str(self._folder / "openssl.cnf"))
        lines = (line for line in text.splitlines() if line and not line.startswith("#"))
        return dict(line.split("=", 1) for line in lines)

    def forget(self) -> None:
        """Empty the caches, and give what is read at a start back to the disk."""
        shutil.rmtree(self._caches, ignore_errors=True)
        drop([str(self._python.parents[1]), str(STARTER_FOLDER)])

    @contextlib.contextmanager
    def running(self) -> Iterator[Start]:
        """Start it, yield once it has answered, and end it with all it started."""
        self._caches.mkdir(exist_ok=True)
        log = self._folder / "log"
        command = [self._python, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--config", self._folder / "unit.yml"]
        began = time.monotonic()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdout=out, stderr=out, env=self._environment, start_new_session=True,
            )  # fmt: skip
        try:
            while not self._answers():
                if process.poll() is not None or time.monotonic() - began > PATIENCE:
                    raise NotMeasuredError(f"vLLM did not start: {log.read_text()[-800:]}")
                time.sleep(0.05)
            took = time.monotonic() - began
            yield Start(took, Running(self.url, process).processor())
        finally:
            end(process)

    def _answers(self) -> bool:
        # Until it listens the connection is refused; a timeout of TLS is an OSError too.
        with contextlib.suppress(OSError):
            first_token(self.url, STARTER, self.context)
            return True
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(40)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def certificate(folder: Path) -> None:
    """Make an authority and its certificate of 127.0.0.1: ca.pem, host.pem, host.key."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    for asked in (
        ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=benchmark"),
        (
            *("-keyout", "host.key", "-out", "host.pem", "-subj", "/CN=127.0.0.1"),
            *("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        ),
    ):
        command = ["openssl", "req", "-x509", *key, *asked]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotMeasuredError(f"no certificate: {done.stderr[-300:]}")
