"""Runs on a serving host: how often vLLM's user tried to send a packet since each unit started.

Argument: {"account": str, "counter": str, "baselines": folder}. Prints {"units": [{"unit",
"active", "started", "attempts"}], "control_counted": bool}. `attempts` is None where nothing was
noted when the unit started, and negative where the filter was loaded anew since. The control sends
a packet as the same user: a counter that does not count it proves nothing. Standard library only:
hosts have no more.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

SEND = (
    "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)\n"
    "try: s.sendto(b'probe', ('192.0.2.1', 53))\n"
    "except OSError: pass"
)


def run(*command: str) -> str:
    """Return what a command printed; an error ends the probe, it never reads as nothing."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def packets(listing: str) -> int:
    """Return the packets of the one counter in nft's JSON."""
    return next(
        int(item["counter"]["packets"])
        for item in json.loads(listing)["nftables"]
        if "counter" in item
    )


def accounted(baseline: str, counted: int) -> str:
    """Return the baseline with our own packet in it, so that the next audit does not find it.

    One was sent: whatever else was counted meanwhile is the unit's, and is left to be found.
    """
    total = packets(baseline) + min(counted, 1)
    return json.dumps({"nftables": [{"counter": {"packets": total}}]})


def main() -> None:
    """Read every unit's attempts, then let the control raise the counter and account for it."""
    given = json.loads(sys.argv[1])
    counter = ("nft", "-j", "list", "counter", "inet", "holdfast", given["counter"])
    names = [
        line.split()[0]
        for line in run(
            "systemctl", "list-units", "--all", "--plain", "--no-legend", "holdfast-vllm@*.service"
        ).splitlines()
    ]
    before = packets(run(*counter))
    units = []
    for name in names:
        shown = run("systemctl", "show", name, "-p", "ActiveState,ExecMainStartTimestamp")
        state = dict(line.partition("=")[::2] for line in shown.splitlines())
        noted = Path(given["baselines"]) / f"{name}.json"
        baseline = packets(noted.read_text()) if noted.exists() else None
        units.append(
            {
                "unit": name,
                "active": state["ActiveState"],
                "started": state["ExecMainStartTimestamp"],
                "attempts": None if baseline is None else before - baseline,
            }
        )
    run("setpriv", f"--reuid={given['account']}", "--clear-groups", sys.executable, "-c", SEND)
    time.sleep(0.05)
    counted = packets(run(*counter)) - before
    for name in names:
        noted = Path(given["baselines"]) / f"{name}.json"
        if noted.exists():
            noted.write_text(accounted(noted.read_text(), counted))
    print(json.dumps({"units": units, "control_counted": counted > 0}))


if __name__ == "__main__":
    main()
