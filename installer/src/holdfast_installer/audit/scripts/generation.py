"""Runs on the control host: makes every vLLM unit generate, as the balancer would reach it.

Argument: {"workers": folder of the balancer's worker files}. Prints {"workers": [{"url", "model",
"tokens", "problem"}]}. Standard library only: hosts have no more.
"""

import json
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any  # Any: another program's JSON

TLS = Path("/etc/holdfast/tls")
TIMEOUT_SECONDS = 60


def fetch(
    context: ssl.SSLContext, url: str, body: dict[str, object] | None = None
) -> dict[str, Any]:
    """Send one request over mutual TLS and return its JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - https only, from the balancer's own file
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
        return found


def generate(context: ssl.SSLContext, url: str) -> dict[str, object]:
    """Ask one unit for two tokens and say what came."""
    try:
        model = fetch(context, f"{url}/v1/models")["data"][0]["id"]
        body = {"model": model, "prompt": "What is", "max_tokens": 2, "ignore_eos": True}
        answer = fetch(context, f"{url}/v1/completions", body)
    except (OSError, ValueError, KeyError, IndexError) as problem:
        return {"url": url, "model": "", "tokens": 0, "problem": str(problem)}
    tokens = answer["usage"]["completion_tokens"]
    return {"url": url, "model": model, "tokens": tokens, "problem": ""}


def main() -> None:
    """Ask every worker of every pool."""
    given = json.loads(sys.argv[1])
    context = ssl.create_default_context(cafile=str(TLS / "ca.pem"))
    context.load_cert_chain(TLS / "host.pem", TLS / "host.key")
    urls = [
        worker["url"]
        for file in sorted(Path(given["workers"]).glob("*.json"))
        for worker in json.loads(file.read_text())["workers"]
    ]
    print(json.dumps({"workers": [generate(context, url) for url in urls]}))


main()
