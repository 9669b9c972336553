from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from holdfast_hub_protocol.signing import BadSignatureError, Signer, read_or_make_secret

if TYPE_CHECKING:
    from pathlib import Path

SECRET = b"s" * 32


def test_what_was_signed_is_read_back() -> None:
    signer = Signer(SECRET, clock=lambda: 1000.5)
    text = signer.sign("upload", {"repository": 7, "size": 1 << 40}, 60)
    assert signer.verify("upload", text) == {"repository": 7, "size": 1 << 40, "exp": 1060}


def test_expiry_other_purposes_other_secrets_and_tampering_are_refused() -> None:
    now = [1000.0]
    signer = Signer(SECRET, clock=lambda: now[0])
    text = signer.sign("upload", {"a": 1}, 60)
    with pytest.raises(BadSignatureError):
        signer.verify("xet-read", text)
    with pytest.raises(BadSignatureError):
        Signer(b"t" * 32, clock=lambda: now[0]).verify("upload", text)
    for position in range(len(text)):
        changed = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]
        with pytest.raises(BadSignatureError):
            signer.verify("upload", changed)
    now[0] = 1059.9
    signer.verify("upload", text)
    now[0] = 1060.0
    with pytest.raises(BadSignatureError, match="expired"):
        signer.verify("upload", text)


@pytest.mark.parametrize("text", ["", ".", "a", "a.b", "é.é", "a.b.c", "x" * 5000 + ".y", "\0."])
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(BadSignatureError):
        Signer(SECRET).verify("upload", text)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32"):
        Signer(b"short")


def test_all_who_start_at_once_get_one_secret_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "signing.key"
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: read_or_make_secret(path), range(32)))
    assert len(secrets) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["signing.key"]
