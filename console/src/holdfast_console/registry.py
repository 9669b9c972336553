"""The model registry, asked over HTTP with the token of whoever looks at the page."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE: Final = 25
_SECONDS: Final = 20.0


class RegistryError(Exception):
    """An answer that is none: its status (503: there was no answer) and the registry's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class Page:
    """Some items of a listing, and the cursor of the next ones; '' at the end."""

    items: list[dict[str, Any]]
    cursor: str


class Registry:
    """The calls that pages are made of."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=_SECONDS, trust_env=False)

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    async def whoami(self, token: str) -> dict[str, Any]:
        """Return who the token stands for."""
        return self._document(await self._get(token, "/api/whoami-v2"))

    async def models(self, token: str, *, search: str, cursor: str) -> Page:
        """Return models by last change, each with `review` where the registry tells of one."""
        query = {"limit": str(PAGE), "sort": "lastModified", "full": "true"}
        query |= {"search": search} if search else {}
        answer = await self._get(token, "/api/models", query | _after(cursor))
        items = self._listing(answer)
        reviews = await asyncio.gather(*(self._review_or_none(token, item) for item in items))
        for item, review in zip(items, reviews, strict=True):
            item["review"] = review
        return Page(items, _cursor(answer))

    async def reviews(self, token: str, *, state: str, cursor: str) -> Page:
        """Return the revisions in a state of review, newest change first."""
        query = {"limit": str(PAGE), "state": state}
        answer = await self._get(token, "/api/holdfast/models", query | _after(cursor))
        return Page(self._listing(answer), _cursor(answer))

    async def model(self, token: str, model: str, revision: str) -> dict[str, Any]:
        """Return a model's information at a revision."""
        address = f"/api/models/{model}/revision/{_part(revision)}"
        return self._document(await self._get(token, address))

    async def refs(self, token: str, model: str) -> dict[str, Any]:
        """Return branches and tags."""
        return self._document(await self._get(token, f"/api/models/{model}/refs"))

    async def commits(self, token: str, model: str, revision: str) -> list[dict[str, Any]]:
        """Return the newest commits of a revision."""
        address = f"/api/models/{model}/commits/{_part(revision)}"
        return self._listing(await self._get(token, address, {"limit": "20"}))

    async def tree(self, token: str, model: str, revision: str, folder: str, cursor: str) -> Page:
        """Return a folder's entries, each with its last commit and what the scan says."""
        address = f"/api/models/{model}/tree/{_part(revision)}"
        address += f"/{quote(folder)}" if folder else ""
        answer = await self._get(token, address, {"expand": "true"} | _after(cursor))
        return Page(self._listing(answer), _cursor(answer))

    async def text(self, token: str, model: str, revision: str, path: str, most: int) -> str | None:
        """Return a file's first `most` bytes as text; None if it is not there, or not text."""
        address = f"/{model}/resolve/{_part(revision)}/{quote(path)}"
        try:
            answer = await self._get(token, address, headers={"Range": f"bytes=0-{most - 1}"})
        except RegistryError as error:
            if error.status in {404, 416}:
                return None
            raise
        content = answer.content[:most]
        if b"\0" in content:
            return None
        return content.decode("utf-8", "replace")

    async def review(self, token: str, model: str, revision: str) -> dict[str, Any]:
        """Return how far a revision's review is."""
        address = f"/api/holdfast/models/{model}/review/{_part(revision)}"
        return self._document(await self._get(token, address))

    async def act(self, token: str, model: str, commit: str, action: str, note: str) -> None:
        """Approve, quarantine or reject a commit in the name of the token's owner."""
        await self._send(
            "POST",
            token,
            f"/api/holdfast/models/{model}/review/{_part(commit)}/{_part(action)}",
            json={"note": note},
        )

    async def provenance(self, token: str, model: str, revision: str) -> dict[str, Any]:
        """Return where a revision comes from, link by link."""
        address = f"/api/holdfast/models/{model}/provenance/{_part(revision)}"
        return self._document(await self._get(token, address))

    async def _review_or_none(self, token: str, item: Mapping[str, Any]) -> dict[str, Any] | None:
        if not item.get("sha"):
            return None
        try:
            return await self.review(token, item["id"], item["sha"])
        except RegistryError as error:
            if error.status == 404:
                return None
            raise

    async def _get(
        self,
        token: str,
        address: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        return await self._send("GET", token, address, params=query, headers=headers)

    async def _send(
        self,
        method: str,
        token: str,
        address: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,  # noqa: ANN401 - what httpx takes
    ) -> httpx.Response:
        credentials = {"Authorization": f"Bearer {token}", **(headers or {})}
        try:
            answer = await self._client.request(method, address, headers=credentials, **more)
        except httpx.HTTPError as error:
            raise RegistryError(503, f"the registry does not answer: {error}") from error
        if answer.status_code >= 300:
            raise RegistryError(answer.status_code, _words(answer))
        return answer

    def _document(self, answer: httpx.Response) -> dict[str, Any]:
        document = answer.json()
        if not isinstance(document, dict):
            raise RegistryError(502, "the registry answered something else than was asked")
        return document

    def _listing(self, answer: httpx.Response) -> list[dict[str, Any]]:
        document = answer.json()
        if not isinstance(document, list):
            raise RegistryError(502, "the registry answered something else than was asked")
        return document


def _words(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return str(answer.headers.get("X-Error-Message", answer.reason_phrase))


def _part(text: str) -> str:
    return quote(text, safe="")


def _after(cursor: str) -> dict[str, str]:
    return {"cursor": cursor} if cursor else {}


def _cursor(answer: httpx.Response) -> str:
    following = answer.links.get("next", {}).get("url", "")
    return httpx.URL(following).params.get("cursor", "") if following else ""
