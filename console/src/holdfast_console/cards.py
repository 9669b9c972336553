"""Model cards as HTML: other people's Markdown, from which nothing runs and nothing is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from markdown_it import MarkdownIt
from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.renderer import RendererHTML
    from markdown_it.token import Token
    from markdown_it.utils import EnvType, OptionsDict

MAX_CARD_BYTES: Final = 512 << 10
# Raw HTML stays text; links are http, https or mailto by the library's own rule.
_MARKDOWN: Final = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def _image(
    _: RendererHTML, tokens: Sequence[Token], position: int, _options: OptionsDict, _env: EnvType
) -> str:
    """Show an image's words: the picture itself would be fetched from wherever the card says."""
    words = Markup.escape(tokens[position].content or "image")
    return f'<span class="image">[{words}]</span>'


def _open_link(
    renderer: RendererHTML,
    tokens: Sequence[Token],
    position: int,
    options: OptionsDict,
    env: EnvType,
) -> str:
    tokens[position].attrSet("rel", "noopener noreferrer nofollow")
    return renderer.renderToken(tokens, position, options, env)


_MARKDOWN.add_render_rule("image", _image)
_MARKDOWN.add_render_rule("link_open", _open_link)


def render_card(text: str) -> Markup:
    """Return a card's Markdown as HTML, without the metadata at its head."""
    # The renderer escapes; that is what makes this string safe.
    return Markup(_MARKDOWN.render(_without_metadata(text)))  # noqa: S704


def _without_metadata(text: str) -> str:
    lines = text.splitlines(keepends=True)
    if lines and lines[0].rstrip() == "---":
        for number, line in enumerate(lines[1:], 1):
            if line.rstrip() == "---":
                return "".join(lines[number + 1 :])
    return text
