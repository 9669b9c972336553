"""Who comes in, what a page of another site can do, and what happens when the registry is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from console_parts import ADA, MODEL, RUTH, run_console

from holdfast_console.sessions import Sessions
from holdfast_console.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from console_parts import Console

pytestmark = pytest.mark.contract


@pytest.fixture
def client(console: Console) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=console.url, headers={"Origin": console.url}, trust_env=False, timeout=20
    ) as made:
        yield made


def enter(client: httpx.Client, token: str = ADA) -> httpx.Response:
    return client.post("/sign-in?next=/models", data={"token": token})


def test_nothing_is_shown_before_the_door(client: httpx.Client) -> None:
    for path in ("/models", f"/models/{MODEL}", f"/models/{MODEL}/review/main"):
        answer = client.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/sign-in?next={path}"


def test_the_cookie_is_sealed_and_out_of_reach_of_scripts(client: httpx.Client) -> None:
    answer = enter(client)
    assert answer.headers["location"] == "/models"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert ADA not in cookie
    assert client.get("/models").status_code == 200


def test_a_cookie_that_is_not_ours_opens_nothing(console: Console, client: httpx.Client) -> None:
    forged = Sessions(Settings(registry=console.registry.url))
    sealed = forged._fernet.encrypt(b'{"name": "ada", "token": "hft_ada-of-research-000001"}')
    client.cookies.set("holdfast", sealed.decode())
    assert client.get("/models").status_code == 303
    client.cookies.clear()
    client.cookies.set("holdfast", "half")
    assert client.get("/models").status_code == 303


@pytest.mark.parametrize("origin", ["https://evil.example", "null", ""])
def test_a_page_of_another_site_can_send_nothing(
    client: httpx.Client, console: Console, origin: str
) -> None:
    enter(client, RUTH)
    before = len(console.registry.ledger())
    answer = client.post(
        f"/models/{MODEL}/review/main/reject", data={"note": "x"}, headers={"Origin": origin}
    )
    assert answer.status_code == 403
    assert len(console.registry.ledger()) == before
    entering = client.post("/sign-in", data={"token": ADA}, headers={"Origin": origin})
    assert entering.status_code == 403


@pytest.mark.parametrize("following", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_the_door_leads_to_no_other_site(client: httpx.Client, following: str) -> None:
    answer = client.post("/sign-in", params={"next": following}, data={"token": ADA})
    assert answer.headers["location"] == "/models"


def test_signing_out_ends_the_session(client: httpx.Client) -> None:
    enter(client)
    client.post("/sign-out")
    assert client.get("/models").status_code == 303


def test_what_one_may_not_see_is_not_there(client: httpx.Client) -> None:
    enter(client)
    answer = client.get("/models/elsewhere/secret")
    assert answer.status_code == 404
    assert "Repository not found" in answer.text


def test_pages_carry_what_keeps_other_content_out(client: httpx.Client) -> None:
    enter(client)
    headers = client.get("/models").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert client.get("/static/htmx.min.js").headers["cache-control"] == "max-age=3600"


@pytest.mark.parametrize(
    "body", [b"token=%ff%fe", b"\xff", b"&".join(b"a%d=1" % n for n in range(99))]
)
def test_a_form_that_is_none_is_refused(client: httpx.Client, body: bytes) -> None:
    assert client.post("/sign-in", content=body).status_code in {400, 401}


def test_too_large_a_form_is_refused(client: httpx.Client) -> None:
    enter(client, RUTH)
    answer = client.post(f"/models/{MODEL}/review/main/reject", data={"note": "x" * 70_000})
    assert answer.status_code == 413


def test_a_registry_that_is_away_is_told(tmp_path: Path) -> None:
    with run_console(tmp_path, "http://127.0.0.1:9") as url:
        answer = httpx.post(
            f"{url}/sign-in", data={"token": ADA}, headers={"Origin": url}, trust_env=False
        )
    assert answer.status_code == 503
    assert "does not answer" in answer.text


def test_a_secret_outlives_the_process(tmp_path: Path, console: Console) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 32)
    with run_console(tmp_path, console.registry.url, "--secret-file", str(secret)) as url:
        entered = httpx.post(
            f"{url}/sign-in", data={"token": ADA}, headers={"Origin": url}, trust_env=False
        )
    with run_console(tmp_path, console.registry.url, "--secret-file", str(secret)) as url:
        cookies = {"holdfast": entered.cookies["holdfast"]}
        answer = httpx.get(f"{url}/models", cookies=cookies, trust_env=False, timeout=20)
    assert answer.status_code == 200
