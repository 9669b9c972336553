"""`holdfast-model-registry model …`: operators and tokens, imports, what is taken out of a site."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner, Result
from registry_parts import MODEL, SERVING, make_bundle, make_model, run_registry

from holdfast_model_registry.admission.policy import read_policy
from holdfast_model_registry.cli import main
from holdfast_model_registry.errors import RegistryError
from holdfast_trust.ledger import read
from holdfast_trust.seed import Seed, apply
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from pathlib import Path

LABELLED = ("--jurisdiction", "de", "--classification", "internal", "--team", "research")
RITA, ROLF = "hft_rita-the-reviewer-1", "hft_rolf-the-reviewer-2"
ADA = "hft_ada-of-research-000001"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    store = TrustStore(f"sqlite:///{folder}/trust.db")
    people = [("rita", ["reviewers"], RITA), ("rolf", ["reviewers"], ROLF)]
    people.append(("ada", ["research"], ADA))
    users = [{"name": n, "teams": t, "tokens": [{"secret": s}]} for n, t, s in people]
    serving = [{"name": "host", "teams": ["serving"], "tokens": [{"secret": SERVING}]}]
    apply(store, Seed.model_validate({"users": users, "services": serving}))
    store.close()
    return folder


def command(*words: str | Path, token: str = "", actor: str = "olga@desk") -> Result:
    """Run the registry's command in this process."""
    environment = {"HOLDFAST_TRUST_ACTOR": actor, "HOLDFAST_TOKEN": ""}
    done = CliRunner().invoke(main, [str(word) for word in words], input=token, env=environment)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done


def policy_file(folder: Path, **changes: Any) -> Path:
    path = folder / "policy.yml"
    path.write_text(yaml.safe_dump({**read_policy(None).model_dump(mode="json"), **changes}))
    return path


def run(
    data: Path, *words: str | Path, token: str = "", actor: str = "olga@desk", expected: int = 0
) -> Any:
    """Run `model …` and return its JSON, or its words where it is to fail."""
    by = ("--token-file", "-") if token else ()
    done = command("model", *words, "--data", data, *by, "--json", token=token, actor=actor)
    assert done.exit_code == expected, done.stderr
    return json.loads(done.stdout) if expected == 0 else done.stderr


def bring_in(data: Path, bundle: tuple[Path, Path], *more: str | Path, expected: int = 0) -> str:
    manifest, blobs = bundle
    done = command(
        "import", "--data", data, "--manifest", manifest, "--blobs", blobs, *LABELLED, *more
    )
    assert done.exit_code == expected, done.stderr
    return done.stderr


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Path, Path]:
    return make_bundle(tmp_path / "bundle", make_model(tmp_path / "model", weights=4000))


def test_an_import_is_one_approval(data: Path, bundle: tuple[Path, Path]) -> None:
    bring_in(data, bundle, "--importer", "olga@desk")
    (item,) = run(data, "list")
    assert (item["id"], item["state"], item["uploader"]) == (MODEL, "approved", "olga@desk")
    shown = run(data, "show", MODEL)
    assert shown["approved_digest"] == shown["digest"]
    assert [each["by"] for each in shown["approvals"]] == ["olga@desk"]
    assert run(data, "show", f"{MODEL}@{item['commit'][:7]}")["commit"] == item["commit"]
    assert run(data, "list", "--state", "scanned") == []
    assert run(data, "list", "--model", "a/b") == []
    event = next(
        record["event"]
        for record in read(data / "ledger")
        if record["event"]["action"] == "model.import"
    )
    assert (event["actor"], event["state"]) == ("olga@desk", "approved")
    assert event["digest"] == shown["digest"]


def test_what_was_quarantined_stays_so_when_it_is_imported_again(
    data: Path, bundle: tuple[Path, Path]
) -> None:
    bring_in(data, bundle)
    run(data, "quarantine", MODEL, "--note", "leaked")
    bring_in(data, bundle)
    shown = run(data, "show", MODEL)
    assert (shown["state"], shown["reason"]) == ("quarantined", "leaked")
    with run_registry(data.parent / "run", "--data", str(data), seed={}) as running:
        for path, status in (("README.md", 403), ("model.safetensors", 403)):
            answer = running.request(f"/{MODEL}/resolve/main/{path}", SERVING)
            assert answer[0] == status
        assert b"leaked" in running.request(f"/api/holdfast/models/{MODEL}/review/main", SERVING)[2]
        assert run(data, "approve", MODEL)["state"] == "approved"
        assert running.request(f"/{MODEL}/resolve/main/README.md", SERVING)[0] == 200


