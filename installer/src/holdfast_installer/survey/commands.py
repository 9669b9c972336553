"""What the survey runs on a host: read-only shell, with tools that a minimal Debian has.

Each script prints sections that start with a line `@@name`. A script that fails, or whose last line
is not the end mark, was not read. Nothing here writes, locks or starts anything on the host.
"""

from __future__ import annotations

END = "@@end"

_GPUS = """
echo @@pci
for device in /sys/bus/pci/devices/*; do
  [ -r "$device/class" ] || continue
  case "$(cat "$device/class")" in
    0x03*|0x12*)
      echo "$(cat "$device/vendor") $(cat "$device/device") ${device##*/} $(cat "$device/class")" ;;
  esac
done
ask() {
  echo "@@$1"
  shift
  if ! command -v "$1" >/dev/null 2>&1; then echo absent; return; fi
  "$@" 2>/dev/null || { echo; echo failed; }
}
nvidia=name,memory.total,driver_version,uuid
ask nvidia nvidia-smi --query-gpu=$nvidia --format=csv,noheader,nounits
ask amd amd-smi static --asic --driver --vram --json
ask rocm rocm-smi --showproductname --showmeminfo vram --showdriverversion --showuniqueid --json
ask intel xpu-smi discovery --dump 2,4,8,16
"""

_LISTENERS = """
for table in tcp tcp6 udp udp6; do
  echo "@@$table"
  [ -r /proc/net/$table ] || continue
  case $table in
    tcp*) awk '$4 == "0A" {print $2, $10}' /proc/net/$table ;;
    udp*) awk '$4 == "07" {print $2, $10}' /proc/net/$table ;;
  esac
done
echo @@sockets
find /proc/[0-9]*/fd -lname 'socket:*' -printf '%p %l\\n' 2>/dev/null || true
echo @@comm
grep -H . /proc/[0-9]*/comm 2>/dev/null || true
echo @@cgroup
grep -H . /proc/[0-9]*/cgroup 2>/dev/null || true
# What was closed while this was read has no holder, and is nobody's.
echo @@still
for table in tcp tcp6 udp udp6; do
  awk 'FNR > 1 {print $10}' /proc/net/$table 2>/dev/null || true
done
"""

_POWER = """
for domain in /sys/class/powercap/intel-rapl:*; do
  [ -e "$domain/name" ] || continue
  if cat "$domain/energy_uj" >/dev/null 2>&1; then state=yes; else state=no; fi
  echo "$(cat "$domain/name") $state"
done
true
"""

_LOCK = """
echo @@file
if [ -e /run/holdfast-apply.lock ]; then stat -c '%d %i' /run/holdfast-apply.lock; fi
echo @@holder
if [ -e /run/holdfast-apply.holder ]; then cat /run/holdfast-apply.holder; echo; fi
echo @@locks
cat /proc/locks
"""

_NUMA = """
for node in /sys/devices/system/node/node[0-9]*; do
  [ -d "$node" ] || exit 1
  echo "${node##*node} $(cat "$node/cpulist") $(awk '/MemTotal/ {print $4}' "$node/meminfo")"
done
"""

# Written by the vllm role; the .json comes after the .yml and goes before it.
_REPLICAS = """
echo @@there
for spec in /etc/holdfast/vllm/*.json; do
  [ -e "$spec" ] || continue
  base="${spec%.json}"
  echo "@@${base##*/}"
  sed -n 's/^ *"\\(model\\|commit\\)": "\\(.*\\)",$/\\1 \\2/p' "$spec"
  sed -n 's/^port: /port /p' "$base.yml" 2>/dev/null || true
  gpus='[A-Z]*_VISIBLE_DEVICES\\|ZE_AFFINITY_MASK'
  sed -n "s/^\\($gpus\\)=/devices /p" "$base.env" 2>/dev/null || true
done
"""

SCRIPTS: dict[str, str] = {
    "os": "cat /etc/os-release",
    "kernel": (
        "uname -r && uname -m && { systemd-detect-virt || true; } "
        "&& { systemd-detect-virt -c || true; }"
    ),
    "cpu": "cat /proc/cpuinfo",
    "numa": _NUMA,
    "memory": "cat /proc/meminfo",
    "mounts": "LC_ALL=C df -PkT 2>/dev/null || true",
    "interfaces": "ip -json address",
    "gpus": _GPUS,
    "listeners": _LISTENERS,
    "clock": "date +%s.%N",
    "power": _POWER,
    "releases": (
        "echo @@current; readlink /opt/holdfast/current || true; "
        "echo @@installed; ls /opt/holdfast/releases 2>/dev/null || true"
    ),
    "replicas": _REPLICAS,
    "apply_lock": _LOCK,
}


def script(fact: str) -> str:
    """Return the shell text of one fact, ending in the mark that says it ran to its end."""
    return f"set -e\n{SCRIPTS[fact].strip()}\necho {END}\n"
