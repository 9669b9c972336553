"""A client that uploads one file over LFS, step by step, and remembers what it was told."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any

import httpx
from registry_parts import ADA

NAME = "research/killed"
PATH = "w.safetensors"


def weights(number: int, count: int = 150_000) -> bytes:
    """Return a valid safetensors file of 600 kB that differs by number."""
    header = {"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, count * 4]}}
    text = json.dumps(header).encode()
    data = hashlib.shake_128(b"%d" % number).digest(count * 4)
    return struct.pack("<Q", len(text)) + text + data


@dataclass
class Uploader:
    """What a client was told before its server died."""

    url: str
    content: bytes
    told: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256(self.content).hexdigest()
        token = {"Authorization": f"Bearer {ADA}"}
        self.client = httpx.Client(trust_env=False, timeout=30, headers=token)

    def upload(self) -> bool:
        """Go all the way; tell whether the server lived to the end."""
        try:
            with self.client:
                self.batch()
                self.send()
                self.commit()
        except httpx.TransportError:
            return False
        return True

    def batch(self) -> None:
        listed = [{"oid": self.digest, "size": len(self.content)}]
        answer = self.client.post(
            f"{self.url}/{NAME}.git/info/lfs/objects/batch",
            json={"operation": "upload", "transfers": ["multipart"], "objects": listed},
        )
        assert answer.status_code == 200, answer.text
        self.told["batch"] = answer.json()["objects"][0]

    def send(self) -> None:
        if "actions" not in self.told["batch"]:
            return
        upload = self.told["batch"]["actions"]["upload"]
        header = dict(upload.get("header", {}))
        if not header:
            answer = self.client.put(upload["href"], content=self.content)
        else:
            size = int(header.pop("chunk_size"))
            parts = []
            for number in sorted(map(int, header)):
                part = self.content[(number - 1) * size : number * size]
                answer = self.client.put(header[str(number)], content=part)
                assert answer.status_code == 200, answer.text
                parts.append({"partNumber": number, "etag": answer.headers["ETag"]})
            document = {"oid": self.digest, "parts": parts}
            answer = self.client.post(upload["href"], json=document)
        assert answer.status_code == 200, answer.text
        self.told["uploaded"] = True

    def commit(self) -> None:
        lines = [
            {"key": "header", "value": {"summary": "Upload", "description": ""}},
            {
                "key": "lfsFile",
                "value": {
                    "path": PATH,
                    "algo": "sha256",
                    "oid": self.digest,
                    "size": len(self.content),
                },
            },
        ]
        body = "\n".join(map(json.dumps, lines))
        answer = self.client.post(f"{self.url}/api/models/{NAME}/commit/main", content=body)
        assert answer.status_code == 200, answer.text
        self.told["commit"] = answer.json()["commitOid"]
