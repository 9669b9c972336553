"""The whole chain of a revision: by command on the registry's folder, and over HTTP."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from provenance_parts import LAB_KEY, command
from registry_parts import ADA, BOB, LABELS, MODEL, SEED, make_model, run_registry

from holdfast_model_registry.signing_envelope import key_pem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CARD = """---
license: apache-2.0
base_model: research/base
datasets: [research/corpus, squad]
language: [en]
pipeline_tag: text-generation
---
# Tuned
"""


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "signer.pem"
    path.write_bytes(LAB_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.with_suffix(".pub").write_text(key_pem(LAB_KEY.public_key()))
    return path


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Path:
    """A registry's folder with a base model and one tuned from it, with receipt and signature."""
    folder = tmp_path_factory.mktemp("signed")
    make_model(folder / "base", weights=4_000)
    tuned = make_model(folder / "tuned", weights=8_000)
    (tuned / "README.md").write_text(CARD)
    receipt = ("--base-model", "research/base", "--job", "nightly")
    assert command("model", "receipt", tuned, "--key", key, *receipt).returncode == 0
    done = command("model", "sign", tuned, "--key", key)
    assert (done.returncode, done.stderr) == (0, "signed 7 files\n")
    models = [
        {"id": "research/base", "path": "base", "teams": ["research"], "labels": LABELS},
        {
            "id": MODEL,
            "path": "tuned",
            "teams": ["research", "elsewhere"],
            "labels": LABELS,
        },
    ]
    config = {
        "data": str(folder / "data"),
        "signers": [{"name": "lab", "key": str(key.with_suffix(".pub"))}],
    }
    (folder / "registry.yml").write_text(yaml.safe_dump(config))
    with run_registry(
        folder, "--config", str(folder / "registry.yml"), seed=SEED | {"models": models}
    ):
        pass
    return folder


def verify(folder: Path, name: str = MODEL, *more: str) -> tuple[int, dict[str, Any]]:
    done = command("model", "verify", name, "--config", folder / "registry.yml", "--json", *more)
    return done.returncode, json.loads(done.stdout) if done.stdout else {"said": done.stderr}


def verdicts(chain: dict[str, Any]) -> dict[str, str]:
    return {link["name"]: link["verdict"] for link in chain["links"]}


def test_a_chain_that_holds_names_every_link(signed: Path) -> None:
    status, chain = verify(signed)
    assert verdicts(chain) == {
        "upload": "attested",
        "manifest": "pass",
        "digests": "pass",
        "signature": "pass",
        "receipt": "pass",
        "scan": "pass",
        "approval": "pass",
        "lineage": "attested",
        "labels": "pass",
    }, chain
    assert status == 0
    assert chain["signature"]["signer"] == "lab"
    base, corpus, squad = chain["lineage"]
    assert (base["repository"], base["evidence"]) == ("research/base", "receipt")
    assert (corpus["repository"], squad["repository"]) == ("", "")
    assert chain["refs"] == ["refs/heads/main"]


def test_it_fits_one_screen_and_ends_in_a_sum(signed: Path) -> None:
    done = command("model", "verify", MODEL, "--config", signed / "registry.yml")
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) < 24
    assert lines[0].startswith(f"{MODEL}@")
    assert lines[-1] == "9 of 9 links hold; nothing was asked outside this registry"


def flip(folder: Path, chain: dict[str, Any]) -> Callable[[], None]:
    """Alter a byte of the model's weights where they are stored; return what undoes it."""
    del chain
    blobs = [path for path in (folder / "data/blobs/sha256").rglob("*") if path.is_file()]
    blob = max(blobs, key=lambda path: path.stat().st_size)
    content = blob.read_bytes()
    mode = blob.stat().st_mode
    blob.chmod(0o640)
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    def undo() -> None:
        blob.write_bytes(content)
        blob.chmod(mode)

    return undo


def rewrite(statement: str, back: str) -> Callable[[Path, dict[str, Any]], Callable[[], None]]:
    def change(folder: Path, chain: dict[str, Any]) -> Callable[[], None]:
        def run(text: str) -> None:
            with sqlite3.connect(folder / "data/registry.db") as database:
                assert database.execute(text.format(**chain)).rowcount == 1
            database.close()

        run(statement)
        return lambda: run(back)

    return change


@pytest.mark.parametrize(
    ("spoil", "link", "detail"),
    [
        (flip, "digests", "missing or altered: model.safetensors"),
        (
            rewrite(
                "update commits set author = 'mallory' where oid = '{commit}'",
                "update commits set author = 'holdfast' where oid = '{commit}'",
            ),
            "manifest",
            "the database differs from what was signed: author",
        ),
        (
            rewrite(
                "update model_reviews set state = 'quarantined' where commit_oid = '{commit}'",
                "update model_reviews set state = 'approved' where commit_oid = '{commit}'",
            ),
            "approval",
            "quarantined, approved by seed",
        ),
        (
            rewrite(
                "update model_reviews set digest = 'sha256:0' where commit_oid = '{commit}'",
                "update model_reviews set digest = '{review[digest]}'"
                " where commit_oid = '{commit}'",
            ),
            "approval",
            "what was approved (sha256:0) is not this",
        ),
    ],
)
def test_each_link_that_is_broken_is_found(
    signed: Path,
    spoil: Callable[[Path, dict[str, Any]], Callable[[], None]],
    link: str,
    detail: str,
) -> None:
    _, whole = verify(signed)
    undo = spoil(signed, whole)
    try:
        status, chain = verify(signed)
    finally:
        undo()
    assert status == 3
    (found,) = [each for each in chain["links"] if each["verdict"] == "fail"]
    assert found["name"] == link
    assert found["detail"].startswith(detail)
    assert verify(signed)[0] == 0


