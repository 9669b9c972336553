"""Provenance at commits over the wire: refused with words, or kept with the commit."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from provenance_parts import LAB_KEY, card, digests_of
from review_parts import MODEL, SAFE, Registry, open_registry, policy_of

from holdfast_hub_protocol.git_objects import object_id
from holdfast_model_registry.commit_manifest import verify
from holdfast_model_registry.opening import open_to
from holdfast_model_registry.signing import SIGNATURE_FILE, sign_files
from holdfast_model_registry.signing_envelope import TrustedKey, key_pem, read_public_key
from holdfast_model_registry.signing_key import Signer
from holdfast_model_registry.storage import Locations, open_storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAB = Signer(name="lab", key=key_pem(LAB_KEY.public_key()))
FILES = {"README.md": card(license="mit"), "model.safetensors": SAFE}
BASE = "elsewhere/base"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with open_registry(tmp_path, signers=[LAB]) as made:
        made.create()
        yield made


def signed(files: dict[str, bytes]) -> dict[str, bytes]:
    return files | {SIGNATURE_FILE: sign_files(digests_of(files), "made", LAB_KEY)}


def chain_of(registry: Registry, name: str = MODEL, by: str = "ada") -> dict[str, object]:
    answer = registry.as_(by, "GET", f"/api/holdfast/models/{name}/provenance/main")
    found: dict[str, object] = answer.json()
    return found


def label(registry: Registry, name: str, **labels: str) -> None:
    """Label a repository as an operator does on the machine."""
    from holdfast_hub_protocol.identifiers import RepositoryId

    storage = open_storage(Locations(registry.data))
    found = storage.metadata.repository(RepositoryId.parse(name))
    assert found is not None
    with storage.metadata.engine.begin() as connection:
        open_to(connection, found.key, teams=None, labels=labels)
    storage.close()


def test_a_signed_commit_is_verified_and_a_change_needs_a_new_signature(
    registry: Registry,
) -> None:
    registry.pushed(signed(FILES))
    assert chain_of(registry)["signature"]["signer"] == "lab"  # type: ignore[index]
    answer = registry.push({"README.md": card(license="apache-2.0")})
    assert answer.status_code == 403
    message = answer.headers["X-Error-Message"]
    assert message == "The model signature does not hold: altered: README.md"
    registry.pushed(signed(FILES | {"more.txt": b"more"}))
    registry.pushed({"more.txt": b"other", SIGNATURE_FILE: None})
    assert chain_of(registry)["signature"]["state"] == "absent"  # type: ignore[index]


def test_where_a_signature_is_needed_nothing_comes_in_without(tmp_path: Path) -> None:
    policy = policy_of(model_signature="required")
    with open_registry(tmp_path, policy=policy, signers=[LAB]) as registry:
        registry.create()
        answer = registry.push(FILES)
        assert answer.status_code == 403
        assert "A model needs a signature by a signer of this site" in answer.text
        registry.pushed(signed(FILES))


def test_a_history_written_anew_needs_its_signature_too(tmp_path: Path) -> None:
    policy = policy_of(model_signature="required")
    with open_registry(tmp_path, policy=policy, signers=[LAB]) as registry:
        registry.create()
        registry.pushed(signed(FILES))
    other = Signer(name="other", key=key_pem(ec.generate_private_key(ec.SECP256R1()).public_key()))
    with open_registry(tmp_path, policy=policy, signers=[other]) as registry:
        path = f"/api/models/{MODEL}/super-squash/main"
        answer = registry.as_("boss", "POST", path, json={"message": "anew"})
        assert answer.status_code == 403
        assert "A model needs a signature by a signer of this site" in answer.text


def test_every_commit_has_a_manifest_with_gits_own_text(registry: Registry) -> None:
    first = registry.pushed(FILES)
    second = registry.pushed({"more.txt": b"more"})
    key = read_public_key((registry.data / "keys/registry.pub").read_text())
    for commit, parent in ((first, None), (second, first)):
        path = f"/api/holdfast/models/{MODEL}/manifest/{commit}"
        manifest = verify(
            registry.as_("ada", "GET", path).content, [TrustedKey("it", key)]
        ).manifest
        assert (manifest.commit, manifest.author) == (commit, "ada")
        assert manifest.object is not None
        assert object_id("commit", base64.b64decode(manifest.object)) == commit
        assert parent is None or manifest.parent == parent


def test_what_the_committer_may_not_see_is_neither_resolved_nor_inherited(
    registry: Registry,
) -> None:
    registry.create(BASE, by="eve")
    registry.pushed(FILES, BASE, by="eve")
    label(registry, BASE, classification="secret")
    registry.pushed({"README.md": card(base_model=BASE)})
    chain = chain_of(registry)
    assert chain["labels"] == {"jurisdiction": "de", "classification": "internal"}
    assert chain["lineage"][0]["repository"] == ""  # type: ignore[index]
    absent = {"README.md": card(base_model="elsewhere/none")}
    assert registry.push(absent).status_code == registry.push(FILES).status_code == 200


def test_what_the_committer_may_see_is_inherited_and_contradictions_are_refused(
    registry: Registry,
) -> None:
    base = "research/base"
    registry.create(base)
    registry.pushed(FILES, base)
    label(registry, base, classification="confidential")
    registry.pushed({"README.md": card(base_model=base)})
    assert chain_of(registry)["labels"]["classification"] == "confidential"  # type: ignore[index]
    other = "research/french"
    registry.create(other)
    registry.pushed(FILES, other)
    label(registry, other, jurisdiction="fr")
    answer = registry.push({"README.md": card(base_model=[base, other])})
    assert answer.status_code == 403
    assert "contradict each other: jurisdiction 'de'" in answer.headers["X-Error-Message"]
    head = registry.as_("ada", "GET", f"/api/models/{MODEL}").json()
    assert head["cardData"]["base_model"] == base, "nothing of it was published"


def test_a_pull_request_binds_nobody(registry: Registry) -> None:
    base = "research/french"
    registry.create(base)
    registry.pushed(FILES, base)
    registry.pushed(FILES)
    label(registry, base, jurisdiction="fr")
    content = base64.b64encode(card(base_model=base)).decode()
    lines = [
        {"key": "header", "value": {"summary": "Tell where it comes from"}},
        {"key": "file", "value": {"path": "README.md", "content": content, "encoding": "base64"}},
    ]
    answer = registry.as_(
        "ada",
        "POST",
        f"/api/models/{MODEL}/commit/main?create_pr=1",
        content="\n".join(json.dumps(line) for line in lines),
    )
    assert answer.status_code == 200, answer.text
    assert chain_of(registry)["labels"] == {"jurisdiction": "de", "classification": "internal"}
    merged = registry.as_("ada", "POST", f"/api/models/{MODEL}/discussions/1/merge", json={})
    assert merged.status_code == 403
    assert "contradict each other" in merged.text