def test_an_operators_word_counts_once_of_two(data: Path, bundle: tuple[Path, Path]) -> None:
    two = policy_file(data, model_approvals=2)
    policy = ("--policy", two)
    bring_in(data, bundle, *policy, "--importer", "olga@desk")
    assert run(data, "show", MODEL, *policy)["state"] == "scanned"
    said = run(data, "approve", MODEL, *policy, actor="olga@laptop", expected=3)
    assert "another person must" in said
    said = run(data, "approve", MODEL, *policy, actor="otto@desk", expected=3)
    assert "needs a token" in said
    said = run(data, "approve", MODEL, *policy, token=ADA, expected=3)
    assert "ada may not" in said
    assert "proves nobody" in run(data, "approve", MODEL, *policy, token="hft_x", expected=1)
    done = run(data, "approve", MODEL, *policy, token=RITA)
    assert done["state"] == "approved"
    assert [(each["by"], each["kind"]) for each in done["approvals"]] == [
        ("olga@desk", "local"),
        ("rita", "user"),
    ]


def test_an_operator_cannot_be_the_user_of_the_same_name(
    data: Path, bundle: tuple[Path, Path]
) -> None:
    policy = ("--policy", policy_file(data, model_approvals=2))
    bring_in(data, bundle, *policy, "--importer", "rita@desk")
    assert "another person" in run(data, "approve", MODEL, *policy, token=RITA, expected=3)
    assert run(data, "approve", MODEL, *policy, token=ROLF)["state"] == "approved"


def test_what_the_policy_refuses_is_not_imported(tmp_path: Path, data: Path) -> None:
    model = make_model(tmp_path / "model", weights=4000)
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    bundle = make_bundle(tmp_path / "bundle", model)
    strict = policy_file(data, model_pickle="refuse")
    said = bring_in(data, bundle, "--policy", strict, expected=1)
    assert "pytorch_model.bin: a Python pickle" in said
    assert run(data, "list") == []
    bring_in(data, bundle)
    shown = run(data, "show", MODEL)
    assert (shown["state"], shown["approvals"]) == ("quarantined", [])
    assert "pytorch_model.bin" in run(data, "approve", MODEL, token=RITA, expected=3)


def test_a_jurisdiction_that_the_profiles_do_not_permit(
    data: Path, bundle: tuple[Path, Path]
) -> None:
    bring_in(data, bundle, "--policy", policy_file(data, permitted_jurisdictions=["fr"]))
    shown = run(data, "show", MODEL)
    assert shown["state"] == "scanned"
    assert [finding["name"] for finding in shown["findings"]] == ["label"]


def test_what_is_taken_out_of_the_site_is_no_longer_handed_out(
    tmp_path: Path, data: Path, bundle: tuple[Path, Path]
) -> None:
    bring_in(data, bundle)
    other = make_bundle(tmp_path / "other", tmp_path / "model", name="research/other")
    bring_in(data, other)
    done = run(data, "withdraw", "--except", "research/other")
    assert done == {"changed": True, "withdrawn": [MODEL]}
    assert run(data, "withdraw", "--except", "research/other")["changed"] is False
    with run_registry(data.parent / "run", "--data", str(data), seed={}) as running:
        refused = running.request(f"/{MODEL}/resolve/main/README.md", SERVING)
        assert (refused[0], b"taken out of the site" in refused[2]) == (403, True)
        assert running.request("/research/other/resolve/main/README.md", SERVING)[0] == 200
        bring_in(data, bundle)
        assert running.request(f"/{MODEL}/resolve/main/README.md", SERVING)[0] == 200
    actions = [record["event"]["action"] for record in read(data / "ledger")]
    assert actions.count("model.withdraw") == 1


def test_people_read_what_machines_do(data: Path, bundle: tuple[Path, Path]) -> None:
    bring_in(data, bundle)
    listed = command("model", "list", "--data", data)
    assert listed.stdout.startswith(f"approved     {MODEL}@")
    assert "approvals  " in command("model", "show", MODEL, "--data", data).stdout
    for words, expected in (
        (("show", "no/such"), 1),
        (("show", f"{MODEL}@{'0' * 40}"), 1),
        (("show", "bad name"), 1),
        (("quarantine", MODEL), 2),
    ):
        done = command("model", *words, "--data", data)
        assert done.exit_code == expected


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"model_formats": ["exe"]}, "unknown: exe"),
        ({"model_approvals": 3}, "model_approvals"),
        ({"model_pickle": "allow"}, "model_pickle"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_policy_with_mistakes(tmp_path: Path, document: dict[str, Any], words: str) -> None:
    with pytest.raises(RegistryError, match=words):
        read_policy(policy_file(tmp_path, **document))
    with pytest.raises(RegistryError, match="cannot be used"):
        read_policy(tmp_path / "absent")
