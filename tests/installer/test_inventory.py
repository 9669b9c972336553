"""The inventory is what playbooks are written against: the example is kept equal to the code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from site_parts import DATA, HARDWARE_PACKAGES, example_site, manifest, survey

from holdfast_installer.errors import HoldfastError
from holdfast_installer.inventory import inventory_text, make_inventory
from holdfast_installer.plan import make_plan

EXAMPLE = DATA / "inventory-example.yml"
BUNDLE = Path("/media/bundle")


def test_the_example_is_what_the_code_makes() -> None:
    site = example_site()
    text = inventory_text(site, make_plan(site, survey(), manifest(HARDWARE_PACKAGES)), BUNDLE)
    if os.environ.get("HOLDFAST_WRITE_GOLDEN"):
        EXAMPLE.write_text(text)
    assert yaml.safe_load(EXAMPLE.read_text()) == yaml.safe_load(text)


def test_ansible_reads_it_and_groups_the_hosts(tmp_path: Path) -> None:
    site = example_site()
    path = tmp_path / "inventory.yml"
    path.write_text(inventory_text(site, make_plan(site, survey(), manifest()), BUNDLE))
    command = [sys.executable, "-m", "ansible", "inventory", "-i", str(path), "--list"]
    environment = {**os.environ, "ANSIBLE_LOCAL_TEMP": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert read["pool_cpu"]["hosts"] == ["serving-1", "serving-2"]
    assert read["control"]["hosts"] == ["control-1"]
    serving = read["_meta"]["hostvars"]["serving-1"]
    assert serving["host"]["replicas"][0]["unit"].startswith("holdfast-starter-0-")
    assert serving["profile"]["tls_min_version"] == "1.3"
    assert "StrictHostKeyChecking=yes" in serving["ansible_ssh_common_args"]


def test_a_value_that_ansible_would_read_as_a_template_is_refused() -> None:
    text = (DATA / "site-example.yml").read_text()
    site = example_site(text.replace("max_model_len: 512", 'chat_template: "{{ x }}"'))
    with pytest.raises(HoldfastError, match="template") as caught:
        make_inventory(site, make_plan(site, survey(), manifest()), BUNDLE)
    assert "chat_template" in caught.value.where


def test_another_user_than_root_becomes_root() -> None:
    text = (DATA / "site-example.yml").read_text()
    site = example_site(text.replace("user: root", "user: ops"))
    inventory = make_inventory(site, make_plan(site, survey(), manifest()), BUNDLE)
    assert inventory["all"]["hosts"]["control-1"]["ansible_become"] is True
