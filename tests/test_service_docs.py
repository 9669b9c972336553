"""A command, setting, error code or event of a service without a line in its page fails here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast_console import cli as console_cli
from holdfast_gateway import cli as gateway_cli
from holdfast_gateway.config import Config, Limits, Model, Trust
from holdfast_model_registry import cli as registry_cli
from holdfast_model_registry.settings import Settings

if TYPE_CHECKING:
    import click

ROOT = Path(__file__).parents[1]
CAPABILITIES = ROOT / "docs/capabilities"
PAGES = {
    name: (CAPABILITIES / f"{name}.md").read_text()
    for name in ("console", "gateway", "model_registry", "identity", "ledger")
}
# The registry's page is split by subject.
PAGES["model_registry"] += "".join(
    path.read_text()
    for path in sorted(CAPABILITIES.glob("registry_*.md"))
    + sorted(CAPABILITIES.glob("model_p*.md"))
    + [CAPABILITIES / "replication.md"]
)
PAGES["identity"] += "".join(
    (CAPABILITIES / f"{name}.md").read_text() for name in ("agents", "kill")
)
SOURCES = {
    "gateway": ROOT / "gateway/src",
    "model_registry": ROOT / "model-registry/src",
    "identity": ROOT / "trust/src",
}


def text_of(capability: str) -> str:
    paths = sorted(SOURCES[capability].rglob("*.py"))
    # The ledger itself knows no events; its docstring shows one as an example.
    return "".join(path.read_text() for path in paths if path.parent.name != "ledger")


@pytest.mark.parametrize(
    ("capability", "program", "group"),
    [
        ("console", "holdfast-console", console_cli.main),
        ("gateway", "holdfast-gateway", gateway_cli.main),
        ("model_registry", "holdfast-model-registry", registry_cli.main),
    ],
)
def test_every_command_and_option_has_a_word(
    capability: str, program: str, group: click.Group
) -> None:
    assert group.commands
    for name, command in group.commands.items():
        assert f"{program} {name}" in PAGES[capability]
        for option in command.params:
            if option.param_type_name == "argument":
                assert option.opts[0].upper() in PAGES[capability], f"{program} {name}"
                continue
            long = next(word for word in option.opts if word.startswith("--"))
            assert long in PAGES[capability], f"{program} {name} {long}"


def test_every_setting_has_a_word() -> None:
    for model in (Config, Trust, Model):
        for field in model.model_fields:
            assert f"{field}:" in PAGES["gateway"], field
    for field in Limits.model_fields:
        assert f"| `{field}` |" in PAGES["gateway"], field
    page = PAGES["model_registry"]
    for field in Settings.model_fields:  # options, or keys of the configuration file alone
        named = {f"--{field.replace('_', '-')}", f"`{field}`", f"\n{field}:"}
        assert any(name in page for name in named), field


def test_every_error_code_of_the_gateway_has_a_word() -> None:
    codes = set(re.findall(r'\bcode(?:: str)?\s*=\s*"([a-z_]+)"', text_of("gateway")))
    assert len(codes) > 15
    assert {code for code in codes if f"`{code}`" not in PAGES["gateway"]} == set()


@pytest.mark.parametrize("capability", SOURCES)
def test_every_event_has_a_word(capability: str) -> None:
    text = text_of(capability)
    events = set(re.findall(r'"action": "([a-z.-]+)"', text))
    events |= set(re.findall(r'\.record\(\s*"([a-z.-]+)"', text))
    assert events
    assert {event for event in events if f"`{event}`" not in PAGES[capability]} == set()
