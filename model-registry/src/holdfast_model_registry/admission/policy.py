"""What a site's profiles ask of models; where nothing is given, what the level `baseline` asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

import holdfast_profiles
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.formats.observation import FORMATS

if TYPE_CHECKING:
    from pathlib import Path

# The parameters of profiles that are the registry's; the names are the same there and here.
PARAMETERS = (
    "model_formats",
    "model_unlisted",
    "model_pickle",
    "model_remote_code",
    "model_licences",
    "model_licences_denied",
    "model_card_required",
    "model_approvals",
    "model_signature",
    "permitted_jurisdictions",
)


class ModelPolicy(BaseModel):
    """The rules by which revisions are admitted, held back and approved.

    `model_licences` and `permitted_jurisdictions` of None leave the matter open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_formats: tuple[str, ...]
    model_unlisted: Literal["refuse", "quarantine"]
    model_pickle: Literal["refuse", "quarantine"]
    model_remote_code: Literal["refuse", "flag"]
    model_licences: tuple[str, ...] | None = None
    model_licences_denied: tuple[str, ...] = ()
    model_card_required: tuple[str, ...] = ()
    model_approvals: int = Field(ge=1, le=2)
    model_signature: Literal["if-present", "required"] = "if-present"
    permitted_jurisdictions: tuple[str, ...] | None = None

    @field_validator("model_formats")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - FORMATS):
            raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(FORMATS))}")
        return value


def read_policy(path: Path | None) -> ModelPolicy:
    """Read a policy file; None stands for the level `baseline`. RegistryError names the key."""
    if path is None:
        document = yaml.safe_load(holdfast_profiles.read("level", "baseline"))
        return _checked({key: document[key] for key in PARAMETERS if key in document}, "baseline")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _mistake(str(path), error.strerror or str(error)) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise _mistake(str(path), str(error)) from error
    return _checked(document, str(path))


def _checked(document: Any, where: str) -> ModelPolicy:  # noqa: ANN401 - YAML
    try:
        return ModelPolicy.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in each['loc']) or 'the file'}: {each['msg']}"
            for each in error.errors(include_input=False)
        )
        raise _mistake(where, problems) from None


def _mistake(where: str, cause: str) -> RegistryError:
    return RegistryError(
        "the model policy cannot be used",
        where=where,
        cause=cause,
        next_command="holdfast apply, which writes it from the site's profiles",
    )
