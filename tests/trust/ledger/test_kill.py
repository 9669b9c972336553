"""kill -9 of a real writer at random moments: what it confirmed is there, and it goes on."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from holdfast_trust.ledger import Ledger, read, verify

if TYPE_CHECKING:
    from pathlib import Path

_ROUNDS = 8

_WRITER = """
import os, sys, threading
from holdfast_trust.ledger import Ledger
ledger = Ledger(sys.argv[1], checkpoint_seconds=0.02)
print("ready", flush=True)
def work(thread):
    for n in range(1_000_000):
        event = {"round": int(sys.argv[2]), "thread": thread, "n": n, "pad": "x" * 300}
        entry = ledger.append(event)
        os.write(1, b"%d %d %d\\n" % (entry.index, thread, n))
for thread in range(4):
    threading.Thread(target=work, args=(thread,)).start()
"""


def test_killed_writers_lose_nothing_they_confirmed(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    confirmed: dict[int, tuple[int, int, int]] = {}
    for number in range(_ROUNDS):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(folder), str(number)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0, 0.25))
            writer.kill()
            for line in writer.stdout.read().split(b"\n")[:-1]:
                index, thread, n = (int(part) for part in line.split())
                assert index not in confirmed, f"entry {index} given twice (seed {seed})"
                confirmed[index] = (number, thread, n)
        report = verify(folder)
        assert report.ok, (report.findings, seed)
    with Ledger(folder) as ledger:
        ledger.append({"round": _ROUNDS, "thread": 0, "n": 0})
    report = verify(folder)
    assert report.ok, seed
    assert report.covered == report.entries
    found = {
        record["index"]: (
            record["event"]["round"],
            record["event"]["thread"],
            record["event"]["n"],
        )
        for record in read(folder)
    }
    assert len(confirmed) > _ROUNDS
    assert {index: found.get(index) for index in confirmed} == confirmed, seed
