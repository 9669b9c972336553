"""Commit to o/n until somebody kills this process; print the id of each commit once it is made."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

from holdfast_hub_protocol.access import Verdict
from holdfast_hub_protocol.blobs import BlobStore
from holdfast_hub_protocol.commits import make_commit
from holdfast_hub_protocol.endpoints import Hub
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.metadata import MAIN, MetadataStore
from holdfast_hub_protocol.operations import AddFile, DeleteFolder
from holdfast_hub_protocol.schema import open_engine
from holdfast_hub_protocol.sending import DirectSender


class Anybody:
    """Somebody who may do anything."""

    name, kind, teams, token_id, email = "ada", "user", (), "t1", "ada@users.invalid"
    roles: dict[str, str] = {}  # noqa: RUF012 - never changed

    def may(self, *_: object) -> Verdict:
        return Verdict(allowed=True)

    def readable(self, _: object, repositories: Any) -> Any:
        return repositories


def main(url: str, folder: str) -> None:
    metadata, blobs, ada = MetadataStore(open_engine(url)), BlobStore(Path(folder)), Anybody()
    hub = Hub(metadata, blobs, DirectSender(blobs), ada, ada, ada)  # type: ignore[arg-type]
    repository = metadata.repository(RepositoryId.parse("o/n"))
    assert repository is not None
    for number in itertools.count():
        content = f"{os.getpid()} {number}".encode()
        changes = [AddFile(f"{number % 7}/{each}", content) for each in range(5)]
        first = [DeleteFolder(f"{number % 7}/")] if number >= 7 else []
        made = make_commit(
            hub,
            ada,
            repository,
            MAIN,
            [*first, *changes, AddFile("last", content)],
            title=f"{os.getpid()} {number}",
        )
        print(made.oid, flush=True)  # noqa: T201 - what it is for


main(*sys.argv[1:])
