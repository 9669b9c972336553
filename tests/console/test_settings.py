"""Settings that are wrong, cookies over TLS, and cards of other people's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from console_parts import ADA
from starlette.responses import Response

from holdfast_console.cards import render_card
from holdfast_console.sessions import Session, Sessions
from holdfast_console.settings import Settings, read_settings
from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_cookie_over_tls_is_bound_to_its_host() -> None:
    settings = Settings(registry="http://127.0.0.1:1", public_url="https://console.example")
    response = Response()
    sessions = Sessions(settings)
    sessions.write(response, Session("ada", ADA))
    assert response.headers["set-cookie"].startswith("__Host-holdfast=")
    assert "Secure" in response.headers["set-cookie"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"registry": "ftp://x"}, "registry"),
        ({"registry": "http://x", "listen": "nowhere"}, "listen"),
        ({"registry": "http://x", "colour": "blue"}, "colour"),
        ({}, "registry"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, str], names: str) -> None:
    with pytest.raises(TrustError, match="mistakes") as caught:
        read_settings(None, options)
    assert names in caught.value.cause


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](data:text/html,<script>1</script>)",
        "![x](https://example.org/track.png)",
        "<!-- --><iframe src='https://example.org'></iframe>",
    ],
)
def test_a_card_brings_no_markup_of_its_own(hostile: str) -> None:
    rendered = str(render_card(f"---\nlicense: mit\n---\n{hostile}\n"))
    assert "license" not in rendered
    for tag in ("<script", "<img", "<iframe", 'href="javascript', 'href="data'):
        assert tag not in rendered.lower()


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 31)
    with pytest.raises(TrustError, match="fewer than 32 bytes"):
        Sessions(Settings(registry="http://127.0.0.1:1", secret_file=secret))
