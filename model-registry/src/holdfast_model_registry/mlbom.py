"""The bill of materials of one revision: CycloneDX 1.6 with a machine-learning-model component.

The same revision gives the same document: serial number and time come from the commit, not from the
moment somebody asked.
"""

from __future__ import annotations

import re
import urllib.parse
import uuid
from typing import TYPE_CHECKING, Any, Final

from holdfast_hub_protocol.information import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast_hub_protocol.records import Commit, Entry
    from holdfast_model_registry.verification import Chain

SCHEMA: Final = "http://cyclonedx.org/schema/bom-1.6.schema.json"
# The identifiers of Hugging Face that are SPDX identifiers in lower case.
_SPDX: Final = {
    "afl-3.0": "AFL-3.0",
    "apache-2.0": "Apache-2.0",
    "artistic-2.0": "Artistic-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsl-1.0": "BSL-1.0",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nc-nd-4.0": "CC-BY-NC-ND-4.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0",
    "cc-by-nd-4.0": "CC-BY-ND-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc0-1.0": "CC0-1.0",
    "cdla-permissive-2.0": "CDLA-Permissive-2.0",
    "ecl-2.0": "ECL-2.0",
    "epl-2.0": "EPL-2.0",
    "eupl-1.2": "EUPL-1.2",
    "isc": "ISC",
    "mit": "MIT",
    "mpl-2.0": "MPL-2.0",
    "odbl": "ODbL-1.0",
    "pddl": "PDDL-1.0",
    "unlicense": "Unlicense",
    "zlib": "Zlib",
}
_ARCHITECTURE: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")


def render(chain: Chain, commit: Commit, files: Sequence[Entry]) -> dict[str, Any]:
    """Return the document of a revision, with what its chain says of lineage and labels."""
    ref = _purl(chain.model, commit.oid, chain.kind)
    is_model = chain.kind == "model"
    sources = {each["bom-ref"]: each for each in map(_source, chain.lineage)}
    component = {
        "type": "machine-learning-model" if is_model else "data",
        "bom-ref": ref,
        "name": chain.model,
        "version": commit.oid,
        "purl": ref,
        **_licences(commit.facts.get("cardData") or {}),
        **(_model(commit.facts, chain.lineage) if is_model else {}),
        **_pedigree(chain.lineage),
        "properties": _properties(chain.labels, chain.signature),
        "components": [_file(ref, entry) for entry in files],
    }
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ref)}",
        "version": 1,
        "metadata": {"timestamp": timestamp(commit.date), "component": component},
        "components": [sources[each] for each in sorted(sources)],
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(sources)},
            *({"ref": each} for each in sorted(sources)),
        ],
    }


def _model(facts: Mapping[str, Any], lineage: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    config, card = facts.get("config") or {}, facts.get("cardData") or {}
    parameters: dict[str, Any] = {}
    if isinstance(facts.get("pipeline_tag"), str):
        parameters["task"] = facts["pipeline_tag"]
    family = config.get("model_type")
    if isinstance(family, str) and _ARCHITECTURE.fullmatch(family):
        parameters["architectureFamily"] = family
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        parameters["modelArchitecture"] = architectures[0]
    datasets = [_source(each)["bom-ref"] for each in lineage if each["relation"] == "dataset"]
    if datasets:
        parameters["datasets"] = [{"ref": each} for each in dict.fromkeys(datasets)]
    languages = card.get("language")
    shown = languages if isinstance(languages, list) else [languages]
    properties = [
        {"name": "holdfast:language", "value": each} for each in shown if isinstance(each, str)
    ]
    total = (facts.get("safetensors") or {}).get("total")
    if isinstance(total, int):
        properties.append({"name": "holdfast:parameters", "value": str(total)})
    model_card: dict[str, Any] = {"modelParameters": parameters}
    if properties:
        model_card["properties"] = properties
    return {"modelCard": model_card}


def _pedigree(lineage: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ancestors = {
        each["bom-ref"]: {key: each[key] for key in ("type", "name", "version") if key in each}
        for each in (_source(base) for base in lineage if base["relation"] == "base_model")
    }
    if not ancestors:
        return {}
    return {"pedigree": {"ancestors": [ancestors[ref] for ref in sorted(ancestors)]}}


def _source(recorded: Mapping[str, Any]) -> dict[str, Any]:
    kind = "model" if recorded["relation"] == "base_model" else "dataset"
    name = recorded["repository"] or recorded["named"]
    version = recorded["commit"] or recorded["revision"]
    ref = _purl(name, version, kind)
    return {
        "type": "machine-learning-model" if kind == "model" else "data",
        "bom-ref": ref,
        "name": name,
        **({"version": version} if version else {}),
        "properties": [
            {"name": "holdfast:evidence", "value": recorded["evidence"]},
            {"name": "holdfast:known-here", "value": "yes" if recorded["repository"] else "no"},
            *(
                {"name": f"holdfast:{label}", "value": value}
                for label, value in sorted((recorded["labels"] or {}).items())
            ),
        ],
    }


def _file(ref: str, entry: Entry) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"{ref}#{urllib.parse.quote(entry.path)}",
        "name": entry.path,
        "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
        "properties": [{"name": "holdfast:size", "value": str(entry.size)}],
    }


def _properties(labels: Mapping[str, str], signature: Mapping[str, str]) -> list[dict[str, str]]:
    found = [
        {"name": f"holdfast:{label}", "value": value} for label, value in sorted(labels.items())
    ]
    if signature:
        found.append({"name": "holdfast:signature", "value": signature["state"]})
    if signature.get("signer"):
        found.append({"name": "holdfast:signer", "value": signature["signer"]})
    return found


def _licences(card: Mapping[str, Any]) -> dict[str, Any]:
    stated = card.get("license")
    listed = stated if isinstance(stated, list) else [stated]
    named = card.get("license_name")
    found = []
    for each in listed:
        if not isinstance(each, str) or not each.strip():
            continue
        text = named if each == "other" and isinstance(named, str) and named else each
        spdx = _SPDX.get(text.lower())
        found.append({"license": {"id": spdx} if spdx else {"name": re.sub(r"\s+", " ", text)}})
    return {"licenses": found} if found else {}


def _purl(name: str, version: str, kind: str) -> str:
    # Package URLs know models of a hub, and no data sets.
    prefix = "" if kind == "model" else "datasets/"
    ref = f"pkg:huggingface/{prefix}{urllib.parse.quote(name, safe='/')}"
    return f"{ref}@{urllib.parse.quote(version, safe='')}" if version else ref
