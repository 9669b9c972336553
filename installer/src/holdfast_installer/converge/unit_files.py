"""What Ansible would write for a vLLM server, whatever the server: a change of it is a change."""

from __future__ import annotations

import hashlib
from pathlib import Path

from holdfast_installer.converge.ansible import collections_root

TEMPLATES = "ansible_collections/holdfast/platform/roles/vllm/templates"
# What a running server was started with; looks and pulls come and go beside it.
STARTED_WITH = ("holdfast-vllm@.service.j2", "openssl.cnf.j2", "unit.env.j2", "unit.yml.j2")


def unit_files() -> str:
    """Return a digest of the vllm role's own texts, so that a release that changes them rolls."""
    told = hashlib.sha256()
    for name in STARTED_WITH:
        told.update(Path(collections_root(), TEMPLATES, name).read_bytes())
    return told.hexdigest()
