"""The quickstart's own site as a test bed: what a newcomer gets is what is tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
HOLDFAST = str(Path(sys.executable).with_name("holdfast"))
STARTER = "holdfast/starter"
QUESTION = "What is Holdfast?"


def environment() -> dict[str, str]:
    """Return our environment with the operator's own state, not that of the tests' private labs."""
    return {key: value for key, value in os.environ.items() if key != "HOLDFAST_STATE"}


@dataclass(frozen=True)
class QuickSite:
    """An applied site in a lab: its name, its folder and what the quickstart printed."""

    name: str
    folder: Path
    printed: dict[str, object]

    @property
    def site_file(self) -> str:
        return str(self.folder / "site.yml")

    @property
    def bundle(self) -> str:
        return str(self.folder / "bundle")

    @property
    def token(self) -> str:
        return str(self.printed["token"])

    @property
    def ca(self) -> str:
        return str(self.printed["ca"])

    @property
    def domain(self) -> str:
        return f"{self.name}.internal"

    def holdfast(
        self, *arguments: str, check: bool = True, timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Run a holdfast command on this machine."""
        done = subprocess.run(
            [HOLDFAST, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=environment(),
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done

    def inside(self, where: str, *command: str) -> list[str]:
        """Return the command line that runs `command` in one of the lab's namespaces or hosts."""
        return [HOLDFAST, "lab", "exec", "--name", self.name, where, "--", *command]

    def run(
        self, where: str, *command: str, check: bool = True, timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in one of the lab's namespaces, or on one of its hosts."""
        return self.holdfast(*self.inside(where, *command)[1:], check=check, timeout=timeout)

    def operator(
        self, *arguments: str, check: bool = True, timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Run a holdfast command for the site, where the operator is."""
        where = ("--site", self.site_file)
        return self.run("operator", HOLDFAST, *arguments, *where, check=check, timeout=timeout)

    def apply(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Apply the bundle to the site."""
        return self.operator("apply", "--bundle", self.bundle, "--json", *options, check=check)

    @contextmanager
    def sealed(self, pcap: Path, *options: str) -> Iterator[None]:
        """Record the lab's bridge meanwhile; not one packet may be meant for anywhere outside."""
        command = [HOLDFAST, "lab", "capture", "--name", self.name, "--output", str(pcap), "--json"]
        recorder = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
        )
        try:
            deadline = time.monotonic() + 20
            while not pcap.exists():
                assert time.monotonic() < deadline, "the recorder did not start"
                time.sleep(0.1)
            yield
        finally:
            recorder.terminate()
            told = json.loads(recorder.communicate(timeout=120)[0])
            pcap.unlink()
        assert told["frames"] > 1000, told
        assert told["outside"] == 0, told

    def verdicts(self, *controls: str) -> dict[tuple[str, str], str]:
        """Audit and return {(control, host): verdict}."""
        chosen = [word for control in controls for word in ("--control", control)]
        done = self.operator("audit", "--json", *chosen, check=False)
        found = json.loads(done.stdout)["verdicts"]
        assert done.returncode == (0 if all(one["verdict"] == "pass" for one in found) else 3)
        return {(one["name"], one["host"]): one["verdict"] for one in found}

    def researcher(
        self, program: str, *arguments: str, token: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a Python program in the researcher's place with the stock clients' own settings."""
        secret = self.token if token is None else token
        settings = {
            "HF_ENDPOINT": f"https://hub.{self.domain}",
            "HF_TOKEN": secret,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OPENAI_BASE_URL": f"https://api.{self.domain}/v1",
            "OPENAI_API_KEY": secret or "none",
            "SSL_CERT_FILE": self.ca,
        }
        pairs = [f"{name}={value}" for name, value in settings.items()]
        command = ("env", *pairs, sys.executable, "-c", program, *arguments)
        return self.run("researcher", *command, check=check)


@cache
def quickstart(name: str = "quickstart") -> QuickSite:
    """Bring the quickstart's site up, or find it up, once a session; tests leave it whole."""
    folder = ROOT / "build" / name
    arguments = ["--name", name, "--folder", str(folder), "--json"]
    done = subprocess.run(
        [HOLDFAST, "quickstart", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(),
    )
    assert done.returncode == 0, "the quickstart failed; its own words are above"
    return QuickSite(name, folder, json.loads(done.stdout))
