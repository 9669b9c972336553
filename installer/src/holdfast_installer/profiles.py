"""Composes profiles: each parameter has one merge operator, the strictest value wins."""

from __future__ import annotations

import types
import typing
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Literal  # Any: one operator serves values of several types

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

import holdfast_profiles
from holdfast_installer.errors import HoldfastError

if typing.TYPE_CHECKING:
    from holdfast_installer.site import Site

LayerKind = Literal["hardware", "jurisdiction", "level", "sector"]


class Merge(StrEnum):
    """How two layers that both give a parameter become one.

    MAX of words takes the later in the alphabet: the stricter one of flag, quarantine, refuse, and
    of if-present, required.
    """

    MAX = "max"
    MIN = "min"
    UNION = "union"
    INTERSECTION = "intersection"
    ALL_TRUE = "all_true"
    MUST_EQUAL = "must_equal"


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Wheels(_Data):
    """The Python closure of one serving environment."""

    requirements: tuple[str, ...]
    exclude: dict[str, str] = Field(
        default_factory=dict, description="Distribution left out of the closure: the reason."
    )
    index: str | None = Field(None, description="Asked only for what is not found otherwise.")


class Vllm(_Data):
    """Environment and engine options of every vLLM unit on this hardware."""

    env: dict[str, str]
    args: dict[str, JsonValue]


class Parameters(_Data):
    """Everything a profile may say; `None` means that the layer is silent."""

    egress_default: Annotated[Literal["deny"] | None, Merge.MUST_EQUAL] = Field(
        None, description="What nftables does with traffic no rule allows."
    )
    upstreams_allowed: Annotated[bool | None, Merge.ALL_TRUE] = Field(
        None, description="Whether dns.upstreams and time.servers of the Site may be used."
    )
    permitted_jurisdictions: Annotated[tuple[str, ...] | None, Merge.INTERSECTION] = Field(
        None, description="Labels of hosts that may hold models and answer prompts."
    )
    log_retention_min_days: Annotated[int | None, Merge.MAX] = Field(
        None, description="Logs are kept at least this long."
    )
    log_retention_max_days: Annotated[int | None, Merge.MIN] = Field(
        None, description="Logs are gone after this long."
    )
    tls_min_version: Annotated[Literal["1.2", "1.3"] | None, Merge.MAX] = Field(
        None, description="Lowest TLS version spoken at the edge and inside."
    )
    token_max_ttl_hours: Annotated[int | None, Merge.MIN] = Field(
        None, description="Longest life of a token."
    )
    model_formats: Annotated[tuple[str, ...] | None, Merge.INTERSECTION] = Field(
        None, description="Formats of files that the model registry takes in."
    )
    model_unlisted: Annotated[Literal["quarantine", "refuse"] | None, Merge.MAX] = Field(
        None, description="What becomes of files in other formats, archives among them."
    )
    model_pickle: Annotated[Literal["quarantine", "refuse"] | None, Merge.MAX] = Field(
        None, description="What becomes of Python pickles, whatever they are called."
    )
    model_remote_code: Annotated[Literal["flag", "refuse"] | None, Merge.MAX] = Field(
        None, description="What becomes of programs that come with a model."
    )
    model_licences: Annotated[tuple[str, ...] | None, Merge.INTERSECTION] = Field(
        None, description="Licences that a model may have; silent permits any."
    )
    model_licences_denied: Annotated[tuple[str, ...] | None, Merge.UNION] = Field(
        None, description="Licences that a model may not have."
    )
    model_card_required: Annotated[tuple[str, ...] | None, Merge.UNION] = Field(
        None, description="Fields of the model card without which nothing is approved."
    )
    model_approvals: Annotated[Literal[1, 2] | None, Merge.MAX] = Field(
        None, description="How many people must approve a revision before it is served."
    )
    model_signature: Annotated[Literal["if-present", "required"] | None, Merge.MAX] = Field(
        None, description="Whether a model needs a signature by one of the Site's signers."
    )
    python: Annotated[str | None, Merge.MUST_EQUAL] = Field(
        None, description="Python version that the wheels are built for."
    )
    cpu_flags_any: Annotated[tuple[str, ...] | None, Merge.MUST_EQUAL] = Field(
        None, description="CPU flags of which the wheel needs one; empty asks for none."
    )
    min_memory_gib: Annotated[int | None, Merge.MAX] = Field(
        None, description="Least memory of a serving host."
    )
    min_disk_gib: Annotated[int | None, Merge.MAX] = Field(
        None, description="Least free disk of a serving host before a first install."
    )
    replica_memory_gib: Annotated[int | None, Merge.MAX] = Field(
        None, description="Memory of a replica before its weights and KV cache."
    )
    wheels: Annotated[Wheels | None, Merge.MUST_EQUAL] = Field(
        None, description="The vLLM environment."
    )
    debian: Annotated[tuple[str, ...] | None, Merge.UNION] = Field(
        None, description="Debian packages of a serving host."
    )
    compiler: Annotated[tuple[str, ...] | None, Merge.UNION] = Field(
        None,
        description="Debian packages of a serving host on which a model does not run eager; "
        "no other host gets a compiler.",
    )
    vllm: Annotated[Vllm | None, Merge.MUST_EQUAL] = Field(
        None, description="Environment and engine options of vLLM."
    )


