"""How many tokens prompt and answer of a model can be together, for gateways to reserve by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_installer.plan.model_contexts import CONFIG
from holdfast_installer.plan.vllm_options import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from holdfast_installer.plan.model import PlannedModel
    from holdfast_installer.site import VllmValue


def with_context(
    planned: Sequence[PlannedModel],
    options: Mapping[str, Mapping[str, VllmValue]],
    contexts: Mapping[str, int],
) -> Iterator[PlannedModel]:
    """Yield the models with their context; `options` are vLLM's by model, `contexts` by digest.

    What the site says counts, else what the model's config.json plainly says; else it is unknown.
    """
    for model in planned:
        digest = next((one.digest for one in model.files if one.filename == CONFIG), "")
        known = stated(options.get(model.id, {})) or contexts.get(digest)
        yield model.model_copy(update={"context_tokens": known})


def stated(options: Mapping[str, VllmValue]) -> int | None:
    """Return the max_model_len that vLLM's options state; none where vLLM is to find out."""
    length = number(options.get("max_model_len"))
    return length if length is not None and length > 0 else None
