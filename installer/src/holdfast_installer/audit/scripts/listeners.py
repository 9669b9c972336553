"""Runs on a host: speaks plain HTTP and old TLS to every TCP port that others could reach.

Argument: {"plain": [port, …]} names the ports whose protocol is not HTTP and carries its own proof
(SSH, DNS). Prints {"listeners": [{"address", "port", "plain", "old_tls", "tls", "certificate"}],
"old_tls_works"}: certificates are DER in base64, and the last says whether this host's own client
can speak TLS 1.1 at all, tried on a server of ours.
Standard library only: hosts have no more.
"""

import base64
import json
import socket
import ssl
import subprocess
import sys
import threading

CERTIFICATE = ("/etc/holdfast/tls/host.pem", "/etc/holdfast/tls/host.key")
TIMEOUT_SECONDS = 2.0


def listening() -> list[tuple[str, int]]:
    """Return the addresses and ports of TCP sockets that are not bound to loopback."""
    shown = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    found = set()
    for line in shown.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        address = address.strip("[]").partition("%")[0]
        if not (address.startswith("127.") or address == "::1"):
            found.add((address, int(port)))
    return sorted(found)


def reachable(address: str) -> tuple[socket.AddressFamily, str]:
    """Return where to connect to for a bound address; a wildcard is reached over loopback."""
    if ":" in address:
        return socket.AF_INET6, "::1" if address == "::" else address
    return socket.AF_INET, "127.0.0.1" if address in {"0.0.0.0", "*"} else address  # noqa: S104 - compared, not bound


def connect(address: str, port: int) -> socket.socket:
    """Open a TCP connection to a bound address."""
    family, target = reachable(address)
    out = socket.socket(family, socket.SOCK_STREAM)
    out.settimeout(TIMEOUT_SECONDS)
    out.connect((target, port))
    return out


def speak_plain(address: str, port: int) -> str:
    """Say what a plain HTTP request is answered with."""
    try:
        with connect(address, port) as out:
            out.sendall(b"GET / HTTP/1.0\r\nHost: probe.invalid\r\n\r\n")
            answer = out.recv(64)
    except OSError as problem:
        return f"closed ({type(problem).__name__})"
    if not answer:
        return "closed"
    return answer.split(b"\r\n")[0].decode("latin-1") if answer.startswith(b"HTTP/") else "not HTTP"


def age(context: ssl.SSLContext) -> None:
    """Let a context speak TLS 1.1 and nothing newer."""
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1


def old_tls_works() -> bool:
    """Say whether our own client gets through to a server that speaks TLS 1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    age(context)
    try:
        context.load_cert_chain(*CERTIFICATE)
    except OSError:
        return False
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            accepted, _ = server.accept()
            try:
                with context.wrap_socket(accepted, server_side=True) as wrapped:
                    wrapped.recv(1)
            except OSError:
                accepted.close()

        threading.Thread(target=answer, daemon=True).start()
        return speak_tls("127.0.0.1", port, old=True)[0] == "TLSv1.1"


def speak_tls(address: str, port: int, *, old: bool) -> tuple[str, str]:
    """Say how a TLS handshake ends: its version, or why not; and the certificate shown.

    `old` offers TLS 1.1 at the most.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if old:
        age(context)
    try:
        with connect(address, port) as out, context.wrap_socket(out) as wrapped:
            shown = wrapped.getpeercert(binary_form=True) or b""
            return str(wrapped.version()), base64.b64encode(shown).decode()
    except ssl.SSLError as problem:
        return f"refused ({problem.reason})", ""
    except OSError as problem:
        return f"closed ({type(problem).__name__})", ""


def main() -> None:
    """Try every listener and print what was seen."""
    given = json.loads(sys.argv[1])
    seen = []
    for address, port in listening():
        if port in given["plain"]:
            continue
        tls, certificate = speak_tls(address, port, old=False)
        seen.append(
            {
                "address": address,
                "port": port,
                "plain": speak_plain(address, port),
                "tls": tls,
                "old_tls": speak_tls(address, port, old=True)[0],
                "certificate": certificate,
            }
        )
    print(json.dumps({"listeners": seen, "old_tls_works": old_tls_works()}))


main()
