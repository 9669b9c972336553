"""`holdfast init` writes a site file that reads back, and never over one that is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from holdfast_installer.errors import HoldfastError
from holdfast_installer.init import init
from holdfast_installer.site_file import load_site

if TYPE_CHECKING:
    from pathlib import Path

FLAGS = (
    "--name", "office", "--jurisdiction", "fr", "--operators", "10.0.0.0/24",
    "--host", "control-1=10.0.0.11=control", "--host", "serving-1=10.0.0.21=serving=edge",
)  # fmt: skip


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(init, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_flags_become_a_site_that_reads_back(tmp_path: Path) -> None:
    model = tmp_path / "starter"
    model.mkdir()
    path = tmp_path / "site.yml"
    run(
        *FLAGS, "--model", f"holdfast/starter={model}", "--team", "research=ada,bo",
        "--level", "sealed", "--hardware", "cpu-low-power", "--output", str(path),
    )  # fmt: skip
    site = load_site(path)
    assert (site.name, site.domain, site.jurisdiction) == ("office", "office.internal", "fr")
    assert site.profiles.level == "sealed"
    assert site.models[0].source == str(model)
    assert (site.models[0].pool, site.models[0].replicas) == ("edge", 1)
    assert site.models[0].teams == ("research",)
    assert site.teams[0].users == ("ada", "bo")
    assert site.networks.users == site.networks.operators
    assert "# may use SSH" in path.read_text()


def test_a_lab_gives_hosts_keys_networks_and_canary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path))
    folder = tmp_path / "lab" / "dev"
    folder.mkdir(parents=True)
    lab = {
        "name": "dev",
        "index": 3,
        "hosts": [
            {
                "name": name,
                "address": f"198.18.3.{number}",
                "address6": f"fd98:12:3::{number}",
                "namespace": f"hf-dev-{name}",
                "pid": 1,
            }
            for name, number in (("control-1", 11), ("serving-1", 21), ("serving-2", 22))
        ],
        "ssh": {"private_key": "/lab/id", "known_hosts": "/lab/known", "user": "root"},
        "canary": {
            "ipv4": "192.0.2.1",
            "ipv6": "2001:db8::1",
            "tcp_port": 7007,
            "udp_port": 7007,
            "control": "http://198.18.3.1:7000",
            "namespace": "hf-dev-canary",
        },
    }
    (folder / "lab.json").write_text(json.dumps(lab))
    path = tmp_path / "site.yml"
    run("--lab", "dev", "--jurisdiction", "de", "--model", "a/b=c/d", "--output", str(path))
    site = load_site(path)
    assert [host.roles for host in site.hosts] == [("control",), ("serving",), ("serving",)]
    assert str(site.hosts[1].address6) == "fd98:12:3::21"
    assert str(site.ssh.known_hosts) == "/lab/known"
    assert site.models[0].replicas == 2
    assert site.canary is not None
    assert str(site.canary.ipv4) == "192.0.2.1"
    assert [str(network) for network in site.networks.operators] == [
        "198.18.3.2/32",
        "fd98:12:3::2/128",
    ]


def test_one_host_of_two_roles_on_this_machine_needs_no_network(tmp_path: Path) -> None:
    path = tmp_path / "site.yml"
    host = "local=127.0.0.1=control+serving=local"
    run("--name", "alone", "--jurisdiction", "in", "--host", host, "--output", str(path))
    assert load_site(path).hosts[0].roles == ("control", "serving")


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "site.yml"
    path.write_text("mine\n")
    with pytest.raises(HoldfastError, match="left as it is") as caught:
        run(*FLAGS, "--output", str(path))
    assert caught.value.exit_code == 2
    assert path.read_text() == "mine\n"
    run(*FLAGS, "--output", str(path), "--force")
    assert load_site(path).name == "office"


def test_answers_that_make_no_site_write_nothing(tmp_path: Path) -> None:
    path = tmp_path / "site.yml"
    with pytest.raises(HoldfastError, match="nothing was written") as caught:
        run(*FLAGS, "--host", "control-1=10.0.0.12=serving", "--output", str(path))
    assert "host name 'control-1' is used twice" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags",
    [("--host", "a=b"), ("--team", "research"), ("--model", "holdfast/starter")],
)
def test_a_flag_of_another_shape_says_what_is_expected(
    tmp_path: Path, flags: tuple[str, str]
) -> None:
    with pytest.raises(HoldfastError, match="is expected"):
        run(*FLAGS, *flags, "--output", str(tmp_path / "site.yml"))


def test_without_a_terminal_a_missing_answer_is_an_error_not_a_wait(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="answer is missing: Hosts"):
        run("--name", "x", "--jurisdiction", "de", "--output", str(tmp_path / "site.yml"))


def test_json_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "site.yml"
    assert json.loads(run(*FLAGS, "--output", str(path), "--json").stdout) == {"site": str(path)}


def test_a_word_that_yaml_reads_as_something_else_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "site.yml"
    run(*FLAGS, "--team", "true=no,null", "--output", str(path))
    assert load_site(path).teams[0].users == ("no", "null")
