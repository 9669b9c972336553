"""A hub that accepts every upload and keeps nothing: what the stock client itself takes.

`python registry_sink.py PORT`. It answers the calls of an upload, by LFS and by xet, and throws the
bodies away unread; no hash is computed, nothing is checked, nothing is written.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from granian.constants import HTTPModes, Interfaces
from granian.server import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

COMMIT = "0" * 40
EXPIRY = 4_000_000_000  # seconds since 1970


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer one request of an upload."""
    if scope["type"] != "http":
        return
    path, address = scope["path"], dict(scope["headers"])[b"host"].decode()
    keep = path.endswith(("/objects/batch", "/repos/create")) or "/preupload/" in path
    body = await _body(receive, keep=keep)
    answer = _answer(path, f"http://{address}", body)
    status = 404 if answer is None else 200
    content = json.dumps(answer or {"error": "not here"}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    if answer and "casUrl" in answer:
        headers += [
            (b"x-xet-cas-url", answer["casUrl"].encode()),
            (b"x-xet-access-token", answer["accessToken"].encode()),
            (b"x-xet-token-expiration", str(answer["exp"]).encode()),
        ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _body(receive: Callable[[], Awaitable[dict[str, Any]]], *, keep: bool) -> bytes:
    kept = b""
    while True:
        message = await receive()
        if keep:
            kept += message.get("body", b"")
        if not message.get("more_body"):
            return kept


def _answer(path: str, base: str, body: bytes) -> dict[str, Any] | None:  # noqa: PLR0911 - a table
    if path == "/api/repos/create":
        asked = json.loads(body)
        return {"url": f"{base}/{asked['organization']}/{asked['name']}"}
    if "/preupload/" in path:
        files = json.loads(body)["files"]
        decided = {"uploadMode": "lfs", "shouldIgnore": False}
        return {"files": [{"path": file["path"], **decided} for file in files]}
    if path.endswith("/objects/batch"):
        upload = {"upload": {"href": f"{base}/thrown-away"}}
        objects = json.loads(body)["objects"]
        return {"transfer": "basic", "objects": [{**each, "actions": upload} for each in objects]}
    if "/xet-write-token/" in path:
        return {"casUrl": base, "exp": EXPIRY, "accessToken": "none"}
    if path.startswith("/v1/xorbs/"):
        return {"was_inserted": True}
    if path == "/v1/shards":
        return {"result": 1}
    if "/commit/" in path:
        name = "/".join(path.split("/")[3:5])
        url = f"{base}/{name}/commit/{COMMIT}"
        return {"commitUrl": url, "commitOid": COMMIT, "success": True}
    return {} if path == "/thrown-away" else None


if __name__ == "__main__":
    Server(
        "registry_sink:application",
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
    ).serve(target_loader=lambda *_: application)
