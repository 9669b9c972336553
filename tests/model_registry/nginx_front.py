"""The nginx of a site in front of a registry, with the very lines of the documentation."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from registry_parts import free_port

from required import lacking

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "capabilities" / "model_registry.md"
BLOBS = "/var/lib/holdfast/registry/blobs/"
UPSTREAM = "127.0.0.1:8101"


def documented_locations() -> str:
    """Return the location blocks that the documentation gives."""
    found = re.search(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None, PAGE
    assert BLOBS in found[1]
    assert UPSTREAM in found[1]
    return found[1]


@contextmanager
def nginx(folder: Path, upstream: str, blobs: Path) -> Iterator[str]:
    """Run nginx with the documented locations in front of `upstream`; yield its URL."""
    binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if binary is None:
        lacking("nginx is not installed: apt-get install nginx-light")
    folder.mkdir()
    port = free_port()
    locations = documented_locations().replace(BLOBS, f"{blobs}/").replace(UPSTREAM, upstream)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{
            access_log off; sendfile on; {temporary}
            server {{ listen 127.0.0.1:{port}; {locations} }}
        }}"""
    )
    process = subprocess.Popen([binary, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"])
    try:
        for _ in range(200):
            assert process.poll() is None, "nginx ended"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
