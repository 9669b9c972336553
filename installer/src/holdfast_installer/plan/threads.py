"""Which processor cores a replica computes on: one memory node each, where a host has several.

Threads that wander between memory nodes read their weights over the link between them. vLLM binds
its own threads, leaves a core of the node to its scheduler, and takes its memory there; it is told
which node. It does so only in worker processes of its own, so that what the profile saves with one
process is spent here.

Where a host has one node nothing is bound: there is nothing to stay close to, and every replica
would pin its threads to the same cores. Nor is a replica beyond the number of nodes, which leaves
the others where they are and takes what cores they leave idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_installer.survey.facts import UNREAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_installer.plan.model import VllmValue
    from holdfast_installer.survey.facts import HostFacts

BACKEND = "distributed_executor_backend"
# With less than this on a node, the core that is set aside is more than binding gains.
LEAST_CORES = 8
RESERVED = 1


def bind(
    facts: HostFacts,
    place: int,
    asked: Mapping[str, VllmValue],
    args: dict[str, VllmValue],
    env: dict[str, str],
) -> None:
    """Bind the replica of a host's `place`, counted from 0, in its `args` and `env`.

    `asked` are the site's own options for the model, which stand. A replica whose worker processes
    the site arranges itself (tensor parallelism, another backend) is left to vLLM.
    """
    if facts.numa == UNREAD or asked.keys() & {BACKEND, "tensor_parallel_size"}:
        return
    nodes = [node for node in facts.numa if cores(node.cpus) >= LEAST_CORES]
    if len(nodes) < 2 or place >= len(nodes):
        return
    args[BACKEND] = "mp"
    env.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    env["VLLM_CPU_OMP_THREADS_BIND"] = "auto"
    env["CPU_VISIBLE_MEMORY_NODES"] = str(nodes[place].node)
    env["VLLM_CPU_NUM_OF_RESERVED_CPU"] = str(RESERVED)


def cores(cpus: str) -> int:
    """Return how many processors the kernel's list names: "0-3,8" are five."""
    count = 0
    for part in filter(None, cpus.split(",")):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count
