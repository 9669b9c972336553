"""Training receipts: a signed record of what a model was made from, kept beside its weights.

`training.receipt.json` is a sigstore bundle like `model.sig`, around an in-toto statement whose
subjects are files of the revision and whose predicate names base models and data sets:

    {"base_models": [{"id": "org/base", "revision": "<commit>"}],
     "datasets": [{"id": "org/corpus", "revision": "<commit>"}],
     "job": "nightly-17", "finished": "2026-11-20T08:00:00Z"}
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdfast_model_registry.signing import read_bundle, write_bundle
from holdfast_model_registry.signing_envelope import STATEMENT_TYPE, EnvelopeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast_model_registry.signing_envelope import PrivateKey, TrustedKey

RECEIPT_FILE: Final = "training.receipt.json"
PREDICATE: Final = "https://holdfast.invalid/training-receipt/v1"
MAX_SOURCES: Final = 256


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Made(_Part):
    """One thing that training took in."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    revision: Annotated[str, Field(max_length=256)] = ""


class Training(_Part):
    """The predicate of a receipt."""

    base_models: Annotated[tuple[Made, ...], Field(max_length=MAX_SOURCES)] = ()
    datasets: Annotated[tuple[Made, ...], Field(max_length=MAX_SOURCES)] = ()
    job: Annotated[str, Field(max_length=200)] = ""
    finished: datetime


@dataclass(frozen=True)
class Receipt:
    """The verdict on a receipt; `training` is there once it is verified."""

    state: Literal["verified", "untrusted", "malformed"]
    detail: str
    signer: str = ""
    training: Training | None = None


def check_receipt(
    content: bytes, files: Mapping[str, str], trusted: Sequence[TrustedKey]
) -> Receipt:
    """Judge a receipt against the files of its revision: path -> SHA-256."""
    try:
        envelope = read_bundle(content)
        signer = envelope.signer(trusted)
        if signer is None:
            known = ", ".join(each.name for each in trusted) or "none"
            return Receipt("untrusted", f"not by a signer known here; known: {known}")
        statement = envelope.statement(PREDICATE)
        subjects = {each["name"]: each["digest"]["sha256"] for each in statement["subject"]}
        training = Training.model_validate(statement["predicate"])
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return Receipt("malformed", f"{RECEIPT_FILE}: {where}: {first['msg']}")
    except (EnvelopeError, KeyError, TypeError) as error:
        return Receipt("malformed", f"{RECEIPT_FILE}: {error}")
    others = sorted(name for name, sha256 in subjects.items() if files.get(name) != sha256)
    if others or not subjects:
        what = f"other files than these: {', '.join(others[:5])}" if others else "no file"
        return Receipt("malformed", f"{RECEIPT_FILE} speaks of {what}", signer.name)
    detail = f"{len(subjects)} files, signed by {signer.name}"
    return Receipt("verified", detail, signer.name, training)


def write_receipt(files: Mapping[str, str], training: Training, key: PrivateKey) -> bytes:
    """Return a receipt for these files: path -> SHA-256."""
    return write_bundle(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": path, "digest": {"sha256": sha256}}
                for path, sha256 in sorted(files.items())
            ],
            "predicateType": PREDICATE,
            "predicate": training.model_dump(mode="json"),
        },
        key,
    )


def now() -> datetime:
    """Return the moment, as receipts write it."""
    return datetime.now(UTC).replace(microsecond=0)
