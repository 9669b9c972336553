"""A route without a word in the page of the protocol, or in one that it leads to, fails here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import World

DOCS = Path(__file__).parents[2] / "docs/capabilities"
PAGES = ("hub_protocol", "registry_xet", "registry_access")


def words(path: str) -> list[str]:
    """Return what is the same in every address of a route."""
    return [part for part in path.split("/") if part and not part.startswith("{")]


def test_every_route_has_a_word(full: World) -> None:
    text = "".join((DOCS / f"{page}.md").read_text() for page in PAGES)
    application: Any = full.client.app
    paths = [route.path for route in application.application.routes]
    assert len(paths) > 100
    missing = {
        path
        for path in paths
        if not all(f"/{word}" in text or f"`{word}`" in text for word in words(path))
    }
    assert missing == set()
