from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from holdfast_installer.bundle import sbom
from holdfast_installer.bundle.manifest import load

if TYPE_CHECKING:
    from pathlib import Path


def test_the_bill_of_materials_is_valid_cyclonedx(bundle: Path) -> None:
    text = (bundle / "sbom.cdx.json").read_text()
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"CycloneDX"', '"Cyclone"')) is not None


def test_everything_carried_is_listed_once_with_its_digest_and_licence(bundle: Path) -> None:
    manifest = load(bundle)
    components = json.loads((bundle / "sbom.cdx.json").read_text())["components"]
    by_name = {each["name"]: each for each in components}
    packaged = {each.name for each in manifest.artifacts if each.kind != "file"}
    assert set(by_name) == packaged
    assert len(components) == len(packaged)
    hello = by_name["hello"]
    assert hello["purl"] == "pkg:deb/debian/hello@1%3A2.0-1?arch=amd64"
    assert hello["licenses"] == [{"expression": "MIT"}]
    assert by_name["libhello"]["licenses"] == [{"license": {"name": "(GPL-2+ or Artistic)"}}]
    assert by_name["quick"]["licenses"] == [{"expression": "BSD-3-Clause"}]
    model = by_name["made/up"]
    assert model["type"] == "machine-learning-model"
    assert model["licenses"] == [{"expression": "Apache-2.0"}]
    assert {file["name"] for file in model["components"]} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "nested/notes.txt",
    }


def test_the_same_manifest_gives_the_same_bytes(bundle: Path) -> None:
    manifest = load(bundle)
    assert sbom.render(manifest) == sbom.render(manifest) == (bundle / "sbom.cdx.json").read_bytes()
