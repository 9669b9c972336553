"""A plan in order: placement, addresses, allow lists, sizes; a pure function of three inputs."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from site_parts import COMMIT, DATA, GIB, example_site, manifest, survey

from holdfast_installer.plan import Plan, make_plan
from holdfast_installer.plan.generations import unit_name
from holdfast_installer.survey.facts import UNREAD, Kernel

EXAMPLE = (DATA / "site-example.yml").read_text()
ROLES = Path(__file__).parents[2] / "playbooks/ansible_collections/holdfast/platform/roles"


def example_plan(text: str = EXAMPLE, **of_serving_1: object) -> Plan:
    return make_plan(example_site(text), survey(**of_serving_1), manifest())


def test_nothing_bars_the_example() -> None:
    assert example_plan().blockers == ()


def test_the_same_inputs_make_the_same_plan() -> None:
    assert example_plan() == example_plan()


def test_replicas_are_spread_over_the_pool_and_named() -> None:
    plan = example_plan(EXAMPLE.replace("replicas: 2", "replicas: 3"))
    placed = {
        (one.unit.rpartition("-")[0], one.host, one.port)
        for host in plan.hosts.values()
        for one in host.replicas
    }
    assert placed == {
        ("holdfast-starter-0", "serving-1", 8400),
        ("holdfast-starter-1", "serving-2", 8400),
        ("holdfast-starter-2", "serving-1", 8401),
    }
    (pool,) = plan.pools
    assert (pool.port, pool.metrics_port, pool.models) == (8200, 8300, ("holdfast/starter",))
    assert pool.workers == (
        "https://serving-1.quickstart.internal:8400",
        "https://serving-2.quickstart.internal:8400",
        "https://serving-1.quickstart.internal:8401",
    )


def test_unit_names_are_safe_everywhere() -> None:
    assert unit_name("Org.X/Some_Model-7B.v2", 11) == "org-x-some-model-7b-v2-11"


def test_an_operators_engine_option_wins_over_the_profiles() -> None:
    plan = example_plan(EXAMPLE.replace("max_model_len: 512", "dtype: half"))
    args = plan.hosts["serving-1"].replicas[0].args
    assert args["dtype"] == "half"
    assert args["disable_fastapi_docs"] is True


def test_only_a_host_on_which_a_model_compiles_gets_a_compiler() -> None:
    eager = example_plan().hosts["serving-1"]
    compiling = example_plan(EXAMPLE.replace("max_model_len: 512", "enforce_eager: false"))
    assert "libnuma1" in eager.debian
    assert "g++" not in eager.debian
    assert {"libnuma1", "g++"} <= set(compiling.hosts["serving-1"].debian)


def test_a_model_is_named_by_commit_and_files() -> None:
    (model,) = example_plan().models
    assert model.commit == COMMIT
    assert model.path == f"/var/lib/holdfast/vllm/models/holdfast/starter/{COMMIT}"
    assert [file.filename for file in model.files] == ["config.json", "model.safetensors"]
    assert model.bytes == sum(file.size for file in model.files) == 7_000_600


def test_names_and_certificates() -> None:
    plan = example_plan()
    values = {(one.name, one.type): one.value for one in plan.dns}
    assert values["hub.quickstart.internal", "A"] == "198.18.1.11"
    assert values["api.quickstart.internal", "AAAA"] == "fd98:12:1::11"
    assert values["serving-2.quickstart.internal", "A"] == "198.18.1.22"
    control = plan.hosts["control-1"].certificate
    assert {"hub.quickstart.internal", "control-1.quickstart.internal"} <= set(control.dns)
    assert control.ip == ("198.18.1.11", "fd98:12:1::11")
    serving = plan.hosts["serving-1"].certificate
    assert serving.dns == ("serving-1.quickstart.internal",)


def rules(plan: Plan, host: str, way: str) -> set[tuple[str, str, int, str]]:
    listed = getattr(plan.hosts[host].firewall, way)
    return {
        (rule.family, rule.protocol, port, peer)
        for rule in listed
        for port in rule.ports
        for peer in rule.peers
    }


def test_a_serving_host_reaches_its_control_host_and_nothing_else() -> None:
    plan = example_plan()
    assert plan.hosts["serving-1"].firewall.default == "deny"
    wanted = {("tcp", 443), ("tcp", 8443), ("tcp", 53), ("udp", 53), ("udp", 123)}
    assert rules(plan, "serving-1", "egress") == {
        (family, protocol, port, peer)
        for protocol, port in wanted
        for family, peer in (("ip", "198.18.1.11/32"), ("ip6", "fd98:12:1::11/128"))
    }


def test_only_the_control_host_reaches_vllm() -> None:
    ingress = rules(example_plan(), "serving-1", "ingress")
    assert {rule for rule in ingress if rule[2] == 8400} == {
        ("ip", "tcp", 8400, "198.18.1.11/32"),
        ("ip6", "tcp", 8400, "fd98:12:1::11/128"),
    }
    assert {rule[3] for rule in ingress if rule[2] == 22} == {"198.18.1.2/32", "fd98:12:1::2/128"}


def test_every_way_out_is_somebodys_way_in() -> None:
    plan = example_plan()
    addresses = {
        host.name: (f"{host.address}/32", f"{host.address6}/128") for host in plan.hosts.values()
    }
    for name in plan.hosts:
        for family, protocol, port, peer in rules(plan, name, "egress"):
            (other,) = [one for one, both in addresses.items() if peer in both]
            mine = addresses[name][0 if family == "ip" else 1]
            open_to = [
                allowed
                for kind, proto, number, allowed in rules(plan, other, "ingress")
                if (kind, proto, number) == (family, protocol, port)
            ]
            assert any(
                ip_network(mine).subnet_of(ip_network(allowed))  # type: ignore[arg-type]  # of one family, by the line above
                for allowed in open_to
            ), f"{name} may go to {other} {protocol}/{port} ({family}), which does not let it in"


def test_no_rule_lists_overlapping_peers() -> None:
    for host in example_plan().hosts.values():
        for rule in (*host.firewall.ingress, *host.firewall.egress):
            nets = [ip_network(peer) for peer in rule.peers]
            assert not any(a != b and a.overlaps(b) for a in nets for b in nets)


def test_upstreams_are_reached_only_where_the_level_allows_them() -> None:
    text = EXAMPLE + "dns: {upstreams: [10.9.9.9]}\ntime: {servers: [10.9.9.8]}\n"
    plan = example_plan(text)
    assert ("ip", "udp", 53, "10.9.9.9/32") in rules(plan, "control-1", "egress")
    assert ("ip", "udp", 123, "10.9.9.8/32") in rules(plan, "control-1", "egress")
    assert plan.dns_upstreams == ("10.9.9.9",)
    sealed = example_plan(text.replace("level: restricted", "level: sealed"))
    assert not any(rule[3].startswith("10.9.") for rule in rules(sealed, "control-1", "egress"))
    assert [one.name for one in sealed.blockers] == ["upstreams"]


def test_one_host_can_be_everything() -> None:
    lines = [line for line in EXAMPLE.splitlines() if "name: serving-" not in line]
    text = "\n".join(lines).replace("roles: [control]", "roles: [control, serving], pool: cpu")
    site = example_site(text)
    seen = survey()
    alone = seen.model_copy(update={"hosts": seen.hosts[:1]})
    plan = make_plan(site, alone, manifest())
    assert plan.blockers == ()
    host = plan.hosts["control-1"]
    assert [one.link for one in host.environments] == ["platform", "vllm"]
    assert [one.port for one in host.replicas] == [8400, 8401]
    assert host.firewall.egress == ()


def test_environments_and_release_are_named_by_digest() -> None:
    plan = example_plan()
    (serving,) = plan.hosts["serving-1"].environments
    assert serving.path == "/opt/holdfast/environments/vllm-cpu-low-power-bbbbbbbbbbbb"
    digest = plan.bundle_digest.removeprefix("sha256:")
    assert plan.release_path == f"/opt/holdfast/releases/{digest}"


def test_a_replica_needs_the_floor_its_weights_and_its_cache() -> None:
    host = example_plan().hosts["serving-1"]
    assert host.memory_bytes == 3 * GIB + 1 * GIB + 7_000_600
    two = example_plan(EXAMPLE.replace("replicas: 2", "replicas: 4")).hosts["serving-1"]
    assert two.memory_bytes == 2 * host.memory_bytes


@pytest.mark.parametrize(("container", "expected"), [(True, False), (False, True)])
def test_a_container_does_not_set_its_clock(container: bool, expected: bool) -> None:  # noqa: FBT001 - pytest passes by name
    kernel = Kernel(
        release="6.1", architecture="x86_64", virtualisation="none", container=container
    )
    assert example_plan(kernel=kernel).hosts["serving-1"].chrony_adjust_clock is expected


def test_every_step_is_a_role_and_every_role_a_step() -> None:
    steps = {step.capability for step in example_plan().steps}
    assert steps == {folder.name for folder in ROLES.iterdir() if folder.is_dir()}


def test_what_is_unread_and_bars_nothing_is_noted() -> None:
    plan = example_plan(power=UNREAD, numa=UNREAD)
    assert plan.blockers == ()
    assert {(note.host, note.verdict) for note in plan.notes} == {("serving-1", "inconclusive")}
    assert len(plan.notes) == 2


TWO_POOLS = EXAMPLE.replace(
    "roles: [serving], pool: cpu}\nmodels", "roles: [serving], pool: new}\nmodels"
)


def test_a_team_may_have_a_pool_of_its_own() -> None:
    further = "    replicas: 2\n    pools: [{pool: new, replicas: 2, teams: [research]}]"
    plan = example_plan(TWO_POOLS.replace("    replicas: 2", further))
    assert plan.blockers == ()
    (model,) = plan.models
    (new,) = model.pools
    assert (model.pool, model.replicas, model.slots) == ("cpu", 2, 256)
    assert (new.pool, new.replicas, new.slots, new.teams) == ("new", 2, 256, ("research",))
    assert [(pool.name, len(pool.workers)) for pool in plan.pools] == [("cpu", 2), ("new", 2)]
    numbers = {host.name: [one.number for one in host.replicas] for host in plan.hosts.values()}
    # each pool counts for itself: scaling one moves nothing of the other
    assert numbers == {"control-1": [], "serving-1": [0, 1], "serving-2": [1000, 1001]}


def test_replicas_say_how_many_they_serve_at_once_and_in_whose_order() -> None:
    replica = example_plan().hosts["serving-1"].replicas[0]
    assert replica.args["scheduling_policy"] == "priority"
    plan = example_plan(EXAMPLE.replace("max_model_len: 512", "max_num_seqs: 8"))
    assert [model.slots for model in plan.models] == [16]
