"""transformers: from_pretrained and push_to_hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from huggingface_hub import HfApi, PyTorchModelHubMixin
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
)

if TYPE_CHECKING:
    from hub import Hub


def scenario_from_pretrained(hub: Hub) -> None:
    config = AutoConfig.from_pretrained(hub.names["model"])
    assert config.model_type == "llama"
    tokenizer = AutoTokenizer.from_pretrained(hub.names["model"])
    assert tokenizer.decode(tokenizer("Holdfast holds fast")["input_ids"]).endswith("holds fast")
    model = AutoModel.from_pretrained(hub.names["model"])
    assert sum(each.numel() for each in model.parameters()) > 1_000_000


def scenario_generate(hub: Hub) -> None:
    tokenizer = AutoTokenizer.from_pretrained(hub.names["model"])
    commit = hub.api.model_info(hub.names["model"]).sha
    model = AutoModelForCausalLM.from_pretrained(hub.names["model"], revision=commit)
    asked = tokenizer("What is Holdfast?", return_tensors="pt")
    said = model.generate(**asked, max_new_tokens=4, do_sample=False)
    assert said.shape[1] == asked["input_ids"].shape[1] + 4
    assert GenerationConfig.from_pretrained(hub.names["model"]) is not None


def scenario_push_to_hub(hub: Hub) -> None:
    name = f"research/{hub.names['prefix']}-pushed"
    model = AutoModelForCausalLM.from_pretrained(hub.names["model"])
    model.push_to_hub(name, private=True)
    AutoTokenizer.from_pretrained(hub.names["model"]).push_to_hub(name)
    again = AutoModelForCausalLM.from_pretrained(name)
    for (path, here), there in zip(
        model.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(here, there), path
    assert AutoTokenizer.from_pretrained(name)("a b c") == AutoTokenizer.from_pretrained(
        hub.names["model"]
    )("a b c")


def scenario_push_a_model_as_a_pull_request(hub: Hub) -> None:
    name = f"research/{hub.names['prefix']}-pushed"
    model = AutoModelForCausalLM.from_pretrained(hub.names["model"])
    with torch.no_grad():
        next(iter(model.parameters())).add_(1)
    done = model.push_to_hub(name, create_pr=True, commit_message="Larger")
    proposed = AutoModelForCausalLM.from_pretrained(name, revision=done.pr_revision)
    assert torch.equal(next(iter(proposed.parameters())), next(iter(model.parameters())))
    HfApi().merge_pull_request(name, done.pr_num)
    merged = AutoModelForCausalLM.from_pretrained(name, force_download=True)
    assert torch.equal(next(iter(merged.parameters())), next(iter(model.parameters())))


class Tiny(torch.nn.Module, PyTorchModelHubMixin):
    """A model of one's own, that the client itself saves."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(size, size)


def scenario_a_model_of_ones_own(hub: Hub) -> None:
    name = f"research/{hub.names['prefix']}-mixin"
    model = Tiny(size=16)
    model.push_to_hub(name)
    assert torch.equal(Tiny.from_pretrained(name).layer.weight, model.layer.weight)


def scenario_no_such_model(hub: Hub) -> None:
    try:
        AutoConfig.from_pretrained(f"{hub.names['model']}-absent")
    except OSError as error:
        assert "is not a valid model identifier" in str(error), error  # noqa: PT017 - no pytest here
    else:
        raise AssertionError("a model that is not there was loaded")