class Layer(Parameters):
    """One profile file."""

    summary: str = Field(description="The profile in a few words.")
    basis: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Texts that a parameter is mapped to, by identifier."
    )


class EffectiveProfile(Parameters):
    """What the layers amount to, and which layers each value comes from."""

    layers: tuple[str, ...]
    provenance: dict[str, tuple[str, ...]]
    basis: dict[str, tuple[str, ...]]

    def parameters(self) -> dict[str, Any]:
        """Return the parameters that some layer gave, as plain data."""
        plain = self.model_dump(mode="json", exclude={"layers", "provenance", "basis"})
        return {name: value for name, value in plain.items() if value is not None}


class HardwareProfile(_Data):
    """The hardware layer with nothing left open: every hardware file must fill all of it."""

    name: str
    summary: str
    python: str
    cpu_flags_any: tuple[str, ...]
    min_memory_gib: int
    min_disk_gib: int
    replica_memory_gib: int
    wheels: Wheels
    debian: tuple[str, ...]
    compiler: tuple[str, ...]
    vllm: Vllm

    @property
    def environment(self) -> str:
        """The name of its vLLM environment in the bundle."""
        return f"vllm-{self.name}"


def model_policy(profile: EffectiveProfile) -> dict[str, Any]:
    """Return the parameters that the model registry goes by, as plain data."""
    return {
        name: value
        for name, value in profile.parameters().items()
        if name.startswith("model_") or name == "permitted_jurisdictions"
    }


def operator_of(parameter: str) -> Merge:
    """Return the declared merge operator of a parameter."""
    metadata = Parameters.model_fields[parameter].metadata
    return next(item for item in metadata if isinstance(item, Merge))


@cache
def load_layer(kind: LayerKind, name: str) -> Layer:
    """Read one profile file; raises `HoldfastError` where it is not valid."""
    try:
        text = holdfast_profiles.read(kind, name)
        layer = Layer.model_validate(yaml.safe_load(text))
    except (KeyError, ValidationError, yaml.YAMLError) as error:
        raise HoldfastError(
            f"The profile {kind}/{name} cannot be used.", where=f"{kind}/{name}", cause=str(error)
        ) from error
    unknown = set(layer.basis) - set(Parameters.model_fields)
    if unknown:
        raise HoldfastError(
            f"The profile {kind}/{name} gives a basis for unknown parameters.",
            cause=", ".join(sorted(unknown)),
        )
    return layer


@cache
def hardware_profile(name: str) -> HardwareProfile:
    """Return a hardware profile by name, complete."""
    layer = load_layer("hardware", name)
    fields = {key: getattr(layer, key) for key in HardwareProfile.model_fields if key != "name"}
    return HardwareProfile(name=name, **fields)