def test_another_registrys_key_proves_nothing(signed: Path, key: Path) -> None:
    status, chain = verify(signed, MODEL, "--key", str(key.with_suffix(".pub")))
    assert (status, verdicts(chain)["manifest"]) == (3, "fail")
    own = command("key", "--config", signed / "registry.yml").stdout
    (signed / "own.pub").write_text(own)
    assert verify(signed, MODEL, "--key", str(signed / "own.pub"))[0] == 0


def test_what_is_not_there_is_said(signed: Path) -> None:
    for name in ("research/none", f"{MODEL}@v9", "no-name"):
        status, said = verify(signed, name)
        assert status == 1
        assert "Error: " in said["said"]


def test_the_bill_of_materials_is_valid_cyclonedx(signed: Path) -> None:
    done = command("model", "mlbom", MODEL, "--config", signed / "registry.yml")
    assert done.returncode == 0, done.stderr
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(done.stdout) is None
    assert validator.validate_str(done.stdout.replace("machine-learning", "machine")) is not None
    model = json.loads(done.stdout)["metadata"]["component"]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert model["modelCard"]["modelParameters"]["task"] == "text-generation"
    assert model["modelCard"]["modelParameters"]["architectureFamily"] == "llama"
    assert [each["name"] for each in model["pedigree"]["ancestors"]] == ["research/base"]
    assert len(model["components"]) == 8
    assert {"name": "holdfast:signer", "value": "lab"} in model["properties"]
    again = command("model", "mlbom", MODEL, "--config", signed / "registry.yml").stdout
    assert again == done.stdout


def test_over_http_readers_get_chain_manifest_and_bill_others_nothing(signed: Path) -> None:
    seed = yaml.safe_load((signed / "seed.yml").read_text())
    with run_registry(signed, "--config", str(signed / "registry.yml"), seed=seed) as running:
        base = f"/api/holdfast/models/{MODEL}"
        for what in ("provenance", "mlbom", "manifest"):
            status, headers, body = running.request(f"{base}/{what}/main")
            assert status == 200, body
            assert len(headers["x-repo-commit"]) == 40
            assert running.request(f"{base}/{what}/v9")[0] == 404
            assert running.request(f"{base}/{what}/main", None)[0] == 401
            assert running.request(f"/api/holdfast/models/research/base/{what}/main", BOB)[0] == 404
        chain = json.loads(running.request(f"{base}/provenance/main", ADA)[2])
        assert chain["lineage"][0]["repository"] == "research/base"
        assert verdicts(chain)["digests"] == "not-run"
        # Bob may read the model, and not what it was made from.
        chain = json.loads(running.request(f"{base}/provenance/main", BOB)[2])
        assert (chain["lineage"][0]["named"], chain["lineage"][0]["repository"]) == (
            "research/base",
            "",
        )
        document = json.loads(running.request(f"{base}/mlbom/main", BOB)[2])
        assert {"name": "holdfast:known-here", "value": "yes"} not in [
            each for component in document["components"] for each in component["properties"]
        ]
        assert "model.read" in {event["action"] for event in running.ledger()}


def test_an_altered_folder_with_its_old_signature_is_not_let_in(tmp_path: Path, key: Path) -> None:
    folder = make_model(tmp_path / "tuned", weights=8_000)
    assert command("model", "sign", folder, "--key", key).returncode == 0
    (folder / "config.json").write_text("{}")
    seed = tmp_path / "seed.yml"
    models = [{"id": MODEL, "path": "tuned", "teams": ["research"], "labels": LABELS}]
    seed.write_text(yaml.safe_dump(SEED | {"models": models}))
    config = {
        "data": str(tmp_path / "data"),
        "signers": [{"name": "lab", "key": str(key.with_suffix(".pub"))}],
    }
    (tmp_path / "registry.yml").write_text(yaml.safe_dump(config))
    done = command("serve", "--config", tmp_path / "registry.yml", "--seed", seed)
    assert done.returncode == 1
    assert "The model signature does not hold: altered: config.json" in done.stderr


def test_keys_that_cannot_sign_are_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/x.txt").write_text("x")
    (tmp_path / "bad.pem").write_text("no key")
    for pem in ("bad.pem", "missing.pem"):
        done = command("model", "sign", tmp_path / "model", "--key", tmp_path / pem)
        assert done.returncode == 1
        assert "Error: " in done.stderr
