"""Asking the site's Prometheus, bounded in time and size."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

_SECONDS = 10.0
_MOST_BYTES = 64 << 20

Labels = Mapping[str, str]


class MonitoringError(Exception):
    """Prometheus does not answer, or not in its own words."""


@dataclass(frozen=True)
class Series:
    """One series: its labels, and (Unix seconds, value) in the order of time."""

    labels: Labels
    points: tuple[tuple[float, float], ...]


class Monitoring:
    """The read side of Prometheus' HTTP API."""

    def __init__(self, base: str) -> None:
        self._base = base

    def steps(self, query: str, start: int, end: int, step: int) -> list[Series]:
        """Evaluate a query at `start`, `start + step`, …, `end`; raise MonitoringError."""
        return self._ask("query_range", {"query": query, "start": start, "end": end, "step": step})

    def samples(self, selector: str, start: int, end: int) -> list[Series]:
        """Return the samples as they were scraped after `start` until `end`."""
        query = f"{selector}[{max(1, end - start)}s]"
        return self._ask("query", {"query": query, "time": end})

    def _ask(self, verb: str, parameters: Mapping[str, object]) -> list[Series]:
        data = urllib.parse.urlencode(parameters).encode()
        request = urllib.request.Request(f"{self._base}/api/v1/{verb}", data=data)  # noqa: S310  # the configuration admits http and https only
        # A proxy variable must not send the question elsewhere.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_SECONDS) as response:
                answer = response.read(_MOST_BYTES + 1)
        except (OSError, urllib.error.URLError) as error:
            raise MonitoringError(f"{self._base}: {error}") from error
        if len(answer) > _MOST_BYTES:
            raise MonitoringError(f"{self._base}: the answer is too long; ask for a shorter time")
        try:
            found = json.loads(answer)
            return [
                Series(
                    each["metric"],
                    tuple((float(at), float(value)) for at, value in each["values"]),
                )
                for each in found["data"]["result"]
            ]
        except (ValueError, LookupError, TypeError) as error:
            raise MonitoringError(f"{self._base}: not an answer of Prometheus: {error}") from error
