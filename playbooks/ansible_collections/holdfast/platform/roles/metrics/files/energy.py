"""Adds up the joules of this host and leaves them where the node exporter reads.

Counters are read where the machine has them: NVML for accelerators, RAPL for processors and their
memory. Only where it has none, what the operator declared it to draw counts, and is called so. A
counter that cannot be read any more adds nothing; what nobody measured is never made up.

    energy.py --output FILE [--watts N] [--seconds 15] [--powercap DIR] [--nvml FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

METRIC = "holdfast_energy_joules_total"
NVML = "libnvidia-ml.so.1"
POWERCAP = Path("/sys/class/powercap")
# What a processor's package counts includes its cores; psys includes the package.
COUNTED = ("package", "dram")
LONGEST_STEP = 120.0


class Source(Protocol):
    """Something that knows how many joules were drawn since it was last asked."""

    name: str

    def drawn(self, seconds: float) -> float:
        """Return the joules since the last call, `seconds` ago; 0 where it cannot say."""


class Counter:
    """A counter of joules that grows, and begins anew at 0 after `wraps` joules (0: never)."""

    def __init__(self, read: Callable[[], float], wraps: float = 0.0) -> None:
        self._read = read
        self._wraps = wraps
        self._last = self._now()

    def step(self) -> float:
        """Return by how much it has grown."""
        last, self._last = self._last, self._now()
        if last is None or self._last is None:
            return 0.0
        grown = self._last - last
        if grown < 0 and self._wraps:
            grown += self._wraps
        return max(0.0, grown)

    def _now(self) -> float | None:
        try:
            return self._read()
        except (OSError, ValueError):
            return None


class Rapl:
    """Processors and memory, by the kernel's powercap interface."""

    name = "rapl"

    def __init__(self, folder: Path) -> None:
        self._counters = []
        for zone in sorted(folder.glob("intel-rapl:*")):
            try:
                kind = (zone / "name").read_text().strip()
                if not kind.startswith(COUNTED):
                    continue
                (zone / "energy_uj").read_text()
                wraps = int((zone / "max_energy_range_uj").read_text()) / 1e6
            except (OSError, ValueError) as error:
                sys.stderr.write(f"{zone}: cannot be read: {error}\n")
                continue
            self._counters.append(Counter(_microjoules(zone / "energy_uj"), wraps))

    def __bool__(self) -> bool:
        return bool(self._counters)

    def drawn(self, _seconds: float) -> float:
        """Return the joules of all zones."""
        return sum(counter.step() for counter in self._counters)


class Nvml:
    """Accelerators, by the counters that NVIDIA's driver keeps since it was loaded."""

    name = "nvml"

    def __init__(self, library: str) -> None:
        self._counters = []
        try:
            nvml = ctypes.CDLL(library)
        except OSError:
            return
        try:
            count = ctypes.c_uint()
            _check(nvml.nvmlInit_v2())
            _check(nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)))
            for at in range(count.value):
                device = ctypes.c_void_p()
                _check(nvml.nvmlDeviceGetHandleByIndex_v2(at, ctypes.byref(device)))
                read = _millijoules(nvml, device)
                read()
                self._counters.append(Counter(read))
        except (OSError, AttributeError) as error:
            sys.stderr.write(f"{library}: {error}\n")

    def __bool__(self) -> bool:
        return bool(self._counters)

    def drawn(self, _seconds: float) -> float:
        """Return the joules of all devices."""
        return sum(counter.step() for counter in self._counters)


class Declared:
    """What the operator says the host draws, whether it is busy or not."""

    name = "declared"

    def __init__(self, watts: float) -> None:
        self._watts = watts

    def __bool__(self) -> bool:
        return self._watts > 0

    def drawn(self, seconds: float) -> float:
        """Return watts times seconds, a sleep of the machine left out."""
        return self._watts * min(seconds, LONGEST_STEP)


def _microjoules(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text()) / 1e6


def _millijoules(nvml: ctypes.CDLL, device: ctypes.c_void_p) -> Callable[[], float]:
    def read() -> float:
        energy = ctypes.c_ulonglong()
        _check(nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(energy)))
        return energy.value / 1e3

    return read


def _check(code: int) -> None:
    if code:
        raise OSError(f"NVML says error {code}")


def sources(watts: float, powercap: Path, library: str) -> list[Source]:
    """Return what can be measured here, or else what is declared; nothing where neither is."""
    measured: list[Source] = [each for each in (Nvml(library), Rapl(powercap)) if each]
    if measured:
        return measured
    declared = Declared(watts)
    return [declared] if declared else []


def text(totals: dict[str, float]) -> str:
    """Return the numbers in Prometheus' text format."""
    lines = [f"# HELP {METRIC} Energy of this host since the collector began, by who says so."]
    lines.append(f"# TYPE {METRIC} counter")
    lines += [f'{METRIC}{{source="{name}"}} {joules:.3f}' for name, joules in totals.items()]
    return "\n".join(lines) + "\n"


def write(path: Path, content: str) -> None:
    """Replace the file at once: half of one must not be read."""
    fresh = path.with_suffix(".new")
    fresh.write_text(content, encoding="ascii")
    fresh.chmod(0o644)
    fresh.replace(path)


def main() -> None:
    """Count for ever; or once, with --seconds 0, to see what can be read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--watts", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--powercap", type=Path, default=POWERCAP)
    parser.add_argument("--nvml", default=NVML)
    options = parser.parse_args()
    found = sources(options.watts, options.powercap, options.nvml)
    names = ", ".join(source.name for source in found)
    unknown = "unknown: nothing measures or declares it"
    sys.stderr.write(f"energy of this host: {names or unknown}\n")
    totals = {source.name: 0.0 for source in found}
    last = time.monotonic()
    while True:
        write(options.output, text(totals))
        if not options.seconds:
            return
        time.sleep(options.seconds)
        now = time.monotonic()
        for source in found:
            totals[source.name] += source.drawn(now - last)
        last = now


if __name__ == "__main__":
    main()
