"""Revocation is seen by another process, which has the token in its cache, within a second."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_trust.store import TrustStore

_WATCHER = """
import sys, time
from holdfast_trust.store import TrustStore
store = TrustStore(sys.argv[1])
token = sys.stdin.readline().strip()
assert store.authenticate(token)
print("holds", flush=True)
while store.authenticate(token):
    time.sleep(0.005)
print(time.time(), flush=True)
"""


def _revoke(store: TrustStore, token_id: str) -> None:
    store.revoke_token(token_id)


def _revoke_all(store: TrustStore, _token_id: str) -> None:
    store.revoke_all("ada")


def _disable(store: TrustStore, _token_id: str) -> None:
    store.set_disabled("ada", disabled=True)


def _rotate(store: TrustStore, _token_id: str) -> None:
    store.issue_token("ada", rotate=True)


@pytest.mark.parametrize("end", [_revoke, _revoke_all, _disable, _rotate])
def test_another_process_refuses_within_a_second(
    store: TrustStore, database_url: str, end: Callable[[TrustStore, str], None]
) -> None:
    store.add_user("ada")
    issued = store.issue_token("ada")
    with subprocess.Popen(
        [sys.executable, "-c", _WATCHER, database_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as watcher:
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        watcher.stdin.write(f"{issued.secret}\n")
        watcher.stdin.flush()
        assert watcher.stdout.readline() == "holds\n"
        time.sleep(0.2)  # the watcher answers from its cache by now
        end(store, issued.token_id)
        ended = time.time()
        refused = float(watcher.stdout.readline())
    assert watcher.returncode == 0
    assert refused - ended < 1.0
