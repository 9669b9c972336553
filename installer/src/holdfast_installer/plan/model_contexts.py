"""How long a context the models of a bundle were made for, from their own config.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any  # Any: JSON

if TYPE_CHECKING:
    from holdfast_installer.bundle.verify import VerifiedBundle

CONFIG = "config.json"
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
SCALING = ("rope_scaling", "rope_parameters")


def contexts(bundle: VerifiedBundle) -> dict[str, int]:
    """Return tokens by the digest of config.json; what a file does not plainly say is left out."""
    found = {}
    for artifact in bundle.manifest.of_kind("model"):
        if artifact.filename == CONFIG:
            try:
                length = context(json.loads(bundle.blob(artifact.digest).read_bytes()))
            except (OSError, ValueError):
                continue  # the registry judges the file; here it only says nothing
            if length is not None:
                found[artifact.digest] = length
    return found


def context(config: Any) -> int | None:  # noqa: ANN401 - whatever somebody's JSON holds
    """Return the tokens that a config.json says, None where it scales them or does not say."""
    if not isinstance(config, dict):
        return None
    inner = config.get("text_config")
    if isinstance(inner, dict):
        return context(inner)
    for key in SCALING:
        scaled = config.get(key)
        if isinstance(scaled, dict) and scaled.get("rope_type", "default") != "default":
            return None
        if isinstance(scaled, dict) and "factor" in scaled:
            return None
    lengths = [config[key] for key in LENGTHS if type(config.get(key)) is int]
    return lengths[0] if lengths else None
