"""Where copies come from: another registry over its own endpoints, or a folder that was carried.

A source is not believed: what it hands out is signed, or has a digest that something signed names.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.signing_envelope import MAX_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast_hub_protocol.records import NewFile

CHUNK: Final = 1 << 20
_TRIES: Final = 5
_PAUSE: Final = 0.5  # seconds before the second try, doubled before each further one
_TIMEOUT: Final = 60
_NEXT: Final = re.compile(r'<([^<>]+)>; rel="next"')
_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})


class Source(Protocol):
    """What a replication asks of wherever it copies from."""

    def repositories(self) -> Iterator[RepositoryId]:
        """List what may be copied."""

    def state(self, repository: RepositoryId) -> bytes:
        """Return the signed state of a repository."""

    def manifest(self, repository: RepositoryId, commit: str) -> bytes:
        """Return the signed manifest of a commit."""

    def fetch(
        self,
        repository: RepositoryId,
        commit: str,
        file: NewFile,
        partial: Path,
        step: Callable[[int], None],
    ) -> Path:
        """Return where the content of a file lies now; `partial` may hold its beginning already.

        `step` is told of bytes as they come. The caller checks the digest.
        """


class FolderSource:
    """A folder that `replicate --to` wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "repositories").is_dir():
            raise RegistryError(
                "this is no folder to replicate from",
                where=str(folder),
                cause="it has no repositories/",
                next_command="holdfast-model-registry replicate --to DIR, on the other side",
            )

    def repositories(self) -> Iterator[RepositoryId]:
        """List the repositories of the folder, by name."""
        for path in sorted((self.folder / "repositories").glob("*/*/*/state.json")):
            kind, namespace, name = path.parts[-4:-1]
            try:
                yield RepositoryId(kind.removesuffix("s"), namespace, name)
            except BadIdentifierError as error:
                raise self._unreadable(path, str(error)) from error

    def state(self, repository: RepositoryId) -> bytes:
        """Read the state."""
        return self._read(repository_folder(self.folder, repository) / "state.json")

    def manifest(self, repository: RepositoryId, commit: str) -> bytes:
        """Read the manifest."""
        return self._read(repository_folder(self.folder, repository) / f"{commit}.json")

    def fetch(
        self,
        repository: RepositoryId,
        commit: str,
        file: NewFile,
        partial: Path,
        step: Callable[[int], None],
    ) -> Path:
        """Return the blob of the folder itself."""
        del repository, commit, partial
        path = self.folder / "blobs" / "sha256" / file.sha256[:2] / file.sha256
        if not path.is_file():
            raise self._unreadable(path, "no such file")
        step(file.size)
        return path

    def _read(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                return file.read(MAX_SIZE + 1)
        except OSError as error:
            raise self._unreadable(path, error.strerror or str(error)) from error

    def _unreadable(self, path: Path, cause: str) -> RegistryError:
        return RegistryError("the folder is not whole", where=str(path), cause=cause)


class HubSource:
    """Another registry. Connections are one for each request; a cut one goes on where it ended."""

    def __init__(self, address: str, token: str, ca: Path | None = None) -> None:
        self.address = address.rstrip("/")
        self._token = token
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _Stay()]
        if self.address.startswith("https://"):
            context = ssl.create_default_context(cafile=str(ca) if ca else None)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        elif not re.match(r"http://(127\.|localhost[:/]|\[::1\])", f"{self.address}/"):
            raise RegistryError(
                "the other registry must be asked over https",
                where=self.address,
                cause="the token would be readable on the way",
            )
        self._opener = urllib.request.build_opener(*handlers)

    def repositories(self) -> Iterator[RepositoryId]:
        """List what the token may replicate, page by page."""
        address: str | None = "/api/holdfast/replication/repositories"
        while address is not None:
            content, following = self._page(address)
            address = following
            try:
                listed = json.loads(content)
                yield from [RepositoryId.parse(each["id"], each["kind"]) for each in listed]
            except (ValueError, KeyError, TypeError) as error:
                raise self._failed(address or "", f"not a list of repositories: {error}") from error

    def state(self, repository: RepositoryId) -> bytes:
        """Ask for the state."""
        return self._page(f"{_api(repository)}/state")[0]

    def manifest(self, repository: RepositoryId, commit: str) -> bytes:
        """Ask for the manifest."""
        return self._page(f"{_api(repository)}/manifest/{commit}")[0]

    def fetch(
        self,
        repository: RepositoryId,
        commit: str,
        file: NewFile,
        partial: Path,
        step: Callable[[int], None],
    ) -> Path:
        """Download a file by the resolve endpoint, from where `partial` ends."""
        prefix = "" if repository.kind == "model" else f"/{repository.kind}s"
        address = f"{prefix}/{repository}/resolve/{commit}/{quote(file.path)}"
        had = partial.stat().st_size if partial.exists() else 0
        if had > file.size:
            partial.unlink()
            had = 0
        step(had)

        def more() -> None:
            self._continue(address, partial, file.size, step)

        if file.size == 0:
            partial.touch()
        elif had < file.size:
            self._trying(address, more)
        return partial

    def _continue(
        self, address: str, partial: Path, size: int, step: Callable[[int], None]
    ) -> None:
        have = partial.stat().st_size if partial.exists() else 0
        if have >= size:
            return
        with self._open(address, {"Range": f"bytes={have}-"} if have else {}) as answer:
            # A server that does not know ranges sends all of it again.
            begins = have if answer.status == 206 else 0
            with partial.open("r+b" if partial.exists() else "xb") as growing:
                growing.seek(begins)
                growing.truncate()
                while chunk := answer.read(CHUNK):
                    growing.write(chunk)
                    step(len(chunk))
                    if growing.tell() > size:
                        raise self._failed(address, f"more than the {size} bytes that were signed")
        if partial.stat().st_size < size:
            raise http.client.IncompleteRead(b"", size - partial.stat().st_size)

    def _page(self, address: str) -> tuple[bytes, str | None]:
        found: list[tuple[bytes, str | None]] = []

        def read() -> None:
            with self._open(address, {}) as answer:
                content = answer.read(MAX_SIZE + 1)
                link = _NEXT.search(answer.headers.get("Link", ""))
                found.append((content, _path_of(link[1]) if link else None))

        self._trying(address, read)
        return found[-1]

    def _trying(self, address: str, what: Callable[[], None]) -> None:
        """Do it, again after a while where the other side or the line failed."""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE * 2 ** (attempt - 1))
            try:
                what()
            except urllib.error.HTTPError as error:
                with error:
                    why = error.headers.get("X-Error-Message") or f"status {error.code}"
                    if error.code not in _RETRIED or attempt == _TRIES - 1:
                        raise self._failed(address, why) from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == _TRIES - 1:
                    raise self._failed(address, str(error)) from error
            else:
                return

    def _open(self, address: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        request = urllib.request.Request(  # noqa: S310 - http or https, checked at the start
            self.address + address,
            headers={"Authorization": f"Bearer {self._token}", **headers},
        )
        answer: http.client.HTTPResponse = self._opener.open(request, timeout=_TIMEOUT)
        return answer

    def _failed(self, address: str, cause: str) -> RegistryError:
        return RegistryError(
            "the other registry did not hand it out",
            where=self.address + address,
            cause=cause,
            next_command="the same command again: it goes on where it stopped",
        )


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the token is for one server."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Return no other request: the answer is an error then."""


def repository_folder(root: Path, repository: RepositoryId) -> Path:
    """Return where a folder to carry keeps the documents of a repository."""
    return root / "repositories" / f"{repository.kind}s" / repository.namespace / repository.name


def _api(repository: RepositoryId) -> str:
    return f"/api/holdfast/{repository.kind}s/{repository}"


def _path_of(address: str) -> str:
    """Return path and query of an address: a link is followed on the same server only."""
    return "/" + address.split("://", 1)[-1].partition("/")[2]
