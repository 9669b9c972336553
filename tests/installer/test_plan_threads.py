"""Replicas on hosts with several memory nodes: each on a node of its own, and it stays there."""

from __future__ import annotations

import pytest
from site_parts import DATA, GIB, example_site, facts, manifest

from holdfast_installer.plan import Plan, make_plan
from holdfast_installer.plan.threads import cores
from holdfast_installer.survey import facts as f
from holdfast_installer.survey import parse

EXAMPLE = (DATA / "site-example.yml").read_text()
# As `survey` reads a machine with two sockets of 24 cores and two threads each.
TWO_SOCKETS = parse.numa(["0 0-23,48-71 263845820", "1 24-47,72-95 264220412"])
BIND = "VLLM_CPU_OMP_THREADS_BIND"


def plan(numa: object, count: int, text: str = EXAMPLE, **more: object) -> Plan:
    changes = {"numa": numa, "memory": f.Memory(total_bytes=512 * GIB, available_bytes=500 * GIB)}
    hosts = (
        facts("control-1"),
        facts("serving-1", **(changes | more)),
        facts("serving-2", **changes),
    )
    survey = f.Survey(site="quickstart", taken_at="2026-11-20T08:00:00Z", hosts=hosts)
    text = text.replace("replicas: 2", f"replicas: {count}")
    return make_plan(example_site(text), survey, manifest())


def nodes(made: Plan) -> dict[str, list[str | None]]:
    """Return, for each serving host, the memory node of each replica; None where unbound."""
    return {
        name: [
            one.env.get("CPU_VISIBLE_MEMORY_NODES") if one.env[BIND] == "auto" else None
            for one in host.replicas
        ]
        for name, host in made.hosts.items()
        if host.replicas
    }


def test_the_recorded_nodes_are_what_the_kernel_said() -> None:
    assert [(node.node, cores(node.cpus)) for node in TWO_SOCKETS] == [(0, 48), (1, 48)]


@pytest.mark.parametrize(("text", "count"), [("", 0), ("3", 1), ("0-7", 8), ("0-3,8,10-11", 7)])
def test_the_kernels_lists_are_counted(text: str, count: int) -> None:
    assert cores(text) == count


def test_each_replica_has_a_node_of_its_own_and_a_core_is_left_to_the_rest() -> None:
    made = plan(TWO_SOCKETS, 4)
    assert nodes(made) == {"serving-1": ["0", "1"], "serving-2": ["0", "1"]}
    replica = made.hosts["serving-1"].replicas[0]
    assert replica.env["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "1"
    # vLLM binds the threads of worker processes, never those of its server.
    assert replica.args["distributed_executor_backend"] == "mp"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in replica.env


def test_a_replica_more_than_there_are_nodes_moves_nobody() -> None:
    before, after = plan(TWO_SOCKETS, 4), plan(TWO_SOCKETS, 5)
    assert nodes(after) == {"serving-1": ["0", "1", None], "serving-2": ["0", "1"]}
    units = {one.unit for host in before.hosts.values() for one in host.replicas}
    assert units <= {one.unit for host in after.hosts.values() for one in host.replicas}


def test_a_replica_keeps_its_node_whatever_was_placed_before_it() -> None:
    first = plan(TWO_SOCKETS, 4)
    second = first.hosts["serving-1"].replicas[1]
    there = (
        f.ServedUnit(unit=second.unit, model=second.model, commit=second.commit, port=second.port),
    )
    again = plan(TWO_SOCKETS, 4, replicas=there)
    kept = next(one for one in again.hosts["serving-1"].replicas if one.number == second.number)
    assert (kept.unit, kept.port) == (second.unit, second.port)


@pytest.mark.parametrize(
    "numa",
    [
        parse.numa(["0 0-95 528066232"]),  # one node: nothing to stay close to
        parse.numa(["0 0-3 16000000", "1 4-7 16000000"]),  # nodes too small to spare a core
        parse.numa(["0 0-47 263845820", "1  264220412"]),  # memory without processors
        f.UNREAD,
    ],
)
def test_nothing_is_bound_where_it_would_gain_nothing_or_is_not_known(numa: object) -> None:
    made = plan(numa, 2)
    assert nodes(made) == {"serving-1": [None], "serving-2": [None]}
    assert made.hosts["serving-1"].replicas[0].args["distributed_executor_backend"] == "uni"


def test_what_the_site_arranges_itself_is_left_to_vllm() -> None:
    text = EXAMPLE.replace("max_model_len: 512", "max_model_len: 512, tensor_parallel_size: 2")
    assert nodes(plan(TWO_SOCKETS, 2, text)) == {"serving-1": [None], "serving-2": [None]}
