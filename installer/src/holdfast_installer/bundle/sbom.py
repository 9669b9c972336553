"""The software bill of materials: CycloneDX 1.6 JSON, the same bytes for the same manifest."""

from __future__ import annotations

import json
import re
import urllib.parse
import uuid
from typing import TYPE_CHECKING, Any  # CycloneDX is foreign JSON; its schema is checked by a test

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from holdfast_installer.bundle.digests import hex_of

if TYPE_CHECKING:
    from holdfast_installer.bundle.manifest import Artifact, Manifest

# Names that old wheel classifiers use, with their SPDX identifiers.
_CLASSIFIED = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
}


def render(manifest: Manifest) -> bytes:
    """Return the SBOM of a bundle; models count once, with their files inside."""
    components = [
        _component(artifact)
        for artifact in manifest.artifacts
        if artifact.kind in {"deb", "wheel", "collection", "docs"}
    ]
    by_model: dict[tuple[str, str], list[Artifact]] = {}
    for artifact in manifest.of_kind("model"):
        by_model.setdefault((artifact.name, artifact.version), []).append(artifact)
    components += [_model(files) for _, files in sorted(by_model.items())]
    unique = {component["bom-ref"]: component for component in components}
    serial = uuid.uuid5(uuid.NAMESPACE_URL, manifest.digest())
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "platform",
                "bom-ref": "holdfast-bundle",
                "name": "holdfast-bundle",
                "version": hex_of(manifest.digest())[:12],
            }
        },
        "components": [unique[ref] for ref in sorted(unique)],
        "dependencies": [{"ref": "holdfast-bundle", "dependsOn": sorted(unique)}],
    }
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _component(artifact: Artifact) -> dict[str, Any]:
    ref = _purl(artifact)
    return {
        "type": "library",
        "bom-ref": f"{ref}#{hex_of(artifact.digest)[:12]}",
        "name": artifact.name,
        "version": artifact.version,
        "purl": ref,
        "hashes": [{"alg": "SHA-256", "content": hex_of(artifact.digest)}],
        **_licences(artifact.licence),
        "properties": [
            {"name": "holdfast:kind", "value": artifact.kind},
            {"name": "holdfast:origin", "value": artifact.origin},
            *({"name": "holdfast:environment", "value": each} for each in artifact.environments),
        ],
    }


def _model(files: list[Artifact]) -> dict[str, Any]:
    first = files[0]
    ref = f"pkg:huggingface/{urllib.parse.quote(first.name, safe='/')}@{first.version}"
    return {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": first.name,
        "version": first.version,
        "purl": ref,
        **_licences(first.licence),
        "properties": [{"name": "holdfast:origin", "value": first.origin}],
        "components": [
            {
                "type": "file",
                "bom-ref": f"{ref}#{file.filename}",
                "name": file.filename,
                "hashes": [{"alg": "SHA-256", "content": hex_of(file.digest)}],
            }
            for file in sorted(files, key=lambda each: each.filename)
        ],
    }


def _purl(artifact: Artifact) -> str:
    version = urllib.parse.quote(artifact.version, safe="")
    if artifact.kind == "deb":
        return f"pkg:deb/debian/{artifact.name}@{version}?arch={artifact.architecture}"
    return f"pkg:pypi/{artifact.name}@{version}"


def _licences(stated: str) -> dict[str, Any]:
    """Return CycloneDX's licence field: an SPDX expression where it is one, else the words."""
    if not stated or stated == "not stated":
        return {}
    try:
        expression = canonicalize_license_expression(_CLASSIFIED.get(stated, stated))
    except InvalidLicenseExpression:
        return {"licenses": [{"license": {"name": re.sub(r"\s+", " ", stated)}}]}
    return {"licenses": [{"expression": str(expression)}]}
