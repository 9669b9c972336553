"""A registry in this process: people of every part in a review, commits over the wire."""

from __future__ import annotations

import base64
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.testclient import TestClient

from holdfast_model_registry.admission.policy import ModelPolicy, read_policy
from holdfast_model_registry.service import Service, open_service, prepare
from holdfast_model_registry.storage import Locations
from holdfast_trust.ledger import read
from holdfast_trust.seed import Seed, apply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from httpx import Response

    from holdfast_model_registry.signing_key import Signer

MODEL = "research/made"
SAFE = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"
PEOPLE = Seed.model_validate(
    {
        "teams": ["reviewers", "operators", "serving"],
        "users": [
            {"name": name, "teams": teams, "tokens": [{"secret": f"hft_of-{name}-000000"}]}
            for name, teams in (
                ("ada", {"research": "write"}),
                ("ben", {"research": "read"}),
                ("cleo", {"research": "contribute"}),
                ("boss", {"research": "admin"}),
                ("eve", {"elsewhere": "admin"}),
                ("rita", ["reviewers"]),
                ("rolf", ["reviewers"]),
                ("omar", ["operators"]),
                # writes, and reviews
                ("vera", {"research": "write", "reviewers": "read"}),
            )
        ],
        "services": [
            {
                "name": name,
                "teams": teams,
                "tokens": [{"secret": f"hft_of-{name}-000000"}],
            }
            for name, teams in (("host-1", ["serving"]), ("robot", ["research"]))
        ],
    }
)


@dataclass
class Registry:
    """The application, and how people talk to it."""

    service: Service
    client: TestClient
    data: Path
    policy: ModelPolicy

    def as_(self, name: str, method: str, path: str, **more: Any) -> Response:
        headers = {"Authorization": f"Bearer hft_of-{name}-000000"}
        answer: Response = self.client.request(method, path, headers=headers, **more)
        return answer

    def create(self, name: str = MODEL, by: str = "ada") -> None:
        namespace, _, short = name.partition("/")
        body = {"name": short, "organization": namespace, "type": "model", "private": True}
        made = self.as_(by, "POST", "/api/repos/create", json=body)
        assert made.status_code == 200, made.text

    def push(
        self, files: Mapping[str, bytes | None], name: str = MODEL, by: str = "ada"
    ) -> Response:
        """Commit files to main, and delete those that are None."""
        lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "Change"}}]
        for path, content in files.items():
            if content is None:
                lines.append({"key": "deletedFile", "value": {"path": path}})
                continue
            value = {"path": path, "content": base64.b64encode(content).decode()}
            lines.append({"key": "file", "value": {**value, "encoding": "base64"}})
        text = "\n".join(json.dumps(line) for line in lines)
        headers = {"Content-Type": "application/x-ndjson"}
        headers["Authorization"] = f"Bearer hft_of-{by}-000000"
        answer: Response = self.client.post(
            f"/api/models/{name}/commit/main", content=text, headers=headers
        )
        return answer

    def pushed(self, files: Mapping[str, bytes | None], name: str = MODEL, by: str = "ada") -> str:
        answer = self.push(files, name, by)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["commitOid"])

    def fetch(self, by: str, path: str, revision: str = "main", name: str = MODEL) -> Response:
        return self.as_(by, "GET", f"/{name}/resolve/{revision}/{path}")

    def review(self, commit: str, name: str = MODEL, by: str = "rita") -> dict[str, Any]:
        answer = self.as_(by, "GET", f"/api/holdfast/models/{name}/review/{commit}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def act(
        self, by: str, verb: str, commit: str, note: str | None = None, name: str = MODEL
    ) -> Response:
        body = {} if note is None else {"note": note}
        return self.as_(
            by, "POST", f"/api/holdfast/models/{name}/review/{commit}/{verb}", json=body
        )

    def settled(self, commit: str, name: str = MODEL) -> dict[str, Any]:
        """Return the review once its scan is done."""
        deadline = time.monotonic() + 30
        while True:
            found = self.review(commit, name)
            if found["scan"] == "done":
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    def events(self, *actions: str) -> list[dict[str, Any]]:
        found = [record["event"] for record in read(self.data / "ledger")]
        return [event for event in found if event["action"] in actions]


def policy_of(**changes: Any) -> ModelPolicy:
    return ModelPolicy.model_validate({**read_policy(None).model_dump(), **changes})


@contextmanager
def open_registry(
    folder: Path,
    database: str = "",
    policy: ModelPolicy | None = None,
    signers: Sequence[Signer] = (),
) -> Iterator[Registry]:
    """Open a registry over a folder, and a database elsewhere if one is given."""
    locations = Locations(folder / "data", database)
    prepare(locations, None, policy)
    service = open_service(locations, signers=signers, jurisdiction="de", policy=policy)
    apply(service.store, PEOPLE)
    client = TestClient(service.application, raise_server_exceptions=False, follow_redirects=False)
    with client:
        yield Registry(service, client, locations.data, policy or read_policy(None))
    service.close()
