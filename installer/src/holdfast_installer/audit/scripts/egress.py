"""Runs on a host: tries to reach the canary and reads the filter's drop counter around it.

Argument: {"nonce": str, "targets": [[family, protocol, address, port], …], "counter": bool}.
Prints {"attempts": [{"target", "outcome", "detail"}], "drops_before", "drops_after"}.
Outcomes: answered, silent, refused, no-route, error. Standard library only: hosts have no more.
"""

import errno
import json
import socket
import subprocess
import sys
import time

TIMEOUT_SECONDS = 1.5
# Our own filter says EPERM or nothing; these are somebody's answer to a packet that went out.
FROM_AFAR = {errno.ECONNREFUSED, errno.ECONNRESET}
NO_ROUTE = {errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


def attempt(family: str, protocol: str, address: str, port: int, nonce: str) -> tuple[str, str]:
    """Send the nonce once and say what came of it."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6 if family == "ipv6" else socket.AF_INET, kind) as out:
        out.settimeout(TIMEOUT_SECONDS)
        try:
            out.connect((address, port))
            out.sendall(nonce.encode() + b"\n")
            echoed = out.recv(512)
        except TimeoutError:
            return "silent", "no answer"
        except OSError as problem:
            name = errno.errorcode.get(problem.errno or 0, str(problem))
            if problem.errno in FROM_AFAR:
                return "answered", name
            return ("no-route" if problem.errno in NO_ROUTE else "refused"), name
    return ("answered", "echoed") if nonce.encode() in echoed else ("error", repr(echoed[:40]))


def drops() -> int:
    """Return how many packets the egress filter has dropped since it was loaded; -1: no filter."""
    listed = subprocess.run(
        ["nft", "-j", "list", "counter", "inet", "holdfast", "egress_drop"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        return -1
    for item in json.loads(listed.stdout)["nftables"]:
        if "counter" in item:
            return int(item["counter"]["packets"])
    return -1


def main() -> None:
    """Try every target and print what was seen."""
    given = json.loads(sys.argv[1])
    before = drops() if given["counter"] else -1
    attempts = []
    for family, protocol, address, port in given["targets"]:
        outcome, detail = attempt(family, protocol, address, port, given["nonce"])
        target = f"{protocol}/{family} {address}:{port}"
        attempts.append({"target": target, "outcome": outcome, "detail": detail})
    time.sleep(0.05)
    after = drops() if given["counter"] else -1
    print(json.dumps({"attempts": attempts, "drops_before": before, "drops_after": after}))


if __name__ == "__main__":
    main()
