"""An upload and a read by xet, on either database."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from xet_parts import File, Xorb, shard

if TYPE_CHECKING:
    # The fixture's class lives in conftest, which cannot be imported by name.
    World = Any

API = "/api/models/org/name"


def grant(world: World, verb: str) -> tuple[str, dict[str, str]]:
    document = world.client.get(f"{API}/xet-{verb}-token/main").json()
    return urlsplit(document["casUrl"]).path, {"Authorization": f"Bearer {document['accessToken']}"}


def test_an_upload_and_a_read(world: World) -> None:
    object.__setattr__(world.hub, "xet_reads_over", 1000)
    world.publish("org/name", [world.store("README.md", b"hello")])
    xorb = Xorb([random.Random(0).randbytes(1500), b"more"])
    file = File([(xorb, 0, 2)])
    url, headers = grant(world, "write")
    for path, content in (
        (f"/v1/xorbs/default/{xorb.url_hash}", xorb.stored),
        ("/v2/shards", shard([file], [xorb])),
        ("/v1/shards", shard([file], [xorb])),
    ):
        answer = world.client.post(url + path, content=content, headers=headers)
        assert answer.status_code == 200, answer.text
    world.publish("org/name", [world.store("w.bin", file.content, lfs=True)])
    url, headers = grant(world, "read")
    answer = world.client.get(f"{url}/v1/reconstructions/{file.digest}", headers=headers)
    [[fetch]] = answer.json()["fetch_info"].values()
    sent = world.anonymous().get(urlsplit(fetch["url"]).path)
    assert sent.content[8:] == file.content
    other = world.client.get(f"{url}/v1/reconstructions/{'0' * 64}", headers=headers)
    assert other.status_code == 404
