from __future__ import annotations

import pytest
from site_parts import DATA, example_site, manifest, survey

from holdfast_installer.plan import make_plan
from holdfast_installer.plan.context_tokens import stated

STATED = "max_model_len: 512"
EXAMPLE = (DATA / "site-example.yml").read_text()


def planned(text: str, context: int | None) -> int | None:
    bundle = manifest()
    digests = {one.digest for one in bundle.of_kind("model") if one.filename == "config.json"}
    assert digests
    contexts = {} if context is None else dict.fromkeys(digests, context)
    (model,) = make_plan(example_site(text), survey(), bundle, contexts).models
    return model.context_tokens


def test_what_the_site_says_counts_and_else_the_model_itself() -> None:
    assert STATED in EXAMPLE
    assert planned(EXAMPLE, 2048) == 512
    unstated = EXAMPLE.replace(STATED, "enforce_eager: true")
    assert planned(unstated, 2048) == 2048
    assert planned(unstated, None) is None


@pytest.mark.parametrize(
    ("value", "tokens"), [("32k", 32_000), ("4K", 4096), (-1, None), ("auto", None), (True, None)]
)
def test_it_is_read_as_vllm_reads_it(value: int | str, tokens: int | None) -> None:
    assert stated({"max_model_len": value}) == tokens
