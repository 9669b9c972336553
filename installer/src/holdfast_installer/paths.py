"""Where the operator's machine keeps downloads (cache) and what must not be lost (state)."""

from __future__ import annotations

import os
from pathlib import Path

SHARED_CACHE = Path("/var/cache/holdfast")
SHARED_STATE = Path("/var/lib/holdfast-operator")


def cache_dir() -> Path:
    """Return the folder for content-addressed downloads; losing it costs time only."""
    if chosen := os.environ.get("HOLDFAST_CACHE"):
        return Path(chosen)
    if os.geteuid() == 0:
        return SHARED_CACHE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdfast"


def state_dir() -> Path:
    """Return the folder for signing keys and labs; losing it loses them."""
    if chosen := os.environ.get("HOLDFAST_STATE"):
        return Path(chosen)
    if os.geteuid() == 0:
        return SHARED_STATE
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "holdfast"


def blob_stores() -> list[Path]:
    """Return the blob folders to look in, own one first; only the first is written to."""
    own = cache_dir() / "blobs"
    shared = SHARED_CACHE / "blobs"
    return [own] if own == shared or not os.access(shared, os.R_OK) else [own, shared]
