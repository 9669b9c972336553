"""olah, a caching mirror of a hub: the nearest peer that answers metadata on one machine.

It is put in front of our registry, asked once so that it has everything, and started again offline:
what is measured is its own cache, not us behind it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from peer import program
from registry_load import UnexpectedAnswerError, fetch
from registry_servers import ADA
from servers import free_port, started

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from servers import Running


@contextlib.contextmanager
def mirror(folder: Path, upstream: Running, wanted: Sequence[tuple[str, str]]) -> Iterator[Running]:
    """Run the mirror with the answers to these (method, path) in its cache, and no upstream."""
    olah = program("olah", "olah-cli")
    folder.mkdir(parents=True)
    for offline in (False, True):
        port = free_port()
        settings = folder / f"offline-{offline}.toml"
        settings.write_text(_settings(folder, port, upstream, offline=offline))
        command = [
            olah,
            "--config",
            settings,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        command += ["--log-path", folder / "logs"]
        with started(command, port, folder) as running:
            if offline:
                yield running
            else:
                for method, path in wanted:
                    with contextlib.suppress(UnexpectedAnswerError):  # it is measured anyway
                        fetch(running.url + path, ADA, method)


def _settings(folder: Path, port: int, upstream: Running, *, offline: bool) -> str:
    netloc = upstream.url.removeprefix("http://")
    return f"""
[basic]
host = "127.0.0.1"
port = {port}
repos-path = "{folder}/repos"
hf-scheme = "http"
hf-netloc = "{netloc}"
hf-lfs-netloc = "{netloc}"
mirror-netloc = "127.0.0.1:{port}"
mirror-lfs-netloc = "127.0.0.1:{port}"
[accessibility]
offline = {str(offline).lower()}
"""
