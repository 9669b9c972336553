"""What a host's energy is counted from: counters where there are any, else what was declared.

The accelerators' library is a mock, compiled here; RAPL is a folder like the kernel's.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / (
    "playbooks/ansible_collections/holdfast/platform/roles/metrics/files/energy.py"
)
MOCK_NVML = """
#include <stdlib.h>
#include <stdio.h>
/* Two devices; the joules of each stand in a file that the test writes. */
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned at, void **device) {
    *device = (void *)(long)(at + 1); return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    FILE *file = fopen(getenv("MOCK_NVML_ENERGY"), "r");
    if (!file) return 999;
    *millijoules = 0;
    for (long at = 0; at < (long)device; at++)
        if (fscanf(file, "%llu", millijoules) != 1) return 3;
    fclose(file);
    return 0;
}
"""


def load() -> Any:
    spec = importlib.util.spec_from_file_location("energy", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


energy = load()


def zone(folder: Path, number: str, name: str, joules: float, wraps: float = 1000.0) -> Path:
    made = folder / f"intel-rapl:{number}"
    made.mkdir(parents=True)
    (made / "name").write_text(f"{name}\n")
    (made / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    (made / "max_energy_range_uj").write_text(f"{int(wraps * 1e6)}\n")
    return made / "energy_uj"


def test_rapl_adds_packages_and_memory_and_nothing_twice(tmp_path: Path) -> None:
    package = zone(tmp_path, "0", "package-0", 10)
    cores = zone(tmp_path, "0:0", "core", 5)  # part of the package
    memory = zone(tmp_path, "0:1", "dram", 100)
    whole = zone(tmp_path, "1", "psys", 500)  # the package is part of it
    found = energy.Rapl(tmp_path)
    assert found.drawn(15) == 0
    package.write_text(str(int(30e6)))
    memory.write_text(str(int(101e6)))
    cores.write_text(str(int(99e6)))
    whole.write_text(str(int(900e6)))
    assert found.drawn(15) == pytest.approx(21)


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    package = zone(tmp_path, "0", "package-0", 990, wraps=1000)
    found = energy.Rapl(tmp_path)
    package.write_text(str(int(5e6)))
    assert found.drawn(15) == pytest.approx(15)


def test_a_counter_that_cannot_be_read_any_more_adds_nothing(tmp_path: Path) -> None:
    package = zone(tmp_path, "0", "package-0", 10)
    found = energy.Rapl(tmp_path)
    package.write_text("broken")
    assert found.drawn(15) == 0
    package.write_text(str(int(900e6)))
    assert found.drawn(15) == 0  # what went by meanwhile is not known
    package.write_text(str(int(901e6)))
    assert found.drawn(15) == pytest.approx(1)


def test_rapl_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    zone(tmp_path, "0", "package-0", 10).unlink()
    assert not energy.Rapl(tmp_path)


def test_nvml_adds_all_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, counters = mock_nvml(tmp_path), tmp_path / "millijoules"
    monkeypatch.setenv("MOCK_NVML_ENERGY", str(counters))
    counters.write_text("1000 50000")
    found = energy.Nvml(str(library))
    assert found
    counters.write_text("4000 51500")
    assert found.drawn(15) == pytest.approx(4.5)
    counters.write_text("100 51500")  # the driver was loaded anew
    assert found.drawn(15) == 0


def test_nvml_without_counters_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_NVML_ENERGY", str(tmp_path / "nowhere"))
    assert not energy.Nvml(str(mock_nvml(tmp_path)))
    assert not energy.Nvml("libnothing-of-the-kind.so")


def mock_nvml(folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the mock library")
    (folder / "nvml.c").write_text(MOCK_NVML)
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "nvml.c")]
    subprocess.run(command, check=True)
    return library


def test_what_is_measured_goes_before_what_is_declared(tmp_path: Path) -> None:
    names = lambda watts: [each.name for each in energy.sources(watts, tmp_path, "libnothing.so")]  # noqa: E731  # a line is enough
    assert names(0) == []
    assert names(450) == ["declared"]
    zone(tmp_path, "0", "package-0", 10)
    assert names(450) == ["rapl"]


def test_declared_watts_count_time_but_no_sleep() -> None:
    declared = energy.Declared(450)
    assert declared.drawn(15) == 6750
    assert declared.drawn(8 * 3600) == 450 * energy.LONGEST_STEP


@pytest.mark.parametrize("watts", ["0", "450"])
def test_the_file_names_its_source_and_nothing_unknown_is_zero(tmp_path: Path, watts: str) -> None:
    output = tmp_path / "joules.prom"
    command = [sys.executable, "-I", str(SCRIPT), "--output", str(output), "--watts", watts]
    command += ["--powercap", str(tmp_path), "--nvml", "libnothing.so", "--seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    series = [line for line in output.read_text().splitlines() if not line.startswith("#")]
    declared = ['holdfast_energy_joules_total{source="declared"} 0.000']
    assert series == (declared if watts != "0" else [])
    assert ("declared" in done.stderr) == (watts != "0")
    assert "# TYPE holdfast_energy_joules_total counter\n" in output.read_text()
