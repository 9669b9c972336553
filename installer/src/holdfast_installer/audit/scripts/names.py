"""Runs on a host: asks for outside names in every way a program might.

Argument: {"label": str, "inside": str, "canaries": [address, …]}. Prints
{"resolver": address, "inside": rcode-or-outcome, "attempts": [{"target", "outcome", "detail"}]}.
Outcomes: answered, absent, refused, silent. Absent is "no such name" or "no such record": to say it
of an outside name, somebody asked outside. Standard library only: hosts have no more.
"""

import json
import socket
import struct
import sys
from pathlib import Path

TIMEOUT_SECONDS = 1.5
RCODES = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
LOOKED_UP = {0, 3}


def question(name: str) -> bytes:
    """Return a DNS query for the A record of `name`, recursion desired."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return (
        struct.pack(">6H", 0x4846, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    )


def ask(server: str, port: int, name: str, protocol: str) -> tuple[str, str]:
    """Ask one server and say whether an address came back."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    query = question(name)
    with socket.socket(family, kind) as out:
        out.settimeout(TIMEOUT_SECONDS)
        try:
            out.connect((server, port))
            out.sendall(struct.pack(">H", len(query)) + query if protocol == "tcp" else query)
            answer = out.recv(2048)
        except TimeoutError:
            return "silent", "no answer"
        except OSError as problem:
            return "refused", str(problem)
    return meaning(answer[2:] if protocol == "tcp" else answer)


def meaning(answer: bytes) -> tuple[str, str]:
    """Say what a DNS message amounts to."""
    if len(answer) < 12:
        return "answered", "not DNS, but an answer"
    flags, _, answers = struct.unpack(">3H", answer[2:8])
    code = flags & 0xF
    told = f"{RCODES.get(code, str(code))}, {answers} records"
    if answers:
        return "answered", told
    return ("absent" if code in LOOKED_UP else "refused"), told


def resolver() -> str:
    """Return the first name server of this host, or nothing."""
    for line in Path("/etc/resolv.conf").read_text().splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            return words[1]
    return ""


def main() -> None:
    """Ask inside, then outside, and print what was seen."""
    given = json.loads(sys.argv[1])
    server = resolver()
    tries = [(server, 53, "udp"), (server, 53, "tcp")] if server else []
    for canary in given["canaries"]:
        tries += [
            (canary, 53, "udp"),
            (canary, 53, "tcp"),
            (canary, 853, "tcp"),
            (canary, 443, "tcp"),
        ]
    attempts = []
    for address, port, protocol in tries:
        outcome, detail = ask(address, port, given["label"], protocol)
        target = f"{protocol} {address}:{port}"
        attempts.append({"target": target, "outcome": outcome, "detail": detail})
    inside = ask(server, 53, given["inside"], "udp") if server else ("refused", "no resolver")
    print(json.dumps({"resolver": server, "inside": list(inside), "attempts": attempts}))


if __name__ == "__main__":
    main()