def compose(site: Site, hardware: str | None = None) -> EffectiveProfile:
    """Compose the site's profiles, with a hardware profile where one host's rules are asked."""
    layers = {
        f"jurisdiction/{site.jurisdiction}": load_layer("jurisdiction", site.jurisdiction),
        f"level/{site.profiles.level}": load_layer("level", site.profiles.level),
    }
    if site.profiles.sector is not None:
        sector = site.profiles.sector
        layers[f"sector/{sector}"] = load_layer("sector", sector)
    if hardware is not None:
        layers[f"hardware/{hardware}"] = load_layer("hardware", hardware)
    return merge(layers)


def merge(layers: dict[str, Layer]) -> EffectiveProfile:
    """Merge named layers; a contradiction is an error that names both layers."""
    values: dict[str, Any] = {}
    provenance: dict[str, tuple[str, ...]] = {}
    basis: dict[str, tuple[str, ...]] = {}
    for parameter in Parameters.model_fields:
        given = {
            name: getattr(layer, parameter)
            for name, layer in layers.items()
            if getattr(layer, parameter) is not None
        }
        if not given:
            continue
        value = _merge_one(parameter, given)
        values[parameter] = value
        sources = _sources(parameter, value, given)
        provenance[parameter] = sources
        texts = [text for name in sources for text in layers[name].basis.get(parameter, ())]
        if texts:
            basis[parameter] = tuple(dict.fromkeys(texts))
    effective = EffectiveProfile(**values, layers=tuple(layers), provenance=provenance, basis=basis)
    _refuse_empty_span(effective)
    return effective


def _merge_one(parameter: str, given: dict[str, Any]) -> Any:  # noqa: ANN401 - as the parameters
    operator = operator_of(parameter)
    listed = list(given.values())
    if operator is Merge.MAX:
        return max(listed)
    if operator is Merge.MIN:
        return min(listed)
    if operator is Merge.ALL_TRUE:
        return all(listed)
    if operator is Merge.UNION:
        return tuple(dict.fromkeys(item for items in listed for item in items))
    if operator is Merge.INTERSECTION:
        kept = tuple(item for item in listed[0] if all(item in items for items in listed[1:]))
        if not kept:
            _contradict(parameter, given, "have nothing in common")
        return kept
    first = listed[0]
    if any(item != first for item in listed[1:]):
        _contradict(parameter, given, "must be equal")
    return first


def _sources(parameter: str, value: object, given: dict[str, Any]) -> tuple[str, ...]:
    """Return the layers that decided: those that gave the value, or all that were combined."""
    if operator_of(parameter) in {Merge.UNION, Merge.INTERSECTION}:
        return tuple(given)
    return tuple(name for name, item in given.items() if item == value)


def _contradict(parameter: str, given: dict[str, Any], why: str) -> typing.NoReturn:
    said = "; ".join(f"{name} says {value!r}" for name, value in given.items())
    raise HoldfastError(
        f"The profiles contradict one another in {parameter}: the values {why}.",
        where=" and ".join(given),
        cause=said,
        next_command="choose profiles in site.yml (profiles:, jurisdiction:) that agree",
    )


def _refuse_empty_span(effective: EffectiveProfile) -> None:
    least, most = effective.log_retention_min_days, effective.log_retention_max_days
    if least is None or most is None or least <= most:
        return
    names = ("log_retention_min_days", "log_retention_max_days")
    both = {
        f"{name} of {' and '.join(effective.provenance[name])}": getattr(effective, name)
        for name in names
    }
    _contradict("log retention", both, "leave no permitted span")


def describe() -> list[dict[str, str]]:
    """Return every parameter with its operator, type and meaning, for docs and `--json`."""
    rows = []
    for name, field in Parameters.model_fields.items():
        kinds = [item for item in typing.get_args(field.annotation) if item is not types.NoneType]
        shown = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
        rows.append(
            {
                "parameter": name,
                "operator": operator_of(name).value,
                "type": shown,
                "meaning": field.description or "",
            }
        )
    return rows
