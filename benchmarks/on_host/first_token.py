"""Start a vLLM unit of this host and time its way to the first token, over mutual TLS.

Sent to the host as it is, with a JSON object as its only argument: unit, address, model, tls,
environment, model_path and cold. Prints seconds since `systemctl start` as JSON. With `cold` the
unit's cache folder is emptied first, and the pages of its environment and model are given back to
the kernel, so that they come from the disk again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 900  # seconds
# What vLLM and systemd write, in this order, and what it means.
MARKS = (
    ("process", "Started holdfast-vllm@"),
    ("engine", "Initializing a V1 LLM engine"),
    ("weights", "Loading weights took"),
    ("engine_ready", "init engine (profile, create kv cache, warmup model) took"),
    ("listening", "Application startup complete"),
)


def drop(folders: list[str]) -> float:
    """Give the pages of the folders' files back to the kernel; return the share still in memory."""
    os.sync()  # a page that is not written yet cannot be dropped
    # through the links: the environment that runs is a link to the real one
    files = [
        path
        for top in folders
        for path in Path(top).resolve().rglob("*")
        if path.is_file() and not path.is_symlink()
    ]
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    resident = 0
    for first in range(0, len(files), 500):
        command = ["fincore", "--bytes", "--noheadings", "--output", "RES"]
        seen = subprocess.run(
            [*command, *files[first : first + 500]], capture_output=True, text=True, check=False
        )
        resident += sum(int(line) for line in seen.stdout.split())
    return resident / sum(path.stat().st_size for path in files)


def first_token(address: str, model: str, context: ssl.SSLContext | None) -> None:
    """Ask with streaming and return when the first chunk with text has come."""
    body = json.dumps({"model": model, "prompt": "What", "max_tokens": 1, "stream": True}).encode()
    request = urllib.request.Request(
        f"{address}/v1/completions", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120, context=context) as answer:
        for line in answer:
            if line.startswith(b"data: {") and json.loads(line[6:]).get("choices"):
                return
    raise urllib.error.URLError("the stream ended without a token")


def processor_seconds(service: str) -> float:
    """Return what the unit's processes and the children they waited for have used so far.

    Not what systemd accounts: that needs a cgroup controller that a lab may not have.
    """
    command = ["systemctl", "show", "--property=MainPID", "--value", service]
    main_process = int(subprocess.run(command, capture_output=True, check=True).stdout)
    ticks: dict[int, int] = {}
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    own = {main_process}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(ticks.get(pid, 0) for pid in own) / os.sysconf("SC_CLK_TCK")


def marks(unit: str, since: float) -> dict[str, float]:
    """Return when the journal shows each stage of the start, in seconds since `since`."""
    command = ["journalctl", "--output=json", f"--since=@{since:.6f}", "--no-pager"]
    units = [f"--unit=holdfast-vllm@{unit}.service"]
    text = subprocess.run([*command, *units], capture_output=True, text=True, check=True).stdout
    found: dict[str, float] = {}
    for line in text.splitlines():
        entry = json.loads(line)
        at = int(entry["__REALTIME_TIMESTAMP"]) / 1e6 - since
        for name, words in MARKS:
            if at >= 0 and words in str(entry.get("MESSAGE", "")):
                found.setdefault(name, round(at, 3))
    return found


def main() -> None:
    """Stop, forget where asked, start, ask until the token comes."""
    asked = json.loads(sys.argv[1])
    service = f"holdfast-vllm@{asked['unit']}.service"
    subprocess.run(["systemctl", "stop", service], check=True)
    result: dict[str, object] = {}
    if asked["cold"]:
        for entry in Path(f"/var/cache/holdfast-vllm/{asked['unit']}").glob("*"):
            shutil.rmtree(entry)
        kept = drop([asked["environment"], asked["model_path"]])
        result["still_in_memory"] = round(kept, 3)
    context = ssl.create_default_context(cafile=f"{asked['tls']}/ca.pem")
    context.load_cert_chain(f"{asked['tls']}/host.pem", f"{asked['tls']}/host.key")
    wall, began = time.time(), time.monotonic()
    subprocess.run(["systemctl", "start", service], check=True)
    result["started"] = round(time.monotonic() - began, 3)
    while True:
        # Until it listens the connection is refused; a timeout of TLS is an OSError too.
        with contextlib.suppress(OSError):
            first_token(asked["address"], asked["model"], context)
            break
        if time.monotonic() - began > PATIENCE:
            sys.exit(f"{asked['address']} gave no token within {PATIENCE} s")
        time.sleep(0.05)
    result["first_token"] = round(time.monotonic() - began, 3)
    result["processor"] = round(processor_seconds(service), 2)
    subprocess.run(["journalctl", "--sync"], check=False, capture_output=True)
    print(json.dumps({**result, **marks(asked["unit"], wall)}))


if __name__ == "__main__":
    main()
