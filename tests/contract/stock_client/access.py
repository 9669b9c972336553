"""Access: gated repositories, read-only people, the check that libraries make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub import raises, weights
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

if TYPE_CHECKING:
    from hub import Hub


def scenario_gated(hub: Hub) -> None:
    name = hub.repository()
    content = weights("gated")
    hub.api.upload_file(path_or_fileobj=content, path_in_repo="w.safetensors", repo_id=name)
    hub.api.update_repo_settings(name, gated="manual", private=False)
    bob = hub.caller("bob")
    info = bob.model_info(name)
    assert (info.gated, info.private) == ("manual", False), "a gate is seen, what is behind is not"
    with raises(GatedRepoError, 403):
        bob.hf_hub_download(name, "w.safetensors", cache_dir=hub.cache())
    with raises(GatedRepoError, 403):
        bob.auth_check(name)
    hub.api.grant_access(name, "bob")
    accepted = hub.api.list_accepted_access_requests(name)
    assert [request.username for request in accepted] == ["bob"]
    found = bob.hf_hub_download(name, "w.safetensors", cache_dir=hub.cache())
    with open(found, "rb") as file:  # noqa: PTH123 - a path of the client's, as it gives it
        assert file.read() == content
    bob.auth_check(name)
    hub.api.cancel_access_request(name, "bob")
    assert [request.username for request in hub.api.list_pending_access_requests(name)] == ["bob"]
    with raises(GatedRepoError, 403):
        bob.hf_hub_download(name, "w.safetensors", cache_dir=hub.cache())
    hub.api.reject_access_request(name, "bob", rejection_reason="no reason given")
    assert [request.username for request in hub.api.list_rejected_access_requests(name)] == ["bob"]
    hub.api.accept_access_request(name, "bob")
    bob.auth_check(name)


def scenario_readers_cannot_write(hub: Hub) -> None:
    name = hub.repository()
    eve = hub.caller("eve")
    eve.auth_check(name)
    for call in (
        lambda: eve.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=name),
        lambda: eve.create_branch(name, branch="b"),
        lambda: eve.create_tag(name, tag="t"),
        lambda: eve.delete_repo(name),
        lambda: eve.update_repo_settings(name, private=False),
        lambda: eve.super_squash_history(name),
        lambda: eve.create_repo(hub.name()),
    ):
        with raises(HfHubHTTPError, 403):
            call()
    assert hub.api.list_repo_files(name) == [".gitattributes"]


def scenario_the_check_that_libraries_make(hub: Hub) -> None:
    name = hub.repository()
    hub.api.auth_check(name)
    with raises(RepositoryNotFoundError, 404):
        hub.caller("bob").auth_check(name)
    with raises(RepositoryNotFoundError, 404):
        hub.api.auth_check(f"{name}-absent")
