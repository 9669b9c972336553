"""The registry under stock clients of three versions, and under transformers and datasets.

What each of them does is in stock_client/, run by the client's own interpreter; here are the
registries they do it to, and what must have happened there meanwhile.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from client_environment import NEWEST, interpreter
from nginx_front import nginx
from registry_parts import LABELS, make_model, run_registry

from postgresql_server import postgresql_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry_parts import Registry

# The first use of a client installs it, if the cache has none.
pytestmark = [pytest.mark.contract, pytest.mark.timeout(900)]

SCENARIOS = Path(__file__).with_name("stock_client")
PLAIN = ("repositories", "uploads", "commits", "references", "reading", "filesystem", "access")
LIBRARIES = ("models", "tables")
STARTER = Path(__file__).parents[2] / "model-registry" / "starter" / "holdfast-starter"
TOKENS = {
    "ada": "hft_ada-of-research-000001",
    "eve": "hft_eve-who-only-reads-001",
    "cara": "hft_cara-who-proposes-0001",
    "bob": "hft_bob-of-elsewhere-00001",
    "rita": "hft_rita-who-reviews-0001",
}
TEAMS = {
    "ada": {"research": "admin"},
    "eve": {"research": "read"},
    "cara": {"research": "contribute"},
    "bob": {"elsewhere": "admin"},
    "rita": {"reviewers": "read"},
}
QUARANTINED = "research/quarantined"


@dataclass(frozen=True)
class Run:
    """What came of a client's scenarios on one registry."""

    version: str
    failed: dict[str, str]
    seconds: dict[str, float]
    operations: frozenset[str]  # what the ledger says it asked for


def scenarios(*subjects: str) -> list[str]:
    """Return the names of all scenarios, without importing what only a client can import."""
    return [
        f"{subject}-{name}"
        for subject in subjects
        for name in re.findall(
            r"^def scenario_(\w+)\(", (SCENARIOS / f"{subject}.py").read_text(), re.MULTILINE
        )
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Registry]]:
    """The registry with nothing else: SQLite, one process that also sends the bytes."""
    folder = tmp_path_factory.mktemp("alone")
    with run_registry(folder, seed=_seed(folder)) as registry:
        _quarantine(registry)
        yield registry.url, registry


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Registry]]:
    """The registry of a site: PostgreSQL, two workers, nginx in front that sends the bytes."""
    folder = tmp_path_factory.mktemp("site")
    with postgresql_server() as make:
        databases = ("--database", make(), "--trust-database", make())
        options = (*databases, "--jurisdiction", "de", "--accelerate", "nginx", "--workers", "2")
        with run_registry(folder, *options, seed=_seed(folder)) as registry:
            _quarantine(registry)
            upstream = registry.url.removeprefix("http://")
            with nginx(folder / "nginx", upstream, registry.data / "blobs") as front:
                yield front, registry


RUNS = {
    "newest": (NEWEST, "alone"),
    "newest-on-a-site": (NEWEST, "site"),
    "1.19": ("hub-1.19", "alone"),
    "0.36": ("hub-0.36", "alone"),
}


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    client, place = RUNS[request.param]
    url, registry = request.getfixturevalue(place)
    return _run(client, url, registry, tmp_path_factory.mktemp("client"), PLAIN)


@pytest.fixture(scope="module")
def libraries(alone: tuple[str, Registry], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _run("libraries", *alone, tmp_path_factory.mktemp("libraries"), LIBRARIES)


@pytest.mark.parametrize("scenario", scenarios(*PLAIN))
def test_huggingface_hub(run: Run, scenario: str) -> None:
    assert scenario in run.seconds, "it did not run"
    assert scenario not in run.failed, run.failed[scenario]


def test_each_version_uploads_its_own_way(run: Run) -> None:
    by_xet, by_lfs = {"xet-write-token", "xet-xorb", "xet-shard"}, {"lfs-batch", "lfs-upload"}
    if run.version.startswith("2."):
        assert by_xet <= run.operations
    else:
        assert by_lfs <= run.operations
        assert not by_xet & run.operations


@pytest.mark.parametrize("scenario", scenarios(*LIBRARIES))
def test_transformers_and_datasets(libraries: Run, scenario: str) -> None:
    assert scenario in libraries.seconds, "it did not run"
    assert scenario not in libraries.failed, libraries.failed[scenario]


def _seed(folder: Path) -> dict[str, Any]:
    make_model(folder / "quarantined", weights=4_000)
    places = {"research/starter": STARTER, QUARANTINED: folder / "quarantined"}
    return {
        "teams": ["research", "elsewhere", "reviewers"],
        "users": [
            {"name": name, "teams": TEAMS[name], "tokens": [{"name": "laptop", "secret": secret}]}
            for name, secret in TOKENS.items()
        ],
        "models": [
            {"id": name, "path": str(path), "teams": ["research"], "labels": LABELS}
            for name, path in places.items()
        ],
    }


def _quarantine(registry: Registry) -> None:
    url = f"{registry.url}/api/holdfast/models/{QUARANTINED}/review/main/quarantine"
    answer = httpx.post(
        url,
        json={"note": "seen to misbehave"},
        headers={"Authorization": f"Bearer {TOKENS['rita']}"},
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text


def _run(client: str, url: str, registry: Registry, folder: Path, subjects: tuple[str, ...]) -> Run:
    names = {
        "tokens": TOKENS,
        "prefix": folder.name,
        "quarantined": QUARANTINED,
        "model": "research/starter",
    }
    before = len(registry.ledger())
    done = subprocess.run(
        [str(interpreter(client)), str(SCENARIOS), url, str(folder), json.dumps(names), *subjects],
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    events = registry.ledger()[before:]
    operations = frozenset(event["operation"] for event in events if "operation" in event)
    return Run(operations=operations, **told)
