"""Discussions and events as JSON, in the shape that clients read."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from holdfast_hub_protocol.information import timestamp

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast_hub_protocol.discussions.records import Discussion, Event
    from holdfast_hub_protocol.records import Commit, Repository


def listed(repository: Repository, discussion: Discussion) -> dict[str, Any]:
    """Return a discussion as a listing has it."""
    return {
        "num": discussion.num,
        "author": person(discussion.author),
        "repo": {"name": str(repository.id), "type": repository.id.kind},
        "title": discussion.title,
        "status": discussion.status,
        "createdAt": timestamp(discussion.created_at),
        "isPullRequest": discussion.is_pull_request,
        "numComments": discussion.comments,
        "pinned": False,
    }


def detailed(
    repository: Repository,
    discussion: Discussion,
    events: list[dict[str, Any]],
    conflicting: list[str],
) -> dict[str, Any]:
    """Return a discussion with what happened in it; the difference is added by who asks."""
    document = listed(repository, discussion)
    document |= {"locked": False, "collection": "discussions", "events": events}
    if discussion.is_pull_request:
        changes = {"base": discussion.base_ref}
        if discussion.merge_oid:
            changes["mergeCommitId"] = discussion.merge_oid
        document |= {"changes": changes, "filesWithConflicts": conflicting}
    return document


def happened(event: Event) -> dict[str, Any]:
    """Return an event."""
    return {
        "id": event.key,
        "author": person(event.author),
        "createdAt": timestamp(event.created_at),
        "type": event.type,
        "data": event.data,
    }


def pushed(commit: Commit) -> dict[str, Any]:
    """Return a commit to a pull request as an event."""
    return {
        # Commits are not kept twice: theirs is the event's id too.
        "id": commit.oid[:24],
        "author": person(commit.author),
        "createdAt": timestamp(commit.date),
        "type": "commit",
        "data": {"subject": commit.title, "oid": commit.oid},
    }


def comment(text: str, author: str, date: datetime) -> dict[str, Any]:
    """Return the data of a new comment."""
    return {
        "edited": False,
        "hidden": False,
        "latest": _version(text, author, date),
        "numEdits": 0,
        "history": [],
    }


def edited(data: dict[str, Any], text: str, author: str, date: datetime) -> dict[str, Any]:
    """Return a comment's data with another text; what it said before is kept."""
    history = [*data["history"], data["latest"]]
    return {
        **data,
        "edited": True,
        "latest": _version(text, author, date),
        "numEdits": len(history),
        "history": history,
    }


def hidden(author: str, date: datetime) -> dict[str, Any]:
    """Return the data of a comment whose text, and what it said before, is gone for good."""
    return {
        **comment("This comment has been hidden", author, date),
        "hidden": True,
        "hiddenBy": author,
    }


def person(name: str) -> dict[str, Any]:
    """Return who did something."""
    return {
        "_id": name,
        "name": name,
        "fullname": name,
        "type": "user",
        "avatarUrl": "",
        "isPro": False,
        "isHf": False,
        "isMod": False,
    }


def _version(text: str, author: str, date: datetime) -> dict[str, Any]:
    # Text is other people's: the only markup in it is ours.
    paragraphs = [part for part in text.replace("\r\n", "\n").split("\n\n") if part.strip()]
    return {
        "raw": text,
        "html": "\n".join(f"<p>{html.escape(part.strip())}</p>" for part in paragraphs),
        "updatedAt": timestamp(date),
        "author": person(author),
    }
