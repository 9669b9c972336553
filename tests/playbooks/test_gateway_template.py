"""The gateway's template, filled with what a plan says, is a configuration that it can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import yaml

from holdfast_gateway import config as gateway_configuration
from holdfast_gateway.metering.tariff import Tariff
from holdfast_installer.site_budgets import Budget as SiteBudget
from holdfast_installer.site_budgets import BudgetRules

COLLECTION = Path(__file__).parents[2] / "playbooks/ansible_collections/holdfast/platform"
ROLE = COLLECTION / "roles/gateway"


def filled(**variables: Any) -> str:
    folder = jinja2.FileSystemLoader(ROLE / "templates")
    environment = jinja2.Environment(  # YAML, as Ansible renders it
        loader=folder, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["to_json"] = json.dumps
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    instance = defaults["gateway_instances"][0]
    return environment.get_template("gateway.yml.j2").render(
        {**defaults, "instance": instance, **variables}
    )


def model(**more: Any) -> dict[str, Any]:
    labels = {"jurisdiction": "de", "classification": "internal"}
    served = {"pool": "old", "replicas": 2, "slots": 256, "pools": []}
    return {"id": "org/model", "teams": ["a", "b"], "commit": "3f" * 20, **labels, **served, **more}


def read(text: str, folder: Path) -> gateway_configuration.Config:
    (folder / "gateway.yml").write_text(text)
    return gateway_configuration.load(folder / "gateway.yml")


def test_each_team_goes_to_the_pool_that_the_site_names(tmp_path: Path) -> None:
    new = {"pool": "new", "teams": ["a"], "replicas": 1, "slots": None}
    config = read(
        filled(
            gateway_models=[model(pools=[new]), model(id="org/other", slots=None)],
            gateway_pools={"old": 8200, "new": 8201},
            gateway_fairness={"gateways": 2, "teams": {"a": {"weight": 2, "concurrency": None}}},
        ),
        tmp_path,
    )
    served = config.models_by_id["org/model"]
    for team, port, slots in (("a", 8201, None), ("b", 8200, 256), (None, 8200, 256)):
        pool = served.pool_of(team)
        assert (pool.upstream, pool.slots) == (f"http://127.0.0.1:{port}", slots)
    assert config.models_by_id["org/other"].slots is None
    assert config.fairness.gateways == 2
    assert config.fairness.teams["a"].weight == 2
    # one key for all gateways of the host
    assert str(config.salt_key) == "/var/lib/holdfast/gateway/cache_salt.key"


def test_a_site_without_models_is_read_too(tmp_path: Path) -> None:
    assert read(filled(), tmp_path).models == ()


def test_prices_revisions_and_the_door_for_metrics(tmp_path: Path) -> None:
    prices = {"prompt": "0.5", "cached": None, "completion": "1.25"}
    config = read(
        filled(
            gateway_models=[model(), model(id="org/free")],
            gateway_pools={"old": 8200},
            gateway_currency="CHF",
            gateway_tariffs={"org/model": prices},
        ),
        tmp_path,
    )
    assert config.models_by_id["org/model"].revision == "3f" * 20
    assert str(config.models_by_id["org/model"].tariff) == str(Tariff(**prices))
    assert config.models_by_id["org/free"].tariff is None
    assert (config.currency, config.metrics) == ("CHF", "127.0.0.1:8121")
    assert config.prometheus == "http://127.0.0.1:9090"


def test_budgets_are_those_of_the_site(tmp_path: Path) -> None:
    site = SiteBudget.model_validate({"team": "a", "cost": "0.25", "per": "month"})
    config = read(
        filled(
            gateway_models=[model(context_tokens=4096)],
            gateway_pools={"old": 8200},
            gateway_tariffs={"org/model": {"prompt": "1", "cached": None, "completion": "2"}},
            gateway_budgets=[site.model_dump(mode="json")],
            gateway_budget_rules=BudgetRules(grace_seconds=0).model_dump(mode="json"),
        ),
        tmp_path,
    )
    (budget,) = config.budgets
    assert budget.words("a", "EUR") == "team 'a': 0.25 EUR a month"
    assert config.budget_rules.grace_seconds == 0
    assert config.models_by_id["org/model"].context_tokens == 4096
