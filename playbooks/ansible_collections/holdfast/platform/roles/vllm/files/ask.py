"""Ask a vLLM unit of this host for one token, over TLS with the host's certificate.

Arguments: base address, model, folder of the certificates, seconds to go on trying.
"""

from __future__ import annotations

import json
import ssl
import sys
import time
import urllib.error
import urllib.request


def ask(address: str, model: str, context: ssl.SSLContext) -> str:
    """Return the finish reason of a completion of one token."""
    body = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 1}).encode()
    request = urllib.request.Request(  # noqa: S310 - the address is the role's own, https
        f"{address}/v1/completions", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60, context=context) as answer:  # noqa: S310
        completion = json.load(answer)
    if completion["usage"]["completion_tokens"] != 1:
        sys.exit(f"one token was asked for, {completion['usage']} came")
    return str(completion["choices"][0]["finish_reason"])


def main() -> None:
    """Try until an answer comes or the time is over."""
    address, model, tls, seconds = sys.argv[1:]
    context = ssl.create_default_context(cafile=f"{tls}/ca.pem")
    context.load_cert_chain(f"{tls}/host.pem", f"{tls}/host.key")
    deadline = time.monotonic() + float(seconds)
    while True:
        try:
            print(ask(address, model, context))  # noqa: T201 - the answer
        except (urllib.error.URLError, OSError, ssl.SSLError) as error:
            if time.monotonic() > deadline:
                sys.exit(f"{address} did not answer for {model}: {error}")
            time.sleep(0.5)
        else:
            return


if __name__ == "__main__":
    main()
