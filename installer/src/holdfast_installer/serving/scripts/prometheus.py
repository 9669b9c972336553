"""Runs on the control host: asks Prometheus some questions about now.

Argument: {name: query}. Prints {name: number, or null where there is no answer}. Standard library
only.
"""

import json
import sys
import urllib.parse
import urllib.request

PROMETHEUS = "http://127.0.0.1:9090/api/v1/query"


def ask(query: str) -> float | None:
    """Return the one number that a query comes to."""
    words = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"{PROMETHEUS}?{words}", timeout=20) as answer:  # noqa: S310 - http, above
        found = json.load(answer)["data"]["result"]
    number = float(found[0]["value"][1]) if found else None
    return None if number is None or number != number else number  # noqa: PLR0124 - NaN


print(json.dumps({name: ask(query) for name, query in json.loads(sys.argv[1]).items()}))
