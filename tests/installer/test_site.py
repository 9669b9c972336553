"""What must agree between the fields of a site, each rule broken once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from site_parts import DATA, example_site

from holdfast_installer.site import Site
from holdfast_installer.site_file import SiteError, load_site

EXAMPLE = (DATA / "site-example.yml").read_text()
SCHEMA = Path(__file__).parents[2] / "docs/reference/site.schema.json"


def problems(old: str, new: str) -> list[str]:
    assert old in EXAMPLE, "the test spoils nothing"
    with pytest.raises(SiteError) as caught:
        example_site(EXAMPLE.replace(old, new))
    return caught.value.problems


def test_the_example_is_in_order_and_frozen() -> None:
    site = example_site()
    assert site.pools() == ("cpu",)
    assert [host.name for host in site.in_pool("cpu")] == ["serving-1", "serving-2"]
    with pytest.raises(ValueError, match="frozen"):
        site.name = "other"  # type: ignore[misc]  # that it cannot be set is the test


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: serving-2", "name: serving-1", "host name 'serving-1' is used twice"),
        ("address: 198.18.1.22", "address: 198.18.1.21", "address '198.18.1.21' is used twice"),
        ('"fd98:12:1::22"', '"fd98:12:1:0::21"', "address 'fd98:12:1::21' is used twice"),
        ("name: control-1", "name: Control_1", "expected text like control-1"),
        ("name: control-1", f"name: {'a' * 64}", "expected text like control-1"),
        ("name: control-1", "name: hub", "'hub' is the name of a service"),
        ("roles: [control]", "roles: [serving]", "at least one host must carry the role control"),
        ("roles: [serving], pool: cpu", "roles: [serving]", "a serving host needs a pool"),
        ("roles: [control]", "roles: [control], pool: cpu", "only a host with the role serving"),
        ("    pool: cpu", "    pool: gpu", "no such pool: 'gpu'; known pools: cpu"),
        ("teams: [research]", "teams: [physics]", "no such team: 'physics'; known teams: research"),
        ("replicas: 2", "replicas: 0", "greater than or equal to 1"),
        ("replicas: 2", "replicas: yes", "a whole number is expected"),
        ("198.18.1.2/32", "198.18.1.2/24", "value is not a valid IPv4 or IPv6 network"),
        ("198.18.1.0/24", "198.18.1.0/33", "value is not a valid IPv4 or IPv6 network"),
        ("jurisdiction: de", "jurisdiction: xx", "known jurisdictions are de, fr, in, us-ma"),
        ("level: restricted", "level: secret", "expected 'baseline', 'restricted' or 'sealed'"),
        ("sector: null", "sector: bank", "sector profiles shipped: none yet"),
        ("max_model_len: 512", "host: 0.0.0.0", "host is set by the platform"),
        ("max_model_len: 512", "trust_remote_code: true", "trust_remote_code is set by the"),
        ("max_model_len: 512", "scheduling_policy: fcfs", "scheduling_policy is set by the"),
        (
            "    replicas: 2",
            "    pools: [{pool: gpu, teams: [research]}]",
            "no such pool: 'gpu'; known pools: cpu",
        ),
        ("    replicas: 2", "    pools: [{pool: cpu, teams: [research]}]", "'cpu' is used twice"),
        ("    replicas: 2", "    pools: [{pool: cpu, teams: [press]}]", "'press' is not among"),
        ("    replicas: 2", "    pools: [{pool: cpu, teams: []}]", "at least 1"),
        ("id: holdfast/starter", "id: starter", "expected text like organisation/name"),
        ("users: [ada]", "users: [research]", "'research' is a user; users, services and teams"),
        ("users: [ada]", "users: [ada, ada]", "in team research, user 'ada' is used twice"),
        ("domain: quickstart.internal", "domain: internal", "expected text like lab.internal"),
        ("ipv4: 192.0.2.1", "ipv4: 192.0.2", "valid IPv4 address"),
    ],
)
def test_each_disagreement_is_named_where_it_stands(old: str, new: str, expected: str) -> None:
    found = problems(old, new)
    assert any(expected in problem for problem in found), found
    line = next(i for i, text in enumerate(EXAMPLE.splitlines(), 1) if old in text)
    whole_list = "at least one host" in expected
    assert whole_list or f"site-example.yml:{line}:" in "\n".join(found)


def test_relative_paths_are_taken_from_the_site_files_folder(tmp_path: Path) -> None:
    text = EXAMPLE.replace("/keys/id_ed25519", "keys/id").replace(
        "/models/holdfast", "./m/holdfast"
    )
    (tmp_path / "site.yml").write_text(text)
    before = Path.cwd()
    os.chdir("/")
    try:
        site = load_site(tmp_path / "site.yml")
    finally:
        os.chdir(before)
    assert site.ssh.private_key == tmp_path / "keys/id"
    assert site.models[0].source == str(tmp_path / "m/holdfast-starter")


def test_a_hub_source_stays_as_it_is() -> None:
    site = example_site(EXAMPLE.replace("/models/holdfast-starter", "org/some-model"))
    assert site.models[0].source == "org/some-model"
    assert not site.models[0].is_local


def test_the_exported_schema_is_the_models() -> None:
    assert json.loads(SCHEMA.read_text()) == Site.model_json_schema(), "run `make docs`"
