"""docs/capabilities/api.md says what the code does: routes, fields, bounds, types of errors."""

from __future__ import annotations

from pathlib import Path

from holdfast_gateway.api import calls, constraints, endpoints, errors, fields, structure

PAGE = (Path(__file__).parents[3] / "docs/capabilities/api.md").read_text()


def test_every_route() -> None:
    for path in endpoints.ENDPOINTS:
        assert f"`POST {path}`" in PAGE


def test_every_field_that_is_not_the_clients() -> None:
    refused = set(fields._REFUSED) | fields._EMBEDDED
    for more in fields._REFUSED_AT.values():
        refused |= set(more)
    assert {name for name in fields.INTERNAL_FIELDS | refused if f"`{name}`" not in PAGE} == set()
    for kind in fields._TOOLS:
        assert f"`{kind}`" in PAGE


def test_every_bound() -> None:
    for bound in (
        calls._MOST_CHOICES,
        calls._MOST_PROMPTS,
        calls._MOST_MESSAGES,
        constraints._MOST_VALUES,
        constraints._LONGEST_PATTERN,
        constraints._MOST_REPEATS,
        constraints._MOST_LENGTHS,
        constraints._MOST_STOPS,
        constraints._LONGEST_STOP,
        fields._DEEPEST_CONTENT,
        structure._DEEPEST,
        structure._MOST_CONTAINERS,
        structure._MOST_KEYS,
        structure._MOST_VALUES,
    ):
        assert f" {bound:,}" in PAGE
    for size in (constraints._LARGEST_FORMAT, constraints._LARGEST_TOOLS):
        assert f"| {size // 1024} KiB" in PAGE


def test_every_type_of_anthropics() -> None:
    for status, kind in errors._ANTHROPIC_TYPES.items():
        row = next(line for line in PAGE.splitlines() if f"`{kind}`" in line and line[:2] == "| ")
        assert str(status) in row
