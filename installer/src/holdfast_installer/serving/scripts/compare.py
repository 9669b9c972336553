"""Runs on the control host: asks replicas the same prompts, one after the other.

Argument: {"model", "replicas": {name: URL}, "prompts": [text], "rounds", "max_tokens"}. Prints
{name: {"ttft": [seconds], "errors": [text], "answers": [text]}}: one TTFT for each answer that
came, the answers of the last round. The first request to each is not counted. Standard library
only.
"""

import http.client
import json
import ssl
import sys
import time
import urllib.parse
from typing import Any  # Any: JSON

TLS = "/etc/holdfast/tls"
SECONDS = 120


def ask(context: ssl.SSLContext, url: str, body: dict[str, Any]) -> tuple[float, str]:
    """Stream one completion; return the seconds to its first token and its text."""
    parts = urllib.parse.urlsplit(url)
    out = http.client.HTTPSConnection(
        str(parts.hostname), parts.port, timeout=SECONDS, context=context
    )
    out.connect()  # the handshake is not the model's
    began, first, text, ended = time.monotonic(), 0.0, "", False
    headers = {"Content-Type": "application/json"}
    out.request("POST", "/v1/completions", json.dumps({**body, "stream": True}), headers)
    answer = out.getresponse()
    if answer.status != 200:
        raise ValueError(f"HTTP {answer.status}: {answer.read(300).decode(errors='replace')}")
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[len(b"data: ") :])
        if "error" in event:
            raise ValueError(str(event["error"])[:300])
        first = first or time.monotonic() - began
        for choice in event.get("choices", []):
            text += choice.get("text") or ""
            ended = ended or bool(choice.get("finish_reason"))
    out.close()
    if not ended:
        raise ValueError("the stream ended without a reason")
    return first, text


def main() -> None:
    """Ask each prompt of each replica in turn, so that all meet the same moments."""
    given = json.loads(sys.argv[1])
    context = ssl.create_default_context(cafile=f"{TLS}/ca.pem")
    context.load_cert_chain(f"{TLS}/host.pem", f"{TLS}/host.key")
    seen: dict[str, dict[str, list[Any]]] = {
        name: {"ttft": [], "errors": [], "answers": []} for name in given["replicas"]
    }
    for turn in range(-1, given["rounds"]):
        for prompt in given["prompts"] if turn >= 0 else given["prompts"][:1]:
            for name, url in given["replicas"].items():
                body = {
                    "model": given["model"],
                    "prompt": prompt,
                    "max_tokens": given["max_tokens"],
                    "temperature": 0,
                }
                try:
                    ttft, text = ask(context, url, body)
                except (OSError, ValueError, http.client.HTTPException) as error:
                    seen[name]["errors"].append(f"{type(error).__name__}: {error}"[:300])
                    continue
                if turn >= 0:
                    seen[name]["ttft"].append(round(ttft, 4))
                if turn == given["rounds"] - 1:
                    seen[name]["answers"].append(text)
    print(json.dumps(seen))


main()
