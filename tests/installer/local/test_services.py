from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from site_parts import DATA, example_site

from holdfast_gateway import config as gateway_configuration
from holdfast_installer.local import services
from holdfast_installer.local.layout import Layout
from holdfast_installer.profiles import hardware_profile

if TYPE_CHECKING:
    from pathlib import Path

HARDWARE = hardware_profile("cpu-low-power")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "state")
    made.prepare()
    return made


@pytest.fixture
def programs(tmp_path: Path) -> services.Programs:
    return services.Programs(tmp_path / "platform", tmp_path / "vllm", tmp_path / "libraries")


def test_the_gateway_reads_what_is_written_for_it(layout: Layout) -> None:
    site = example_site()
    ports = {name: 9000 + number for number, name in enumerate(services.port_names(site))}
    services.write_gateway(layout, site, ports)
    read = gateway_configuration.load(layout.gateway)
    assert set(read.models_by_id) == {model.id for model in site.models}
    model = site.models[0]
    written = read.models_by_id[model.id]
    assert written.upstream == f"http://127.0.0.1:{ports[f'balancer-{model.pool}']}"
    assert written.teams == model.teams
    assert written.labels.jurisdiction == site.jurisdiction
    assert layout.gateway.stat().st_mode & 0o077 == 0


def test_the_gateway_reads_the_sites_budgets(layout: Layout) -> None:
    text = (DATA / "site-example.yml").read_text()
    model = example_site().models[0].id
    text += f"""
currency: CHF
tariffs: {{{model}: {{prompt: 0.5, completion: 1.5}}}}
budgets:
  - {{user: "*", cost: 2.5, per: day}}
  - {{everybody: true, concurrency: 8, model: {model}}}
budget_rules: {{grace_seconds: 5}}
"""
    site = example_site(text)
    ports = {name: 9000 + number for number, name in enumerate(services.port_names(site))}
    services.write_gateway(layout, site, ports)
    read = gateway_configuration.load(layout.gateway)
    assert [(each.measure, each.limit) for each in read.budgets] == [
        ("cost", 2_500_000),
        ("concurrency", 8),
    ]
    assert (read.currency, read.budget_rules.grace_seconds) == ("CHF", 5)
    assert read.models_by_id[model].context_tokens == 512


def test_vllm_gets_every_switch_of_the_profile_and_none_of_our_own_environment(
    layout: Layout, programs: services.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_operator")
    model = example_site().models[0]
    placed = services.Placed(model=model, commit="3f" * 20, folder=layout.models / "m")
    ports = {services.vllm_name(model): 9123}
    made = services.vllm(layout, programs, HARDWARE, placed, ports)
    assert made.environment.items() >= HARDWARE.vllm.env.items()
    assert made.environment["HF_HUB_OFFLINE"] == "1"
    assert "HF_TOKEN" not in made.environment
    command = " ".join(made.command)
    assert f"--model {layout.models / 'm'} " in command
    assert f"--served-model-name {model.id} --host 127.0.0.1 --port 9123" in command
    assert "--enforce-eager" in command
    assert "--allowed-media-domains none.invalid" in command
    # without this, a machine with no compiler loses its engine to one request for logprobs
    assert made.environment["TORCHDYNAMO_DISABLE"] == "1"


def test_options_are_written_as_vllm_reads_them() -> None:
    options = {"max_model_len": 512, "enable_prefix_caching": False, "disable_log_stats": True}
    assert services._flags(dict(options)) == [
        *("--max-model-len", "512"),
        "--no-enable-prefix-caching",
        "--disable-log-stats",
    ]


def test_everything_listens_on_loopback_alone(layout: Layout, programs: services.Programs) -> None:
    site = example_site()
    ports = {name: 9000 + number for number, name in enumerate(services.port_names(site))}
    made = [
        services.registry(layout, programs, site, ports),
        services.gateway(layout, programs, ports),
        services.console(layout, programs, ports),
        *services.balancers(layout, programs, site, ports),
    ]
    assert all(each.probe.startswith("http://127.0.0.1:") for each in made)
    assert not any("0.0.0.0" in part for each in made for part in each.command)
