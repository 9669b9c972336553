"""Numbers for Prometheus: counters, gauges and histograms, and the text it reads.

Written here because it is less than what prometheus_client would add to every request: its
counters take a lock and build a child each time, and this process counts on one thread.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"

_MOST_SERIES = 1000


class Counter:
    """Sums by label values. Beyond a thousand combinations all go to `other`."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self._text = text
        self._labels = tuple(labels)
        self._values: dict[tuple[str, ...], float] = {}
        if not labels:
            self._values[()] = 0

    def add(self, labels: tuple[str, ...], amount: float = 1) -> None:
        """Add to one combination of label values."""
        values = self._values
        if labels not in values and len(values) >= _MOST_SERIES:
            labels = (OTHER,) * len(labels)
        values[labels] = values.get(labels, 0) + amount

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text format."""
        yield from _head(self.name, self._text, "counter")
        for labels, value in self._values.items():
            yield f"{self.name}{_braces(self._labels, labels)} {_number(value)}"


class Gauge:
    """One number that is asked for when somebody looks."""

    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self.name = name
        self._text = text
        self._read = read

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text format."""
        yield from _head(self.name, self._text, "gauge")
        yield f"{self.name} {_number(self._read())}"


class Gauges:
    """Numbers by label values that are asked for when somebody looks."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        read: Callable[[], Iterable[tuple[tuple[str, ...], float]]],
    ) -> None:
        self.name = name
        self._text = text
        self._labels = tuple(labels)
        self._read = read

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text format."""
        yield from _head(self.name, self._text, "gauge")
        for labels, value in self._read():
            yield f"{self.name}{_braces(self._labels, labels)} {_number(value)}"


class Histogram:
    """How many were at most so large, by label values."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self.name = name
        self._text = text
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        """Count one value."""
        counts = self._counts.get(labels)
        if counts is None:
            if len(self._counts) >= _MOST_SERIES:
                labels = (OTHER,) * len(labels)
            counts = self._counts.setdefault(labels, [0] * (len(self._bounds) + 1))
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + value

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text format."""
        yield from _head(self.name, self._text, "histogram")
        names = (*self._labels, "le")
        bounds = [*(_number(bound) for bound in self._bounds), "+Inf"]
        for labels, counts in self._counts.items():
            total = 0
            for bound, count in zip(bounds, counts, strict=True):
                total += count
                yield f"{self.name}_bucket{_braces(names, (*labels, bound))} {total}"
            plain = _braces(self._labels, labels)
            yield f"{self.name}_sum{plain} {_number(self._sums[labels])}"
            yield f"{self.name}_count{plain} {total}"


def _head(name: str, text: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _braces(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = ",".join(
        f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)
    )
    return "{" + pairs + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
