"""Replicas get GPUs of their own, or shares of one that add up; recorded nvidia-smi output."""

from __future__ import annotations

from pathlib import Path

import pytest
from site_parts import COMMIT, DATA, MODEL, example_site, facts, manifest

from holdfast_installer.plan import Plan, make_plan
from holdfast_installer.survey import facts as f
from holdfast_installer.survey.gpus import nvidia

TWO = tuple(nvidia(Path(__file__).parent.joinpath("survey/data/nvidia-smi.csv").read_text()))
SITE = (
    (DATA / "site-example.yml")
    .read_text()
    .replace("hardware: auto", "hardware: gpu-nvidia")
    .replace("  - {name: serving-2", "  # - {name: serving-2")
)
SECOND = """
  - {id: org/other, source: /models/other, pool: cpu, teams: [research], vllm: OPTIONS}
teams:"""


def plan(
    first: str = "{}",
    second: str = "",
    replicas: int = 1,
    there: tuple[f.ServedUnit, ...] = (),
    **changes: object,
) -> Plan:
    text = SITE.replace("{max_model_len: 512}", first).replace(
        "replicas: 2", f"replicas: {replicas}"
    )
    artifacts = list(manifest().artifacts)
    if second:
        text = text.replace("\nteams:", SECOND.replace("OPTIONS", second))
        artifacts += [
            one.model_copy(update={"name": "org/other"}) for one in manifest().of_kind("model")
        ]
    host = facts("serving-1", **{"gpus": TWO, "replicas": there, **changes})
    seen = f.Survey(
        site="quickstart", taken_at="2026-11-20T08:00:00Z", hosts=(facts("control-1"), host)
    )
    return make_plan(example_site(text), seen, manifest(artifacts=tuple(artifacts)))


def visible(made: Plan) -> list[str]:
    return [one.env["CUDA_VISIBLE_DEVICES"] for one in made.hosts["serving-1"].replicas]


def barred(made: Plan) -> list[str]:
    return [one.detail for one in made.blockers if one.name == "gpu-memory"]


def test_each_replica_has_a_gpu_of_its_own() -> None:
    made = plan(replicas=2)
    assert visible(made) == ["0", "1"]
    assert barred(made) == []
    # the order of the bus is the order in which the tool lists them
    assert made.hosts["serving-1"].replicas[0].env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_more_replicas_than_gpus_are_barred() -> None:
    (why,) = barred(plan(replicas=3))
    assert why == "holdfast-starter-2 wants 0.9 of 1 GPU; of the host's are left: 0.10, 0.10"


def test_a_model_over_two_gpus_takes_both() -> None:
    assert visible(plan("{tensor_parallel_size: 2}")) == ["0,1"]
    (why,) = barred(plan("{tensor_parallel_size: 2, pipeline_parallel_size: 2}"))
    assert "wants 0.9 of each of 4 GPUs" in why
    (why,) = barred(plan("{tensor_parallel_size: 2}", "{gpu_memory_utilization: 0.2}"))
    assert why.startswith("org-other-0 wants 0.2 of 1 GPU")


@pytest.mark.parametrize(("share", "fits"), [(0.3, True), (0.1, True), (0.4, False)])
def test_models_share_a_gpu_while_their_shares_add_up(share: float, *, fits: bool) -> None:
    one = (TWO[0],)
    made = plan("{gpu_memory_utilization: 0.7}", f"{{gpu_memory_utilization: {share}}}", gpus=one)
    assert (barred(made) == []) is fits


def test_ten_tenths_fit_on_one_gpu() -> None:
    assert barred(plan("{gpu_memory_utilization: 0.1}", replicas=10, gpus=(TWO[0],))) == []
    assert len(barred(plan("{gpu_memory_utilization: 0.1}", replicas=11, gpus=(TWO[0],)))) == 1


def test_weights_that_do_not_fit_in_the_share_are_barred() -> None:
    small = tuple(one.model_copy(update={"memory_bytes": 7_000_000}) for one in TWO)
    (why,) = barred(plan(gpus=small))
    assert "its weights are" in why


def standing(*devices: str) -> f.ServedUnit:
    return f.ServedUnit(
        unit="holdfast-starter-0-0123abcd", model=MODEL, commit=COMMIT, port=8400, devices=devices
    )


def test_a_replica_keeps_the_gpu_it_has_and_a_new_one_takes_the_other() -> None:
    assert visible(plan(there=(standing("1"),))) == ["1"]
    assert visible(plan(replicas=2, there=(standing("1"),))) == ["1", "0"]


def test_a_new_model_is_not_put_where_another_stands() -> None:
    other = standing("0").model_copy(update={"model": "org/other", "unit": "org-other-0-0123abcd"})
    assert visible(plan(second="{dtype: half}", there=(other,))) == ["1", "0"]


def test_two_generations_stand_beside_one_another_only_where_both_shares_fit() -> None:
    full = plan(there=(standing("0"),)).hosts["serving-1"].replacements
    half = plan("{gpu_memory_utilization: 0.5}", there=(standing("0"),))
    assert [one.beside for one in full] == [False]
    assert [one.beside for one in half.hosts["serving-1"].replacements] == [True]


def test_gpus_of_which_nothing_is_known_are_left_to_another_finding() -> None:
    unread = tuple(one.model_copy(update={"memory_bytes": f.UNREAD}) for one in TWO)
    made = plan(gpus=unread)
    assert "gpu" in {one.name for one in made.blockers}
    assert barred(made) == []
