"""What listings show of a repository, and that they follow its changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from holdfast_hub_protocol import commits, listings, schema
from holdfast_hub_protocol.expansion import PROPERTIES
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.operations import AddFile, DeleteFile
from holdfast_hub_protocol.tags import MAX_TAG_LENGTH, MAX_TAGS, tags_of

if TYPE_CHECKING:
    from conftest import World

CARD = b"""---
license: mit
pipeline_tag: text-generation
library_name: transformers
language: [en, DE]
tags: [tiny]
datasets: org/data
model-index: [{name: x}]
widget: [{text: hello}]
---
"""
CONFIG = b'{"model_type": "llama", "architectures": ["X"]}'
TOKENIZER = b'{"mask_token": "<mask>"}'


def publish(world: World, name: str = "org/name") -> None:
    world.publish(
        name,
        [
            world.store("README.md", CARD),
            world.store("config.json", CONFIG),
            world.store("tokenizer_config.json", TOKENIZER),
            world.store("deep/w.bin", b"weights", lfs=True),
        ],
    )


def listed(world: World, query: str = "", kind: str = "models") -> list[dict[str, Any]]:
    answer = world.client.get(f"/api/{kind}?{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def names(world: World, query: str) -> list[str]:
    return [item["id"] for item in listed(world, query)]


def test_as_much_as_is_asked_for(world: World) -> None:
    publish(world)
    [item] = listed(world)
    assert item["sha"] == f"{1:040x}"
    assert (item["pipeline_tag"], item["library_name"]) == ("text-generation", "transformers")
    assert {"mit" not in item["tags"], "license:mit" in item["tags"]} == {True}
    assert not {"cardData", "config", "siblings", "safetensors"} & set(item)
    [item] = listed(world, "cardData=True&config=True")
    assert item["cardData"]["license"] == "mit"
    assert item["config"]["model_type"] == "llama"
    assert "siblings" not in item
    [item] = listed(world, "full=true")
    assert [file["rfilename"] for file in item["siblings"]] == [
        *("README.md", "config.json", "deep/w.bin", "tokenizer_config.json"),
    ]
    assert item["cardData"]["tags"] == ["tiny"]


def test_only_the_properties_that_are_named(world: World) -> None:
    publish(world)
    query = "&".join(f"expand={name}" for name in PROPERTIES["model"])
    [item] = listed(world, query)
    info = world.client.get(f"/api/models/org/name?{query}").json()
    assert item == info, "one shape in both places"
    assert item["mask_token"] == "<mask>"
    assert item["model-index"] == [{"name": "x"}]
    assert item["widgetData"] == [{"text": "hello"}]
    assert item["usedStorage"] == len(CARD) + len(CONFIG) + len(TOKENIZER) + len(b"weights")
    assert (item["downloadsAllTime"], item["trendingScore"], item["likes"]) == (0, 0, 0)
    [item] = listed(world, "expand=sha,likes")
    assert set(item) == {"_id", "id", "sha", "likes"}


def test_a_listing_follows_main(world: World) -> None:
    publish(world)
    repository = world.metadata.repository(RepositoryId.parse("org/name"))
    caller = world.people.authenticate("ada")
    assert repository is not None
    assert caller is not None

    def commit(ref: str, *operations: AddFile | DeleteFile) -> None:
        commits.make_commit(world.hub, caller, repository, ref, operations, title="x")

    assert names(world, "filter=LICENSE:mit") == ["org/name"]
    commit("refs/heads/side", AddFile("README.md", b"---\nlicense: gpl\n---\n"))
    assert names(world, "filter=license:gpl") == []
    commit("refs/heads/main", AddFile("README.md", b"---\nlicense: bsd\ntags: [new]\n---\n"))
    assert names(world, "filter=license:bsd&filter=new") == ["org/name"]
    assert names(world, "filter=license:mit") == []
    assert names(world, "pipeline_tag=text-generation") == []
    commit("refs/heads/main", DeleteFile("README.md"))
    assert names(world, "filter=new") == []
    head = world.metadata.head(repository, "refs/heads/main")
    assert head is not None
    assert listed(world)[0]["sha"] == head.oid


def test_a_listing_follows_the_name_and_the_end(world: World) -> None:
    publish(world)
    moved = {"fromRepo": "org/name", "toRepo": "other/Renamed", "type": "model"}
    assert world.client.post("/api/repos/move", json=moved).status_code == 200
    assert names(world, "search=org/name") == []
    assert names(world, "search=HER/renam") == ["other/Renamed"]
    assert names(world, "author=OTHER&filter=tiny") == ["other/Renamed"]
    gone = {"name": "renamed", "organization": "other", "type": "model"}
    assert world.client.request("DELETE", "/api/repos/delete", json=gone).status_code == 200
    assert names(world, "") == []
    with world.metadata.engine.connect() as connection:
        for table in (listings.listings, listings.terms):
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0


def test_data_sets_are_listed_apart_and_by_their_own_tags(world: World) -> None:
    made = world.client.post(
        "/api/repos/create", json={"name": "data", "organization": "org", "type": "dataset"}
    )
    assert made.status_code == 200, made.text
    repository = world.metadata.repository(RepositoryId("dataset", "org", "data"))
    caller = world.people.authenticate("ada")
    assert repository is not None
    assert caller is not None
    card = b"---\nlicense: mit\ntask_categories: [qa]\nlanguage: de\nsize_categories: n<1K\n---\n"
    commits.make_commit(
        world.hub, caller, repository, "refs/heads/main", [AddFile("README.md", card)], title="x"
    )
    assert listed(world) == []
    for query in (
        "filter=task_categories:qa",
        "filter=language:de&filter=size_categories:n<1K",
        "task_categories=qa&language=language:de",
        "search=org/&search=data",
    ):
        [item] = listed(world, query, "datasets")
        assert item["id"] == "org/data"
        assert "license:mit" in item["tags"]
    assert listed(world, "filter=de", "datasets") == []
    query = "&".join(f"expand={name}" for name in PROPERTIES["dataset"])
    [item] = listed(world, query, "datasets")
    assert item["mainSize"] > len(card), "with .gitattributes"
    assert world.client.get("/api/datasets?expand=config").status_code == 400


def test_what_was_there_before_listings_is_indexed_when_the_registry_opens(world: World) -> None:
    for number in range(3):
        publish(world, f"org/name-{number}")
    with world.metadata.engine.begin() as connection:
        connection.execute(listings.terms.delete())
        connection.execute(listings.listings.delete())
        connection.execute(
            schema.repositories.insert().values(
                kind="model",
                namespace="org",
                name="empty",
                folded="org/empty",
                created_at=sa.func.current_timestamp(),
                updated_at=sa.func.current_timestamp(),
            )
        )
    assert names(world, "filter=tiny") == []
    assert listings.index_missing(world.metadata.engine) == 4
    assert listings.index_missing(world.metadata.engine) == 0
    assert names(world, "filter=tiny") == [f"org/name-{number}" for number in range(3)]
    assert names(world, "search=mpt") == ["org/empty"]


def test_tags_are_bounded() -> None:
    many = [f"tag-{number}" for number in range(MAX_TAGS + 1)]
    assert len(tags_of("model", {"tags": many})) == MAX_TAGS
    assert tags_of("model", {"tags": ["x" * (MAX_TAG_LENGTH + 1), "", 5, "y", "y"]}) == ["y"]
    assert tags_of("dataset", {"cardData": {"language": ["en", 5], "license": "mit"}}) == [
        *("language:en", "license:mit"),
    ]
    assert tags_of("dataset", {}) == tags_of("model", {}) == []


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_the_kinds_of_tags_tell_nothing_without_a_token(world: World, kind: str) -> None:
    publish(world)
    answer = world.anonymous().get(f"/api/{kind}-tags-by-type")
    assert answer.status_code == 200
    assert "license" in answer.json()
    assert set(map(tuple, answer.json().values())) == {()}
