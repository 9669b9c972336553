"""May this principal do that to this? Cedar decides; whatever goes wrong is a deny."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import cedarpy

import holdfast_profiles
from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from holdfast_trust.principals import Principal

ACTIONS = ("model:read", "model:import", "model:infer", "admin:write")

_NAMESPACE = "Holdfast"
_TYPES = {"user": "User", "service": "Service", "model": "Model", "platform": "Platform"}
_LABELS = ("jurisdiction", "classification")


@dataclass(frozen=True, slots=True)
class Resource:
    """What is asked for. A model needs both labels, jurisdiction and classification."""

    kind: Literal["model", "platform"]
    id: str
    team_readers: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer with its grounds, fit for the ledger: the policies' ids and their version."""

    allowed: bool
    policies: tuple[str, ...]
    reason: str
    policy_version: str


class Decisions:
    """The policies of a folder (`*.cedar` and one `*.cedarschema`; the profiles' by default).

    `version` is `sha256:` over the files. A policy that does not parse or does not fit the
    schema raises `TrustError` here: a service without sound policies does not start.
    Safe to share between threads; nothing is kept from one decision to the next.
    """

    def __init__(self, policy_dir: Path | None = None) -> None:
        folder = policy_dir or holdfast_profiles.folder("policy")
        policies, schema, self.version = _read(folder)
        try:
            self._schema = cedarpy.Schema.from_str(schema)
            self._policies = cedarpy.PolicySet.from_str(policies)
        except ValueError as error:
            raise _unsound(folder, str(error)) from error
        result = cedarpy.validate_policies(policies, self._schema)
        if not result.validation_passed:
            raise _unsound(folder, "; ".join(str(each) for each in result.errors))

    def decide(self, principal: Principal, action: str, resource: Resource) -> Decision:
        """Decide; never raises."""
        try:
            return self._decide(principal, action, resource)
        except Exception as error:  # noqa: BLE001 - fail closed, whatever it is
            return self._deny(f"the decision failed: {error}")

    def _decide(self, principal: Principal, action: str, resource: Resource) -> Decision:
        if resource.kind == "model":
            missing = [label for label in _LABELS if not resource.labels.get(label)]
            if missing:
                return self._deny(f"unlabelled: {resource.id} has no {' and no '.join(missing)}")
        request = {
            "principal": _uid(_TYPES[principal.kind], principal.name),
            "action": _uid("Action", action),
            "resource": _uid(_TYPES[resource.kind], resource.id),
        }
        result = cedarpy.is_authorized(
            request, self._policies, json.dumps(_entities(principal, resource)), self._schema
        )
        # Cedar leaves a policy that fails out and goes on: a failing forbid would let through.
        if result.diagnostics.errors:
            return self._deny(f"policy error: {'; '.join(result.diagnostics.errors)}")
        named = result.diagnostics.id_annotations_by_reason
        grounds = tuple(sorted(named.get(each, each) for each in result.diagnostics.reasons))
        if result.decision is cedarpy.Decision.Allow:
            return Decision(
                allowed=True,
                policies=grounds,
                reason=f"permitted by {', '.join(grounds)}",
                policy_version=self.version,
            )
        reason = f"forbidden by {', '.join(grounds)}" if grounds else "no policy permits it"
        return self._deny(reason, grounds)

    def _deny(self, reason: str, policies: tuple[str, ...] = ()) -> Decision:
        return Decision(
            allowed=False, policies=policies, reason=reason, policy_version=self.version
        )


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": f"{_NAMESPACE}::{kind}", "id": name}


def _entities(principal: Principal, resource: Resource) -> list[dict[str, object]]:
    attributes: dict[str, object] = {}
    if resource.kind == "model":
        attributes = {label: resource.labels[label] for label in _LABELS}
        attributes["readers"] = [{"__entity": _uid("Team", team)} for team in resource.team_readers]
    return [
        {
            "uid": _uid(_TYPES[principal.kind], principal.name),
            "attrs": {},
            "parents": [_uid("Team", team) for team in principal.teams],
        },
        {"uid": _uid(_TYPES[resource.kind], resource.id), "attrs": attributes, "parents": []},
    ]


def _read(folder: Traversable) -> tuple[str, str, str]:
    """Return policies, schema, and the version: SHA-256 over each file's name, size and bytes."""
    try:
        found = {
            entry.name: entry.read_bytes()
            for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
            if entry.name.endswith((".cedar", ".cedarschema"))
        }
        texts = {name: data.decode() for name, data in found.items()}
    except (OSError, UnicodeDecodeError) as error:
        raise _unsound(folder, str(error)) from error
    policies = [text for name, text in texts.items() if name.endswith(".cedar")]
    schemas = [text for name, text in texts.items() if name.endswith(".cedarschema")]
    if not policies or len(schemas) != 1:
        raise _unsound(
            folder,
            f"{len(policies)} *.cedar and {len(schemas)} *.cedarschema files; "
            "at least one and exactly one are needed",
        )
    digest = hashlib.sha256()
    for name, data in found.items():
        digest.update(b"%s\0%d\0" % (name.encode(), len(data)) + data)
    return "\n".join(policies), schemas[0], f"sha256:{digest.hexdigest()}"


def _unsound(folder: Traversable, cause: str) -> TrustError:
    return TrustError(
        "the policies cannot be used, so nothing can be permitted",
        where=str(folder),
        cause=cause,
        next_command="mend the policy, or reinstall holdfast-profiles",
    )
