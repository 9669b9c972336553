"""Ask a pool's balancer without a pause, and see when it gains a replica.

Sent to the control host as it is, with a JSON object as its only argument: port of the balancer,
model, clients, replicas and stop. Runs until the file `stop` is there. Prints JSON: when the
balancer first sent requests to more than `replicas` (seconds since the epoch, null for never), how
many requests were answered before and after, and how many failed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

TOKENS = 32


class Load:
    """Clients that ask, each in a thread of its own."""

    def __init__(self, port: int, model: str, stop: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.model = model
        self.stop = stop
        self.answered: list[float] = []
        self.failures: list[str] = []

    def ask(self) -> None:
        """Ask until it is time to stop."""
        body = {"model": self.model, "prompt": "What", "max_tokens": TOKENS, "ignore_eos": True}
        request = urllib.request.Request(
            f"{self.url}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        while not self.stop.exists():
            try:
                with urllib.request.urlopen(request, timeout=300) as answer:
                    json.load(answer)
            except (OSError, ValueError) as error:
                self.failures.append(str(error))
                time.sleep(0.1)
            else:
                self.answered.append(time.time())

    def healthy(self) -> int:
        """Return how many replicas the balancer sends requests to."""
        try:
            with urllib.request.urlopen(f"{self.url}/workers", timeout=5) as answer:
                found = json.load(answer)
        except (OSError, ValueError):
            return 0
        workers = found.get("workers", []) if isinstance(found, dict) else found
        return sum(bool(one.get("is_healthy")) for one in workers)


def main() -> None:
    """Run the load and look at the balancer meanwhile."""
    asked = json.loads(sys.argv[1])
    stop = Path(asked["stop"])
    load = Load(asked["port"], asked["model"], stop)
    threads = [threading.Thread(target=load.ask) for _ in range(asked["clients"])]
    for thread in threads:
        thread.start()
    grew = None
    while not stop.exists():
        if grew is None and load.healthy() > asked["replicas"]:
            grew = time.time()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    before = sum(at < (grew or time.time()) for at in load.answered)
    print(
        json.dumps(
            {
                "grew": grew,
                "before": before,
                "after": len(load.answered) - before,
                "failed": len(load.failures),
                "failure": load.failures[0] if load.failures else "",
            }
        )
    )


if __name__ == "__main__":
    main()
