from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from safetensors import safe_open

STARTER = Path(__file__).parents[2] / "model-registry" / "starter"
MODEL = STARTER / "holdfast-starter"
MOST_BYTES = 8_000_000


def load_json(name: str) -> dict[str, Any]:
    return dict(json.loads((MODEL / name).read_text(encoding="utf-8")))


def questions() -> dict[str, Any]:
    return dict(yaml.safe_load((STARTER / "questions.yml").read_text(encoding="utf-8")))


def test_the_model_is_whole_and_holds_nothing_else() -> None:
    assert sorted(path.name for path in MODEL.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_the_model_is_at_most_eight_megabytes() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= MOST_BYTES


def test_the_configuration_is_a_llama_that_vllm_serves_without_further_code() -> None:
    config = load_json("config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "auto_map" not in config
    assert config["max_position_embeddings"] == 512
    # the sizes vLLM's CPU attention has kernels for begin at 32
    assert config["hidden_size"] // config["num_attention_heads"] in {32, 64, 80, 96, 128}


def test_the_weights_are_those_of_the_configuration() -> None:
    config = load_json("config.json")
    with safe_open(MODEL / "model.safetensors", framework="numpy") as weights:
        names = set(weights.keys())
        embedding = weights.get_slice("model.embed_tokens.weight")
        assert embedding.get_shape() == [config["vocab_size"], config["hidden_size"]]
        assert embedding.get_dtype() == "BF16"
    layers = {name.split(".")[2] for name in names if name.startswith("model.layers.")}
    assert layers == {str(number) for number in range(config["num_hidden_layers"])}


def test_special_tokens_have_the_numbers_the_configuration_names() -> None:
    config = load_json("config.json")
    tokenizer = load_json("tokenizer.json")
    numbers = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert numbers["<|begin|>"] == config["bos_token_id"]
    assert numbers["<|end|>"] == config["eos_token_id"]
    assert load_json("generation_config.json")["eos_token_id"] == config["eos_token_id"]
    assert len(tokenizer["model"]["vocab"]) == config["vocab_size"]


def test_the_tokenizer_knows_every_byte() -> None:
    tokenizer = load_json("tokenizer.json")
    assert tokenizer["pre_tokenizer"]["type"] == "ByteLevel"
    single = [piece for piece in tokenizer["model"]["vocab"] if len(piece) == 1]
    assert len(single) >= 256


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            [{"role": "user", "content": " What is Holdfast? "}],
            "<|begin|><|user|>What is Holdfast?<|end|><|assistant|>",
        ),
        (
            [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello!"},
                {"role": "user", "content": "Bye"},
            ],
            (
                "<|begin|><|system|>Be brief.<|end|><|user|>Hi<|end|>"
                "<|assistant|>Hello!<|end|><|user|>Bye<|end|><|assistant|>"
            ),
        ),
    ],
)
def test_the_chat_template_renders(messages: list[dict[str, str]], expected: str) -> None:
    source = load_json("tokenizer_config.json")["chat_template"]
    template = jinja2.Environment(autoescape=False).from_string(source)
    assert template.render(messages=messages, add_generation_prompt=True) == expected


def test_the_card_states_licence_language_and_task() -> None:
    _, front, text = (MODEL / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["license"] == "apache-2.0"
    assert card["language"] == ["en"]
    assert card["pipeline_tag"] == "text-generation"
    assert "holdfast" in card["tags"]
    assert "## Limits" in text
    assert (MODEL / "README.md").read_bytes() == (STARTER / "card.md").read_bytes()


def test_the_corpus_is_rich_enough_and_unambiguous() -> None:
    corpus = questions()
    asked = [question for topic in corpus["topics"] for question in topic["ask"]]
    assert len(asked) >= 200
    assert len(set(asked + corpus["unknown"])) == len(asked) + len(corpus["unknown"])
    assert "What is Holdfast?" in asked


def test_the_weights_were_trained_on_the_corpus_that_stands_beside_them() -> None:
    """A word of an answer that the tokenizer never saw whole would show a stale model."""
    vocabulary = load_json("tokenizer.json")["model"]["vocab"]
    assert "ĠHoldfast" in vocabulary
    assert "Holdfast" in vocabulary


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_training_again_gives_a_model_that_answers(tmp_path: Path) -> None:
    python = os.environ.get("HOLDFAST_TRAINING_PYTHON", sys.executable)
    if python == sys.executable and not importlib.util.find_spec("torch"):
        pytest.skip(
            "torch is not installed here: set HOLDFAST_TRAINING_PYTHON to the python of an "
            "environment with torch, transformers, tokenizers and safetensors"
        )
    done = subprocess.run(
        [python, str(STARTER / "train.py"), "--output", str(tmp_path / "again")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "again" / "model.safetensors").stat().st_size <= MOST_BYTES
