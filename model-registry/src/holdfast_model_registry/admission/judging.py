"""From what the files of a revision are to what the policy says of it; nothing is read here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast_model_registry.admission.findings import Action, Finding
from holdfast_model_registry.formats import observation as formats

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdfast_model_registry.admission.policy import ModelPolicy
    from holdfast_model_registry.formats import Observation

CARD: Final = "README.md"
_STRICT: Final = {"refuse": Action.REFUSE, "quarantine": Action.HOLD, "flag": Action.FLAG}
_PICKLE: Final = (
    "a Python pickle, which can run programs when it is loaded: "
    "save as safetensors, or leave it out"
)
# Names that Windows takes for devices, with or without a suffix.
_DEVICES: Final = re.compile(r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")


@dataclass(frozen=True)
class Revision:
    """All that a judgement rests on: every file's observation, by path, and the card.

    `changed` are the paths that are proposed now: only what is new can be refused; what was there
    already, under a milder policy, is held. `disagreements` are (path, why) between files.
    """

    observations: Mapping[str, Observation]
    changed: frozenset[str]
    card: Mapping[str, Any] | None
    disagreements: tuple[tuple[str, str], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def judge(revision: Revision, policy: ModelPolicy) -> list[Finding]:
    """Return every finding, gravest first, then by path."""
    found = [
        *_files(revision, policy),
        *(Finding(path, "shards", Action.HOLD, why) for path, why in revision.disagreements),
        *_licence(revision, policy),
        *_card(revision, policy),
        *_labels(revision, policy),
    ]
    gravity = list(Action)
    return sorted(found, key=lambda each: (gravity.index(each.action), each.path, each.name))


def _files(revision: Revision, policy: ModelPolicy) -> Iterator[Finding]:
    for path, observation in revision.observations.items():
        for name, wanted, detail in _of_file(path, observation, policy):
            action = wanted
            if wanted is Action.REFUSE and path not in revision.changed:
                action = Action.HOLD
            if observation.advice and name in {"pickle", "archive", "format"}:
                detail = f"{detail} (scanner: {', '.join(observation.advice)[:200]})"  # noqa: PLW2901 - the same sentence, longer
            yield Finding(path, name, action, detail, danger=observation.dangerous)
        if not observation.complete:
            yield Finding(path, "scan", Action.WAIT, "it was not read to its end yet")


def _of_file(
    path: str, observation: Observation, policy: ModelPolicy
) -> Iterator[tuple[str, Action, str]]:
    """Yield (name, action, detail) for everything that one file is not supposed to be."""
    if any(_DEVICES.fullmatch(part) or part != part.rstrip(". ") for part in path.split("/")):
        yield "name", Action.REFUSE, "a name that some systems take for a device or cannot write"
    if observation.problem:
        yield (
            "malformed",
            Action.REFUSE,
            f"not a sound {observation.format} file: {observation.problem}",
        )
    if observation.remote_code:
        detail = f"has loaders run code: auto_map names {', '.join(observation.remote_code)}"
        yield "remote-code", _STRICT[policy.model_remote_code], detail[:300]
    match observation.format:
        case formats.PICKLE:
            yield (
                "pickle",
                _STRICT[policy.model_pickle],
                _PICKLE,
            )
        case formats.CODE:
            yield "remote-code", _STRICT[policy.model_remote_code], "a program"
        case formats.ARCHIVE:
            yield (
                "archive",
                _STRICT[policy.model_unlisted],
                "an archive, which hides what it holds: upload its files instead",
            )
        case other if other not in policy.model_formats:
            shown = "a format that is not known here" if other == formats.OTHER else other
            yield (
                "format",
                _STRICT[policy.model_unlisted],
                f"{shown}; allowed are {', '.join(policy.model_formats)}",
            )


def licences_of(card: Mapping[str, Any] | None) -> list[str]:
    """Return the licences that a card states, in lower case; `other` comes with its name."""
    stated = (card or {}).get("license")
    listed = stated if isinstance(stated, list) else [stated]
    found = [each.strip().lower() for each in listed if isinstance(each, str) and each.strip()]
    name = (card or {}).get("license_name")
    if "other" in found and isinstance(name, str) and name.strip():
        found = [name.strip().lower() if each == "other" else each for each in found]
    return found


def _licence(revision: Revision, policy: ModelPolicy) -> Iterator[Finding]:
    stated = licences_of(revision.card)
    refused = Action.REFUSE if CARD in revision.changed else Action.HOLD
    denied = {each.lower() for each in policy.model_licences_denied}
    for each in stated:
        if each in denied:
            yield Finding(CARD, "licence", refused, f"the licence {each} is not allowed here")
    allowed = policy.model_licences
    if allowed is None:
        return
    if not stated:
        yield Finding(CARD, "licence", Action.BAR, "the card states no licence")
    for each in stated:
        if each not in {one.lower() for one in allowed} | denied:
            detail = f"the licence {each} is not one of {', '.join(allowed)}"
            yield Finding(CARD, "licence", refused, detail[:300])


def _card(revision: Revision, policy: ModelPolicy) -> Iterator[Finding]:
    card = revision.card or {}
    if missing := [key for key in policy.model_card_required if not card.get(key)]:
        yield Finding(CARD, "card", Action.BAR, f"the card lacks {', '.join(missing)}")


def _labels(revision: Revision, policy: ModelPolicy) -> Iterator[Finding]:
    permitted, label = policy.permitted_jurisdictions, revision.labels.get("jurisdiction", "")
    if not label:
        yield Finding("", "label", Action.BAR, "the model has no label of jurisdiction")
    elif permitted is not None and label not in permitted:
        detail = f"its jurisdiction {label} is not one of {', '.join(permitted)}"
        yield Finding("", "label", Action.BAR, detail)
