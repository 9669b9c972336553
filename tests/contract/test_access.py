"""Roles, bound tokens, gates, organisations and revocation, as the stock client meets them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)
from registry_parts import Registry, run_registry

from holdfast_trust.ledger import Ledger
from holdfast_trust.scopes import checked_scope
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.contract

TOKENS = {name: f"hft_{name}-has-a-secret-token" for name in ("ada", "wes", "con", "ben", "eve")}
CARD = b"---\nlicense: apache-2.0\n---\n# A model\n"


def _user(name: str, teams: dict[str, str], *more: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "teams": teams, "tokens": [{"secret": TOKENS[name]}, *more]}


SEED: dict[str, Any] = {
    "teams": ["research", "elsewhere"],
    "users": [
        _user("ada", {"research": "admin"}),
        _user(
            "wes",
            {"research": "write"},
            {"name": "reader", "secret": "hft_wes-reads-only-here", "verbs": ["read"]},
            {
                "name": "one",
                "secret": "hft_wes-writes-one-repo",
                "verbs": ["write"],
                "repositories": ["research/one"],
            },
            {"name": "own", "secret": "hft_wes-for-his-own", "teams": ["wes"]},
        ),
        _user("con", {"research": "contribute"}),
        _user("ben", {"research": "read"}),
        _user("eve", {"elsewhere": "read"}),
    ],
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("access")
    with run_registry(folder, "--jurisdiction", "de", seed=SEED) as running:
        for name in ("one", "two"):
            api(running, "ada").create_repo(f"research/{name}", private=True)
            publish(running, "ada", f"research/{name}")
        yield running


def api(registry: Registry, who: str) -> HfApi:
    return HfApi(endpoint=registry.url, token=TOKENS.get(who, who))


def publish(registry: Registry, who: str, repository: str) -> None:
    api(registry, who).upload_file(
        path_or_fileobj=CARD, path_in_repo="README.md", repo_id=repository
    )


def refused(status: int, call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(HfHubHTTPError) as caught:
        call(*arguments, **options)
    assert caught.value.response.status_code == status, caught.value
    return str(caught.value)


@pytest.mark.parametrize(
    ("who", "reads", "writes", "creates"),
    [
        ("ada", 200, 200, True),
        ("wes", 200, 200, True),
        ("con", 200, 403, False),
        ("ben", 200, 403, False),
        ("eve", 404, 404, False),
        ("hft_wes-reads-only-here", 200, 403, False),
        ("hft_wes-writes-one-repo", 404, 404, False),
        ("hft_wes-for-his-own", 404, 404, False),
    ],
)
def test_what_each_may(
    registry: Registry, who: str, reads: int, writes: int, *, creates: bool
) -> None:
    for write, status in ((False, reads), (True, writes)):
        if status == 200:
            api(registry, who).auth_check("research/two", write=write)
        else:
            refused(status, api(registry, who).auth_check, "research/two", write=write)
    if writes == 200:
        publish(registry, who, "research/two")
    else:
        refused(writes, publish, registry, who, "research/two")
    if creates:
        api(registry, who).create_repo(f"research/by-{who}")
        assert api(registry, who).model_info(f"research/by-{who}").private
    else:
        said = refused(403, api(registry, who).create_repo, "research/mine")
        assert "role" in said or "token" in said


def test_a_bound_token_writes_where_it_is_bound_to(registry: Registry) -> None:
    bound = "hft_wes-writes-one-repo"
    publish(registry, bound, "research/one")
    assert [each.id for each in api(registry, bound).list_models()] == ["research/one"]
    refused(403, api(registry, bound).delete_repo, "research/one")
    own = api(registry, "hft_wes-for-his-own")
    own.create_repo("wes/own")
    publish(registry, "hft_wes-for-his-own", "wes/own")
    with pytest.raises(RepositoryNotFoundError):
        api(registry, "ada").model_info("wes/own")


def test_whoami_says_roles_and_bounds(registry: Registry) -> None:
    me = api(registry, "wes").whoami()
    assert [(org["name"], org["roleInOrg"]) for org in me["orgs"]] == [("research", "write")]
    assert me["auth"]["accessToken"]["role"] == "write"
    bound = api(registry, "hft_wes-writes-one-repo").whoami()["auth"]["accessToken"]
    assert (bound["displayName"], bound["role"]) == ("one", "fineGrained")
    (scoped,) = bound["fineGrained"]["scoped"]
    assert scoped["entity"] == {"type": "model", "name": "research/one"}
    assert api(registry, "hft_wes-for-his-own").whoami()["orgs"] == []


def test_organisations_and_people(registry: Registry) -> None:
    ben, eve = api(registry, "ben"), api(registry, "eve")
    assert ben.get_organization_overview("research").num_users == 4
    members = {each.username for each in ben.list_organization_members("research")}
    assert members == {"ada", "wes", "con", "ben"}
    assert [org.name for org in ben.get_user_overview("ada").orgs] == ["research"]
    refused(404, eve.get_organization_overview, "research")
    refused(404, lambda: list(eve.list_organization_members("research")))
    refused(404, eve.get_user_overview, "ada")


def test_what_each_repository_stores(registry: Registry) -> None:
    wes = api(registry, "wes")
    wes.create_repo("wes/stored")
    publish(registry, "wes", "wes/stored")
    stored = {each.id: each for each in wes.list_user_repos()}["wes/stored"]
    assert (stored.type, stored.visibility) == ("model", "private")
    assert stored.storage > len(CARD), "with what every new repository has"
    listed = {each.id for each in wes.list_user_repos("research")}
    assert {"research/one", "research/two"} <= listed
    refused(404, lambda: list(api(registry, "eve").list_user_repos("research")))


def test_a_card_labels_its_repository_stricter_and_never_less(registry: Registry) -> None:
    name = "research/labelled"
    ada, eve = api(registry, "ada"), api(registry, "eve")
    ada.create_repo(name, private=False)

    def says(classification: str) -> None:
        card = f"---\nclassification: {classification}\n---\n".encode()
        ada.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=name)

    says("public")
    assert eve.model_info(name).id == name
    assert "none that this site" in refused(403, says, "cosmic")
    assert eve.model_info(name).card_data.to_dict() == {"classification": "public"}
    says("confidential")
    refused(404, eve.model_info, name)
    says("public")
    refused(404, eve.model_info, name)
    path = f"/api/holdfast/models/{name}/access"
    labels = json.loads(registry.request(path, TOKENS["ada"])[2])["labels"]
    assert labels == {"jurisdiction": "de", "classification": "confidential"}


def test_a_gate_and_its_requests(registry: Registry, tmp_path: Path) -> None:
    name = "research/gated"
    ada, eve = api(registry, "ada"), api(registry, "eve")
    ada.create_repo(name, private=False)
    publish(registry, "ada", name)
    ada.update_repo_settings(name, gated="manual")
    assert eve.model_info(name).gated == "manual"
    with pytest.raises(GatedRepoError, match="Ask for access"):
        hf_hub_download(name, "README.md", token=TOKENS["eve"], endpoint=registry.url)
    with pytest.raises(GatedRepoError):
        eve.auth_check(name)
    api(registry, "ben").auth_check(name)
    refused(403, lambda: list(eve.list_pending_access_requests(name)))
    asked = registry.request(f"/{name}/ask-access", TOKENS["eve"], "POST")
    assert asked[0] == 200
    with pytest.raises(GatedRepoError, match="awaiting a review"):
        snapshot_download(name, token=TOKENS["eve"], endpoint=registry.url, cache_dir=tmp_path)
    (request,) = ada.list_pending_access_requests(name)
    assert (request.username, request.status, request.email) == ("eve", "pending", None)
    ada.accept_access_request(name, request_id=request.request_id)
    snapshot_download(name, token=TOKENS["eve"], endpoint=registry.url, cache_dir=tmp_path)
    refused(404, ada.accept_access_request, name, "eve")
    ada.cancel_access_request(name, "eve")
    assert [each.username for each in ada.list_pending_access_requests(name)] == ["eve"]
    ada.reject_access_request(name, "eve", rejection_reason="not this year")
    with pytest.raises(GatedRepoError, match="not this year"):
        eve.auth_check(name)
    ada.grant_access(name, "eve")
    refused(400, ada.grant_access, name, "eve")
    refused(404, ada.grant_access, name, "nobody")
    assert [each.username for each in ada.list_accepted_access_requests(name)] == ["eve"]
    assert list(ada.list_rejected_access_requests(name)) == []
    eve.auth_check(name)


def test_a_token_ends_between_two_pages_and_between_two_ranges(registry: Registry) -> None:
    with Ledger(registry.data / "ledger") as ledger:
        store = TrustStore(f"sqlite:///{registry.data}/trust.db", ledger=ledger, actor="tester")
        issued = store.issue_token("ben", "pages")
        short = store.issue_token("ben", "short", lifetime_seconds=2)
        first = registry.request("/api/models?limit=1", issued.secret)
        link = first[1]["link"]
        following = link[link.index("<") + 1 : link.index(">")].removeprefix(registry.url)
        readme = "/research/one/resolve/main/README.md"
        assert registry.request(following, issued.secret)[0] == 200
        assert registry.request(readme, issued.secret, Range="bytes=0-3")[0] == 206
        store.revoke_token(issued.token_id)
        store.close()
    deadline = time.monotonic() + 1
    while registry.request(following, issued.secret)[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert registry.request(readme, issued.secret, Range="bytes=4-7")[0] == 401
    assert short.expires_at is not None
    assert registry.request(following, short.secret)[0] == 200
    time.sleep(max(0.0, short.expires_at - time.time()) + 0.05)
    assert registry.request(following, short.secret)[0] == 401


def test_a_role_taken_away_is_gone_within_a_second(registry: Registry) -> None:
    with Ledger(registry.data / "ledger") as ledger:
        store = TrustStore(f"sqlite:///{registry.data}/trust.db", ledger=ledger, actor="tester")
        api(registry, "con").auth_check("research/one")
        store.set_role("research", "con", "write")
        time.sleep(0.6)
        api(registry, "con").auth_check("research/one", write=True)
        narrowed = store.issue_token("con", "n", scope=checked_scope(["read"]))
        refused(403, api(registry, narrowed.secret).auth_check, "research/one", write=True)
        store.remove_member("research", "con")
        store.close()
    time.sleep(0.6)
    refused(404, api(registry, "con").auth_check, "research/one")
