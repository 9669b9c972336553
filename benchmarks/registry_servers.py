"""The servers of the registry's benchmark: the registry, nginx with and without it, the sink."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from servers import BIN, Running, free_port, started
from workshop import ROOT, NotMeasuredError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PAGE = ROOT / "docs" / "capabilities" / "model_registry.md"
ADA = "hft_ada-of-the-benchmark-01"


@contextlib.contextmanager
def registry(
    folder: Path, *options: str, models: Mapping[str, Path] | None = None
) -> Iterator[Running]:
    """Run the registry alone, as people do, with one writer and these folders as models."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"jurisdiction": "de", "classification": "internal"}
    tokens = [{"name": "benchmark", "secret": ADA}]
    document = {
        "teams": ["research", "elsewhere"],
        "users": [{"name": "ada", "teams": {"research": "admin"}, "tokens": tokens}],
        "models": [
            {
                "id": name,
                "path": str(path),
                "teams": [name.partition("/")[0]],
                "labels": labels,
            }
            for name, path in (models or {}).items()
        ],
    }
    seed = folder / "seed.yml"
    seed.write_text(yaml.safe_dump(document))
    port = free_port()
    command = [BIN / "holdfast-model-registry", "serve", "--data", folder / "data"]
    command += ["--listen", f"127.0.0.1:{port}", "--seed", seed, "--jurisdiction", "de", *options]
    with started(command, port, folder, "/healthz", data=folder / "data") as running:
        yield running


@contextlib.contextmanager
def sink(folder: Path) -> Iterator[Running]:
    """Run the hub that throws away."""
    port = free_port()
    command = [sys.executable, Path(__file__).with_name("registry_sink.py"), str(port)]
    with started(command, port, folder) as running:
        yield running


@contextlib.contextmanager
def nginx(folder: Path, locations: str) -> Iterator[Running]:
    """Run nginx with these locations, as Debian's configuration has it otherwise."""
    binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if binary is None:
        raise NotMeasuredError("nginx is not installed: apt-get install nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = f"user {pwd.getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"""{user} daemon off; worker_processes auto; pid {folder}/pid;
        error_log {folder}/error.log;
        events {{ worker_connections 768; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; {temporary}
            server {{ listen 127.0.0.1:{port}; {locations} }}
        }}"""
    )
    command = [binary, "-p", folder, "-c", "nginx.conf", "-e", "stderr"]
    with started(command, port, folder) as running:
        yield running


def front(upstream: Running) -> str:
    """Return the documented locations, for this registry."""
    found = re.search(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    if found is None:
        raise NotMeasuredError(f"{PAGE} has no nginx locations")
    return (
        found[1]
        .replace("/var/lib/holdfast/registry/blobs/", f"{upstream.data}/blobs/")
        .replace("127.0.0.1:8101", upstream.url.removeprefix("http://"))
    )


def plain(path: Path, name: str, size: int, digest: str) -> str:
    """Return locations that serve one file as a hub would, all of it by nginx itself."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    return f"""
        location = /{name} {{
            alias {path};
            etag off;
            if_modified_since off;
            default_type application/octet-stream;
            add_header ETag '"{digest}"';
            add_header X-Repo-Commit {commit};
            add_header X-Linked-ETag '"{digest}"';
            add_header X-Linked-Size {size};
        }}
        location / {{ return 404; }}
    """
