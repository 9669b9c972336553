"""Profiles compose: the strictest value wins, and every value says where it comes from."""

from __future__ import annotations

from itertools import pairwise

import pytest
from site_parts import DATA, example_site

from holdfast_installer.errors import HoldfastError
from holdfast_installer.profiles import (
    Layer,
    Merge,
    Parameters,
    compose,
    describe,
    merge,
    operator_of,
)

EXAMPLE = (DATA / "site-example.yml").read_text()


def layer(**values: object) -> Layer:
    return Layer.model_validate({"summary": "made up", **values})


@pytest.mark.parametrize(
    ("parameter", "operator", "one", "other", "expected"),
    [
        ("log_retention_min_days", Merge.MAX, 30, 183, 183),
        ("log_retention_max_days", Merge.MIN, 365, 100, 100),
        ("tls_min_version", Merge.MAX, "1.3", "1.2", "1.3"),
        ("token_max_ttl_hours", Merge.MIN, 24, 720, 24),
        ("upstreams_allowed", Merge.ALL_TRUE, True, False, False),
        ("upstreams_allowed", Merge.ALL_TRUE, True, True, True),
        ("permitted_jurisdictions", Merge.INTERSECTION, ("de", "fr"), ("fr", "in"), ("fr",)),
        ("debian", Merge.UNION, ("a", "b"), ("b", "c"), ("a", "b", "c")),
        ("python", Merge.MUST_EQUAL, "3.11", "3.11", "3.11"),
        ("model_formats", Merge.INTERSECTION, ("text", "gguf"), ("gguf", "onnx"), ("gguf",)),
        ("model_unlisted", Merge.MAX, "refuse", "quarantine", "refuse"),
        ("model_pickle", Merge.MAX, "quarantine", "refuse", "refuse"),
        ("model_remote_code", Merge.MAX, "flag", "refuse", "refuse"),
        ("model_licences", Merge.INTERSECTION, ("mit", "x"), ("mit", "y"), ("mit",)),
        ("model_licences_denied", Merge.UNION, ("a",), ("b",), ("a", "b")),
        ("model_card_required", Merge.UNION, ("a",), ("b",), ("a", "b")),
        ("model_approvals", Merge.MAX, 1, 2, 2),
    ],
)
def test_each_operator(
    parameter: str, operator: Merge, one: object, other: object, expected: object
) -> None:
    assert operator_of(parameter) is operator
    both = merge({"a": layer(**{parameter: one}), "b": layer(**{parameter: other})})
    assert getattr(both, parameter) == expected
    turned = merge({"b": layer(**{parameter: other}), "a": layer(**{parameter: one})})
    assert set(_as_set(getattr(turned, parameter))) == set(_as_set(expected))


def _as_set(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize(
    ("parameter", "one", "other"),
    [
        ("python", "3.11", "3.12"),
        ("permitted_jurisdictions", ("de",), ("fr",)),
    ],
)
def test_a_contradiction_names_both_layers(parameter: str, one: object, other: object) -> None:
    with pytest.raises(HoldfastError, match=parameter) as caught:
        merge({"level/x": layer(**{parameter: one}), "sector/y": layer(**{parameter: other})})
    assert "level/x" in str(caught.value)
    assert "sector/y" in str(caught.value)


def test_a_retention_that_leaves_no_span_is_a_contradiction() -> None:
    with pytest.raises(HoldfastError, match="no permitted span") as caught:
        merge({"a": layer(log_retention_min_days=400), "b": layer(log_retention_max_days=365)})
    assert "of a" in str(caught.value)
    assert "of b" in str(caught.value)


def test_provenance_names_the_layers_that_decided() -> None:
    effective = compose(example_site(), hardware="cpu-low-power")
    assert effective.tls_min_version == "1.3"
    assert effective.provenance["tls_min_version"] == ("level/restricted",)
    assert effective.provenance["log_retention_min_days"] == (
        "jurisdiction/de",
        "level/restricted",
    )
    assert effective.provenance["wheels"] == ("hardware/cpu-low-power",)
    assert effective.basis["log_retention_min_days"] == (
        "Regulation (EU) 2024/1689 art. 19, 26(6)",
    )
    given = set(effective.parameters())
    assert given == set(effective.provenance)


def test_a_stricter_level_never_loosens_anything() -> None:
    levels = [
        compose(example_site(EXAMPLE.replace("level: restricted", f"level: {level}")))
        for level in ("baseline", "restricted", "sealed")
    ]
    for looser, stricter in pairwise(levels):
        assert (stricter.token_max_ttl_hours or 0) <= (looser.token_max_ttl_hours or 0)
        assert (stricter.tls_min_version or "") >= (looser.tls_min_version or "")
        assert (stricter.log_retention_min_days or 0) >= (looser.log_retention_min_days or 0)
        assert bool(stricter.upstreams_allowed) <= bool(looser.upstreams_allowed)
        assert set(stricter.model_formats or ()) <= set(looser.model_formats or ())
        assert (stricter.model_pickle or "") >= (looser.model_pickle or "")
        assert (stricter.model_unlisted or "") >= (looser.model_unlisted or "")
        assert (stricter.model_remote_code or "") >= (looser.model_remote_code or "")
        assert set(stricter.model_card_required or ()) >= set(looser.model_card_required or ())
        assert (stricter.model_approvals or 0) >= (looser.model_approvals or 0)


def test_every_parameter_is_described_and_has_an_operator() -> None:
    rows = {row["parameter"]: row for row in describe()}
    assert set(rows) == set(Parameters.model_fields)
    assert all(row["meaning"] and row["operator"] for row in rows.values())


def test_an_unknown_parameter_in_a_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="extra"):
        layer(colour="blue")
