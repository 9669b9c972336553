"""Repositories: create, find, move, describe, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import huggingface_hub
from hub import CARD, raises, weights
from huggingface_hub import ModelCard, metadata_update
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

if TYPE_CHECKING:
    from hub import Hub


def scenario_create_and_delete(hub: Hub) -> None:
    name = hub.name()
    url = hub.api.create_repo(name)
    assert str(url) == f"{hub.endpoint}/{name}", url
    assert url.repo_id == name
    assert hub.api.repo_exists(name)
    info = hub.api.model_info(name)
    assert info.private is True, "a repository is private unless it is asked otherwise"
    assert info.author == "research"
    assert [commit.title for commit in hub.api.list_repo_commits(name)] == ["initial commit"]
    assert hub.api.list_repo_files(name) == [".gitattributes"]
    with raises(HfHubHTTPError, 409):
        hub.api.create_repo(name)
    assert hub.api.create_repo(name, exist_ok=True).repo_id == name
    hub.api.delete_repo(name)
    assert not hub.api.repo_exists(name)
    with raises(RepositoryNotFoundError, 404):
        hub.api.delete_repo(name)
    hub.api.delete_repo(name, missing_ok=True)


def scenario_names_differ_by_more_than_case(hub: Hub) -> None:
    name = hub.api.create_repo(hub.name() + "-CaSe").repo_id
    assert hub.api.model_info(name.lower()).id == name
    with raises(HfHubHTTPError, 409):
        hub.api.create_repo(name.lower())
    hub.api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=name.lower())
    assert hub.fetch(name.upper().replace("RESEARCH", "research"), "a.txt") == b"1"


def scenario_move_leaves_a_redirect(hub: Hub) -> None:
    old, new = hub.repository(), hub.name()
    content = weights(old)
    hub.api.upload_file(path_or_fileobj=content, path_in_repo="w.safetensors", repo_id=old)
    hub.api.move_repo(from_id=old, to_id=new)
    assert hub.api.model_info(new).id == new
    assert hub.api.model_info(old).id == new, "the old name leads to the new one"
    assert hub.fetch(old, "w.safetensors") == content
    assert hub.fetch(new, "w.safetensors") == content
    other = hub.repository()
    with raises(HfHubHTTPError, text="already exists"):
        hub.api.move_repo(from_id=new, to_id=other)
    hub.api.delete_repo(new)
    with raises(RepositoryNotFoundError):
        hub.api.model_info(old)


def scenario_settings(hub: Hub) -> None:
    name = hub.repository()
    hub.api.update_repo_settings(name, gated="manual", private=True)
    info = hub.api.model_info(name)
    assert (info.gated, info.private) == ("manual", True)
    hub.api.update_repo_settings(name, gated=False)
    assert hub.api.model_info(name).gated is False


def scenario_listing(hub: Hub) -> None:
    name = hub.repository()
    hub.api.upload_file(path_or_fileobj=CARD.encode(), path_in_repo="README.md", repo_id=name)
    bare = hub.repository()
    ours = name.partition("/")[2]
    for filters in (
        {"search": ours.upper()},
        {"author": "research", "search": ours},
        {"filter": "contract", "search": ours},
        {"filter": ["license:apache-2.0", "en"], "search": ours},
        {"pipeline_tag": "text-generation", "search": ours},
    ):
        found = [each.id for each in hub.api.list_models(**filters)]
        assert name in found, filters
        assert bare not in found, filters
    assert not list(hub.api.list_models(author="elsewhere", search=ours))
    newest = [each.id for each in hub.api.list_models(sort="created_at", limit=1)]
    assert newest == [bare], newest
    assert name in [each.id for each in hub.api.list_models(sort="last_modified", limit=3)]
    full = next(iter(hub.api.list_models(search=ours, full=True, cardData=True)))
    assert full.sha == hub.api.model_info(name).sha
    assert full.card_data is not None
    assert full.card_data["license"] == "apache-2.0"
    assert not list(hub.caller("bob").list_models(search=ours)), "private to the team"
    assert [each.id for each in hub.caller("eve").list_models(search=ours)] == [name]


def scenario_card(hub: Hub) -> None:
    name = hub.repository()
    hub.api.upload_file(path_or_fileobj=CARD.encode(), path_in_repo="README.md", repo_id=name)
    assert hub.api.model_info(name).pipeline_tag == "text-generation"
    assert ModelCard.load(name).data.license == "apache-2.0"
    with raises(ValueError, text="Invalid metadata in README.md"):
        hub.api.upload_file(
            path_or_fileobj=b"---\nmodel-index: foo\n---\n",
            path_in_repo="README.md",
            repo_id=name,
        )


def scenario_card_by_its_own_class(hub: Hub) -> None:
    if int(huggingface_hub.__version__.partition(".")[0]) < 2:
        return  # they ask huggingface.co whether the card is good, whatever the endpoint
    name = hub.repository()
    ModelCard(CARD).push_to_hub(name, commit_message="a card")
    metadata_update(name, {"license": "mit"}, overwrite=True)
    assert ModelCard.load(name).data.license == "mit"


def scenario_datasets_are_repositories_too(hub: Hub) -> None:
    name = hub.repository(repo_type="dataset")
    assert not hub.api.repo_exists(name), "a data set's name is no model's"
    hub.api.upload_file(
        path_or_fileobj=b"a,b\n1,2\n",
        path_in_repo="data/train.csv",
        repo_id=name,
        repo_type="dataset",
    )
    info = hub.api.dataset_info(name)
    assert info.id == name
    assert [file.rfilename for file in info.siblings] == [".gitattributes", "data/train.csv"]
    assert hub.fetch(name, "data/train.csv", repo_type="dataset") == b"a,b\n1,2\n"
    assert name in [each.id for each in hub.api.list_datasets(author="research")]
    hub.api.delete_repo(name, repo_type="dataset")


def scenario_people(hub: Hub) -> None:
    me = hub.api.whoami()
    assert me["name"] == "ada"
    assert [org["name"] for org in me["orgs"]] == ["research"]
    assert me["auth"]["accessToken"]["role"]
    assert "ada" in [member.username for member in hub.api.list_organization_members("research")]
