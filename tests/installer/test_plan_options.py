"""Engine options are those of the pinned vLLM, with values that it takes, before anything runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from site_parts import DATA, digest, example_site, manifest, survey, write_bundle

import holdfast_profiles
from holdfast_installer.bundle.digests import blob_path
from holdfast_installer.bundle.verify import VerifiedBundle
from holdfast_installer.inventory import make_inventory
from holdfast_installer.plan import Plan, make_plan
from holdfast_installer.plan.model_contexts import context, contexts
from holdfast_installer.plan.vllm_options import CLOSED, known_options, number, version_of
from holdfast_installer.profiles import hardware_profile

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = (DATA / "site-example.yml").read_text()


def plan(contexts_of: dict[str, int] | None = None, **options: Any) -> Plan:
    text = EXAMPLE.replace("vllm: {max_model_len: 512}", f"vllm: {json.dumps(options)}")
    return make_plan(example_site(text), survey(), manifest(), contexts_of)


def only(made: Plan) -> str:
    (finding,) = made.blockers
    assert finding.name == "vllm-option"
    assert finding.detail.startswith("holdfast/starter: ")
    return finding.detail.removeprefix("holdfast/starter: ")


@pytest.mark.parametrize(
    "options",
    [
        {"max_model_len": 4096, "enable_prefix_caching": False},
        {"max_model_len": "32k", "max_num_batched_tokens": "2K"},
        {"max_model_len": "auto"},
        {"gpu_memory_utilization": 1, "dtype": "bfloat16", "quantization": "awq"},
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 4}},
        {"compilation_config": {"mode": 0}, "cudagraph_capture_sizes": [1, 2, 4]},
        {"limit_mm_per_prompt": {"image": 2}, "hf_overrides": {"x": 1}},
    ],
)
def test_what_vllm_takes_is_taken(options: dict[str, Any]) -> None:
    assert plan(**options).blockers == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_modellen": 1}, "vLLM 0.32.0 has no option max_modellen; did you mean max_model_len"),
        ({"zzzz": 1}, "vLLM 0.32.0 has no option zzzz"),
        ({"max_num_seqs": "many"}, "max_num_seqs takes int; found 'many'"),
        ({"max_num_seqs": True}, "max_num_seqs takes int; found True"),
        ({"enforce_eager": 1}, "enforce_eager takes bool; found 1"),
        ({"max_model_len": "4k8"}, "takes a number such as 4096 or 32k"),
        ({"dtype": "bfloat"}, "dtype has no value 'bfloat'; did you mean float or bfloat16"),
        ({"speculative_config": "ngram"}, "speculative_config takes dict or list; found 'ngram'"),
        (
            {"speculative_config": {"method": "ngram", "num_speculative_token": 4}},
            "has no key num_speculative_token; did you mean num_speculative_tokens",
        ),
        (
            {"speculative_config": {"method": "eagle", "model": "org/draft"}},
            "asks for a second model (org/draft)",
        ),
        ({"speculative_config": {"method": "draft_model"}}, "asks for a second model"),
        ({"quantization": "gptqq"}, "has no quantization gptqq; did you mean gptq"),
        ({"gpu_memory_utilization": 1.5}, "a share between 0 and 1; found 1.5"),
        ({"middleware": ["a.b"]}, "middleware cannot be set: it loads programs"),
        ({"kv_transfer_config": {}}, "kv_transfer_config cannot be set"),
    ],
)
def test_what_vllm_would_refuse_is_refused_first(options: dict[str, Any], said: str) -> None:
    assert said in only(plan(**options))


def test_a_context_longer_than_the_models_own_is_refused() -> None:
    made_for = {digest("1"): 512}
    assert plan(made_for, max_model_len=512).blockers == ()
    assert only(plan(made_for, max_model_len=513)).startswith("max_model_len is 513, and")
    assert "says 512" in only(plan(made_for, max_model_len="1k"))


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"text_config": {"max_position_embeddings": 64}, "max_position_embeddings": 1}, 64),
        ({"max_position_embeddings": 512, "rope_scaling": {"rope_type": "yarn"}}, None),
        ({"max_position_embeddings": 512, "rope_scaling": {"factor": 4}}, None),
        ({"max_position_embeddings": 512, "rope_parameters": {"rope_type": "default"}}, 512),
        ({"max_position_embeddings": "512"}, None),
        ({"max_position_embeddings": True}, None),
        ([], None),
    ],
)
def test_a_models_own_context(config: object, length: int | None) -> None:
    assert context(config) == length


def test_contexts_are_read_from_the_bundle(tmp_path: Path) -> None:
    made = write_bundle(tmp_path)
    (config,) = [one for one in made.of_kind("model") if one.filename == "config.json"]
    bundle = VerifiedBundle(directory=tmp_path, manifest=made, digest="", signers=())
    assert contexts(bundle) == {}
    blob_path(tmp_path / "blobs", config.digest).write_text('{"max_position_embeddings": 77}')
    assert contexts(bundle) == {config.digest: 77}


def test_quantisation_that_the_hardware_has_not_is_refused() -> None:
    text = EXAMPLE.replace("hardware: auto", "hardware: gpu-intel").replace(
        "vllm: {max_model_len: 512}", "vllm: {quantization: torchao}"
    )
    details = [one.detail for one in make_plan(example_site(text), survey(), manifest()).blockers]
    assert "holdfast/starter: quantization torchao is not supported on gpu-intel" in details


def test_a_version_that_nobody_wrote_down_is_told_and_bars_nothing() -> None:
    text = EXAMPLE.replace("hardware: auto", "hardware: gpu-amd")
    made = make_plan(example_site(text), survey(), manifest())
    assert "vllm-option" not in {one.name for one in made.blockers}
    (note,) = [one for one in made.notes if one.name == "vllm-options"]
    assert "0.18.0" in note.detail


def test_a_dictionary_reaches_the_host_as_it_was_written() -> None:
    speculation = {"method": "ngram", "num_speculative_tokens": 4}
    text = EXAMPLE.replace(
        "vllm: {max_model_len: 512}", f"vllm: {json.dumps({'speculative_config': speculation})}"
    )
    site = example_site(text)
    made = make_plan(site, survey(), manifest())
    document = yaml.safe_load(yaml.safe_dump(make_inventory(site, made, DATA)))
    (replica,) = document["all"]["hosts"]["serving-1"]["host"]["replicas"]
    assert replica["args"]["speculative_config"] == speculation


@pytest.mark.parametrize("name", holdfast_profiles.names("hardware"))
def test_the_profiles_own_options_are_known(name: str) -> None:
    profile = hardware_profile(name)
    assert version_of(profile)
    known = known_options(version_of(profile))
    if known is not None:
        assert set(profile.vllm.args) <= set(known["options"])


def test_every_closed_option_is_one() -> None:
    known = known_options("0.32.0")
    assert known is not None
    assert set(CLOSED) <= set(known["options"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (7, 7),
        ("7", 7),
        ("25.6k", 25_600),
        ("2K", 2048),
        ("1G", 1024**3),
        ("auto", None),
        (True, None),
    ],
)
def test_numbers_as_vllm_reads_them(text: object, value: int | None) -> None:
    assert number(text) == value
