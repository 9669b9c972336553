"""May this principal do that to this? Cedar decides; whatever goes wrong is a deny."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import cedarpy

import holdfast_profiles
from holdfast_trust.errors import TrustError
from holdfast_trust.scopes import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from holdfast_trust.principals import Principal

ON_REPOSITORIES: Final = ("discover", "read", "contribute", "write", "create", "admin")
ACTIONS: Final = (
    *(f"{kind}:{verb}" for kind in ("model", "dataset") for verb in ON_REPOSITORIES),
    "model:approve",
    "model:infer",
)

_NAMESPACE: Final = "Holdfast"
_TYPES: Final = {
    "user": "User",
    "service": "Service",
    "agent": "Agent",
    "model": "Model",
    "dataset": "Dataset",
}
_LABELS: Final = ("jurisdiction", "classification")
_COMMENT: Final = re.compile(r"//[^\n]*")
_ONE_REPOSITORY: Final = re.compile(r'Holdfast\s*::\s*(Model|Dataset)\s*::\s*"')
# In what forms policies may ask for these: by the caller's teams and token, never by a name.
_FORMS: Final = {
    r"resource\.owner\b": (
        r"(principal in |principal\.(contributes|writes|administers)\.contains\()resource\.owner\b"
    ),
    r"resource\.(name|namespace)\b": (
        r"context\.repositories\.contains\(resource\.(name|namespace)\)"
    ),
}


@dataclass(frozen=True, slots=True)
class Resource:
    """A repository, `namespace/name`, there or to be made.

    It needs both labels, jurisdiction and classification. The namespace is the team that owns it,
    or a user's name; `team_readers` are the teams it was opened to beside that.
    """

    kind: Literal["model", "dataset"]
    id: str
    team_readers: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    private: bool = True
    gated: bool = False


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
    Policies that single out one repository or owner are refused too: callers rely on alike
    repositories being decided alike. Safe to share between threads; a decision rests on its
    arguments alone.
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
        if why := _singles_out(policies):
            raise _unsound(folder, why)

    def decide(
        self, principal: Principal, action: str, resource: Resource, *, admitted: bool = False
    ) -> Decision:
        """Decide; never raises. `admitted` tells that a gated repository let the principal in."""
        try:
            return self._decide(principal, action, resource, admitted=admitted)
        except Exception as error:  # noqa: BLE001 - fail closed, whatever it is
            return self._deny(f"the decision failed: {error}")

    def _decide(
        self, principal: Principal, action: str, resource: Resource, *, admitted: bool
    ) -> Decision:
        request = {
            "principal": _uid(_TYPES[principal.kind], principal.name),
            "action": _uid("Action", action),
            "resource": _uid(_TYPES[resource.kind], resource.id),
            "context": _context(principal, admitted=admitted),
        }
        # Checked against the schema here: handed over as text they would be read twice as slowly.
        entities = cedarpy.Entities.from_json_str(
            json.dumps(_entities(principal, resource)), self._schema
        )
        result = cedarpy.is_authorized(request, self._policies, entities, self._schema)
        # Only now: a repository that lacks labels must take no less time than one that is absent.
        missing = [label for label in _LABELS if not resource.labels.get(label)]
        if missing:
            return self._deny(f"unlabelled: {resource.id} has no {' and no '.join(missing)}")
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


def _singles_out(policies: str) -> str:
    """Return what makes policies decide by one repository's or owner's name; '' if nothing does."""
    text = _COMMENT.sub("", policies)
    if one := _ONE_REPOSITORY.search(text):
        return f"a policy names one repository: {one[0]}…"
    for asked, form in _FORMS.items():
        if len(re.findall(asked, text)) != len(re.findall(form, text)):
            return f"a policy asks for {asked} in another form than {form}"
    return ""


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": f"{_NAMESPACE}::{kind}", "id": name}


def _teams(names: Iterable[str]) -> list[dict[str, dict[str, str]]]:
    return [{"__entity": _uid("Team", name)} for name in names]


def _context(principal: Principal, *, admitted: bool) -> dict[str, object]:
    scope = principal.scope or EVERYTHING
    context: dict[str, object] = {"verbs": list(scope.included), "admitted": admitted}
    if scope.repositories is not None:
        context["repositories"] = list(scope.repositories)
    return context


def _entities(principal: Principal, resource: Resource) -> list[dict[str, object]]:
    owner = resource.id.partition("/")[0]
    return [
        {
            "uid": _uid(_TYPES[principal.kind], principal.name),
            "attrs": {
                "contributes": _teams(principal.teams_with("contribute")),
                "writes": _teams(principal.teams_with("write")),
                "administers": _teams(principal.teams_with("admin")),
            },
            "parents": [_uid("Team", team) for team in principal.teams],
        },
        {
            "uid": _uid(_TYPES[resource.kind], resource.id),
            "attrs": {
                "owner": _teams([owner])[0],
                "readers": _teams(resource.team_readers),
                "private": resource.private,
                "gated": resource.gated,
                **{label: resource.labels.get(label, "") for label in _LABELS},
                "name": resource.id.lower(),
                "namespace": f"{owner.lower()}/*",
            },
            "parents": [],
        },
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
