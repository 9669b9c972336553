"""Runs on the control host: what replicas counted since they started.

Argument: {name: URL}. Prints {name: {"requests", "errors", "ttft": {upper bound: count}}}, or
{name: {"problem": text}} of one that does not answer. Standard library only.
"""

import json
import re
import ssl
import sys
import urllib.error
import urllib.request
from typing import Any  # Any: JSON

TLS = "/etc/holdfast/tls"
SAMPLE = re.compile(r"^([a-z_:]+)\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
ASKED = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")


def read(url: str, context: ssl.SSLContext) -> dict[str, Any]:
    """Return the counters of one replica."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=20, context=context) as answer:  # noqa: S310 - https, from the plan
        text = answer.read().decode()
    requests = errors = 0.0
    ttft: dict[str, float] = {}
    for name, labels, value in SAMPLE.findall(text):
        of = dict(LABEL.findall(labels))
        if name == "http_requests_total" and of.get("handler") in ASKED:
            requests += float(value)
            errors += float(value) * (of.get("status", "").startswith("5"))
        elif name == "vllm:request_success_total" and of.get("finished_reason") == "error":
            errors += float(value)
        elif name == "vllm:time_to_first_token_seconds_bucket":
            ttft[of["le"]] = ttft.get(of["le"], 0.0) + float(value)
    return {"requests": requests, "errors": errors, "ttft": ttft}


def main() -> None:
    """Read them all."""
    context = ssl.create_default_context(cafile=f"{TLS}/ca.pem")
    context.load_cert_chain(f"{TLS}/host.pem", f"{TLS}/host.key")
    seen = {}
    for name, url in json.loads(sys.argv[1]).items():
        try:
            seen[name] = read(url, context)
        except (urllib.error.URLError, OSError) as error:
            seen[name] = {"problem": str(error)}
    print(json.dumps(seen))


main()
