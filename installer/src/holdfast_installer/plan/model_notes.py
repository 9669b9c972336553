"""What the names of a model's files let one expect of the registry, before it looks at content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_installer.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast_installer.plan.model import PlannedModel
    from holdfast_installer.profiles import EffectiveProfile

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
UNLISTED = (
    *(".h5", ".msgpack", ".ot", ".tflite", ".pb", ".npz", ".zip", ".tar", ".gz", ".7z", ".rar"),
    *(".xz", ".zst", ".bz2", ".exe", ".so", ".dll"),
)
SHOWN = 3


def model_notes(models: Sequence[PlannedModel], profile: EffectiveProfile) -> Iterator[Finding]:
    """Yield what may keep a model from being served; the registry decides by content."""
    for model in models:
        for kind, suffixes, rule in (
            ("Python pickles", PICKLES, profile.model_pickle),
            ("of no listed format", UNLISTED, profile.model_unlisted),
        ):
            names = [one.filename for one in model.files if one.filename.endswith(suffixes)]
            if names and rule is not None:
                outcome = "refuses them" if rule == "refuse" else "holds the model in quarantine"
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                yield _note(
                    "model-format",
                    f"{model.id}: {', '.join(names[:SHOWN])}{more} look like files {kind}; "
                    f"if they are, the registry {outcome}",
                    "carry a revision without them: a folder as models[].source in site.yml",
                )
        if profile.model_approvals == 2:
            yield _note(
                "model-approval",
                f"{model.id}: your word counts as one of two; unless it was approved before, apply "
                "imports it and does not serve it yet",
                f"holdfast model approve {model.id} --token-file FILE, then apply again",
            )


def _note(name: str, detail: str, fix: str) -> Finding:
    return Finding(name=name, verdict="inconclusive", detail=detail, fix=fix)
