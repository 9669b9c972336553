"""Models: the list, and a model's card, files, review and provenance."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import Route

from holdfast_console.cards import MAX_CARD_BYTES, render_card
from holdfast_console.registry import RegistryError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast_console.desk import Desk
    from holdfast_console.sessions import Session

STATES: Final = ("quarantined", "scanned", "approved", "rejected")
ACTIONS: Final = ("approve", "quarantine", "reject")
MAX_SHOWN_BYTES: Final = 256 << 10
_MODEL: Final = "/models/{namespace}/{name}"


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""
    pages = {
        "/models": listing,
        _MODEL: card,
        f"{_MODEL}/files/{{revision}}": files,
        f"{_MODEL}/files/{{revision}}/{{path:path}}": files,
        f"{_MODEL}/file/{{revision}}/{{path:path}}": file,
        f"{_MODEL}/review/{{revision}}": review,
        f"{_MODEL}/provenance/{{revision}}": provenance,
    }
    shown = [Route(path, desk.signed_in(page), methods=["GET"]) for path, page in pages.items()]
    acting = Route(
        f"{_MODEL}/review/{{revision}}/{{action}}", desk.signed_in(act), methods=["POST"]
    )
    return [*shown, acting]


async def listing(desk: Desk, request: Request, session: Session) -> Response:
    """Show models by last change, or the revisions that are in a state of review."""
    query = request.query_params
    state, search = query.get("state", ""), query.get("search", "").strip()
    cursor = query.get("cursor", "")
    if state and state not in STATES:
        raise HTTPException(400, f"state is one of {', '.join(STATES)}")
    if state:
        page = await desk.registry.reviews(session.token, state=state, cursor=cursor)
        rows = [
            {"id": item["id"], "revision": item["commit"], "changed": item["updated_at"]}
            | {"title": item["title"], "state": item["state"], "danger": item["danger"]}
            for item in page.items
            if search.lower() in item["id"].lower()
        ]
    else:
        page = await desk.registry.models(session.token, search=search, cursor=cursor)
        rows = [
            {"id": item["id"], "revision": item.get("sha") or "", "changed": item["lastModified"]}
            | {"title": _task(item), "state": (item["review"] or {}).get("state", "")}
            | {"danger": _dangerous(item["review"])}
            for item in page.items
        ]
    return desk.page(
        request,
        "models.html",
        rows=rows,
        following=page.cursor,
        state=state,
        search=search,
        states=STATES,
    )


async def card(desk: Desk, request: Request, session: Session) -> Response:
    """Show what a model is: its card, and how a client gets it."""
    model = _model(request)
    revision = request.query_params.get("revision", "main")
    about, refs = await asyncio.gather(
        desk.registry.model(session.token, model, revision),
        desk.registry.refs(session.token, model),
    )
    text = await _card(desk, session, model, about["sha"])
    return desk.page(
        request,
        "card.html",
        **await _head(desk, session, model, revision, about),
        card=render_card(text) if text else None,
        refs=refs,
    )


async def files(desk: Desk, request: Request, session: Session) -> Response:
    """Show a folder."""
    model, revision = _model(request), request.path_params["revision"]
    folder = request.path_params.get("path", "")
    cursor = request.query_params.get("cursor", "")
    about = await desk.registry.model(session.token, model, revision)
    tree = await desk.registry.tree(session.token, model, about["sha"], folder, cursor)
    return desk.page(
        request,
        "files.html",
        **await _head(desk, session, model, revision, about),
        folder=folder,
        entries=tree.items,
        following=tree.cursor,
    )


async def file(desk: Desk, request: Request, session: Session) -> Response:
    """Show a text file, or say how to download another."""
    model, revision = _model(request), request.path_params["revision"]
    path = request.path_params["path"]
    about = await desk.registry.model(session.token, model, revision)
    text = await desk.registry.text(session.token, model, about["sha"], path, MAX_SHOWN_BYTES)
    return desk.page(
        request,
        "file.html",
        **await _head(desk, session, model, revision, about),
        path=path,
        text=text,
        most=MAX_SHOWN_BYTES,
        cut=text is not None and len(text.encode()) >= MAX_SHOWN_BYTES,
    )


async def review(desk: Desk, request: Request, session: Session) -> Response:
    """Show how far a revision is, what was found in it and who approved."""
    model, revision = _model(request), request.path_params["revision"]
    return await _review(desk, request, session, model, revision)


async def act(desk: Desk, request: Request, session: Session) -> Response:
    """Approve, quarantine or reject; show the review again, or why it was refused."""
    model, revision = _model(request), request.path_params["revision"]
    action = request.path_params["action"]
    if action not in ACTIONS:
        raise HTTPException(404, f"no such action: {action}")
    note = (await desk.form(request)).get("note", "")
    try:
        await desk.registry.act(session.token, model, revision, action, note)
    except RegistryError as error:
        if error.status not in {403, 409}:
            raise
        return await _review(desk, request, session, model, revision, refused=error)
    if request.headers.get("hx-request") == "true":
        return await _review(desk, request, session, model, revision)
    return RedirectResponse(f"/models/{model}/review/{revision}", 303)


async def provenance(desk: Desk, request: Request, session: Session) -> Response:
    """Show where a revision comes from, link by link."""
    model, revision = _model(request), request.path_params["revision"]
    about = await desk.registry.model(session.token, model, revision)
    chain = await desk.registry.provenance(session.token, model, about["sha"])
    return desk.page(
        request,
        "provenance.html",
        **await _head(desk, session, model, revision, about),
        chain=chain,
    )


async def _review(  # noqa: PLR0913, PLR0917 - a page, of a revision, for somebody
    desk: Desk,
    request: Request,
    session: Session,
    model: str,
    revision: str,
    refused: RegistryError | None = None,
) -> Response:
    found = await desk.registry.review(session.token, model, revision)
    return desk.page(
        request,
        "review.html",
        status=refused.status if refused else 200,
        model=model,
        revision=revision,
        commit=found["commit"],
        state=found["state"],
        review=found,
        refused=refused.message if refused else "",
        current="review",
    )


async def _head(
    desk: Desk, session: Session, model: str, revision: str, about: dict[str, Any]
) -> dict[str, Any]:
    """Return what stands above every page of a model."""
    try:
        found = await desk.registry.review(session.token, model, about["sha"])
    except RegistryError as error:
        if error.status != 404:
            raise
        found = {"state": ""}
    return {
        "model": model,
        "revision": revision,
        "commit": about["sha"],
        "about": about,
        "state": found["state"],
    }


async def _card(desk: Desk, session: Session, model: str, commit: str) -> str | None:
    try:
        return await desk.registry.text(session.token, model, commit, "README.md", MAX_CARD_BYTES)
    except RegistryError as error:
        if error.status == 403:  # in quarantine: its page is there, its files are not
            return None
        raise


def _model(request: Request) -> str:
    return f"{request.path_params['namespace']}/{request.path_params['name']}"


def _task(item: dict[str, Any]) -> str:
    return str(item.get("pipeline_tag") or item.get("library_name") or "")


def _dangerous(found: dict[str, Any] | None) -> bool:
    return any(finding.get("danger") for finding in (found or {}).get("findings", []))
