#!/usr/bin/env bash
# Make a fresh Debian 12 machine able to run Holdfast: Debian's packages where we may install them,
# then a virtual environment from the hash-pinned lock. Usage: bootstrap.sh PYTHON VENV PROJECT...
set -euo pipefail
python=$1 venv=$2
shift 2

# command the lab and the bundle need -> the Debian package that brings it
declare -A packages=(
  [mmdebstrap]=mmdebstrap [systemd-nspawn]=systemd-container [nft]=nftables [ip]=iproute2
  [ssh]=openssh-client [ssh-keygen]=openssh-client [curl]=curl [git]=git [dpkg-deb]=dpkg
)
missing=()
for command in "${!packages[@]}"; do
  PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || missing+=("${packages[$command]}")
done
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if ((${#missing[@]})); then
  if ((EUID == 0)); then sudo=(); else sudo=(sudo -n); fi
  if ((EUID == 0)) || sudo -n true 2>/dev/null; then
    echo "Installing from Debian: ${missing[*]}" >&2
    "${sudo[@]}" apt-get -qq update
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get -qq install -y --no-install-recommends \
      "${missing[@]}" >/dev/null
  else
    echo "Not installed here, and this user may not install them: ${missing[*]}" >&2
    echo "  next: sudo apt-get install ${missing[*]}   (only the lab needs them)" >&2
  fi
fi

# Bundles are resolved for Debian 12, whose Python this is; another one would decide otherwise.
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
  echo "Holdfast needs Python 3.11; '$python' is $("$python" -V 2>&1)." >&2
  echo "  next: make PYTHON=/path/to/python3.11" >&2
  exit 1
fi

echo "Preparing the Python environment in $venv" >&2
"$python" -m venv "$venv"
# pip warns about find-links folders that lack a package; that is the rule here, not a problem.
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@" 2> >(grep -v 'is ignored: it is' >&2); }
pip install --require-hashes -r requirements.lock
pip install --no-build-isolation --no-deps "${@/#/--editable=./}"
