"""Plain HTTP for wheels whose address pip told: sizes, and downloads that go on after a kill."""

from __future__ import annotations

import http.client
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_installer.bundle.digests import CHUNK
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Callable
    from urllib.response import addinfourl

_TIMEOUT = 60  # seconds without a byte
_ATTEMPTS = 4
_BROKEN = (  # a full disk is an OSError too, and must not be taken for a broken line
    urllib.error.URLError,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    http.client.HTTPException,
)


class GoneError(HoldfastError):
    """The address does not hand the file out (any more, or not without credentials)."""


def size_of(address: str) -> int | None:
    """Return the size in bytes a server or file states, or None when it does not."""
    if address.startswith("file:"):
        return _local(address).stat().st_size
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - http(s), from pip
    try:
        with _open(request) as answer:
            stated = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as problem:
        problem.close()
        return None
    except (OSError, http.client.HTTPException):
        return None
    return int(stated) if stated else None


def download(address: str, target: Path, size: int, moved: Callable[[int], None]) -> None:
    """Complete `target` from `address`, keeping what is there; `moved` is told bytes as they come.

    The caller checks the digest.
    """
    if address.startswith("file:"):
        shutil.copyfile(_local(address), target)
        moved(size)
        return
    if target.exists() and (kept := target.stat().st_size) <= size:
        moved(kept)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _continue(address, target, size, moved)
        except urllib.error.HTTPError as problem:
            problem.close()
            if problem.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                target.unlink()  # grew past the end: another file's remains
            elif problem.code < 500 or attempt == _ATTEMPTS:
                raise GoneError(
                    "A file could not be fetched",
                    where=target.name,
                    cause=f"HTTP {problem.code} {problem.reason}",
                ) from problem
        except _BROKEN as problem:
            if attempt == _ATTEMPTS:
                raise HoldfastError(
                    "A download broke off again and again; what came is kept",
                    where=address,
                    cause=str(problem),
                    next_command="run the same command again: it goes on from here",
                ) from problem
        else:
            return
    raise GoneError(
        "A file could not be fetched", where=target.name, cause="no range of it is left"
    )


def _continue(address: str, target: Path, size: int, moved: Callable[[int], None]) -> None:
    have = target.stat().st_size if target.exists() else 0
    if have > size:
        target.unlink()
        have = 0
    if have == size:
        return
    request = urllib.request.Request(address)  # noqa: S310 - http(s), from pip
    if have:
        request.add_header("Range", f"bytes={have}-")
    with _open(request) as answer:
        partial = answer.status == http.client.PARTIAL_CONTENT
        if have and not partial:
            have = 0
        with target.open("ab" if partial else "wb") as growing:
            # One byte past the end tells that it is another file, and no more is taken of it.
            while have <= size and (chunk := answer.read(min(CHUNK, size + 1 - have))):
                growing.write(chunk)
                have += len(chunk)
                moved(len(chunk))
    if have < size:
        raise http.client.IncompleteRead(b"", size - have)


def _local(address: str) -> Path:
    return Path(urllib.request.url2pathname(urllib.parse.urlsplit(address).path))


def _open(request: urllib.request.Request) -> addinfourl:
    # identity: a server that compresses on the fly would break ranges and sizes
    request.add_header("Accept-Encoding", "identity")
    request.add_header("User-Agent", "holdfast-bundle")
    answer: addinfourl = _opener().open(request, timeout=_TIMEOUT)
    return answer


@cache
def _opener() -> urllib.request.OpenerDirector:
    """Return an opener with the certificates and the proxy pip is configured with."""
    told = pip_settings()
    context = ssl.create_default_context(cafile=told.get("cert"))
    if client := told.get("client-cert"):
        context.load_cert_chain(client)
    proxy = told.get("proxy")
    proxies = {"http": proxy, "https": proxy} if proxy else None
    return urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
    )


@cache
def pip_settings() -> dict[str, str]:
    """Return pip's effective global settings (files, then environment), by option name."""
    result = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    settings: dict[str, str] = {}
    for line in result.stdout.splitlines():
        key, _, value = line.partition("=")
        if key.startswith(("global.", "install.")):
            settings[key.split(".", 1)[1]] = value.strip("'")
    for line in result.stdout.splitlines():
        key, _, value = line.partition("=")
        if key.startswith(":env:."):
            settings[key.removeprefix(":env:.")] = value.strip("'")
    return settings
