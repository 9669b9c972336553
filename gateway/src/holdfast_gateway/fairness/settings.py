"""What an operator may say about lanes, shares and queues."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TeamShare(_Strict):
    """What one team may take when there is not enough for all."""

    weight: float = Field(
        default=1.0, gt=0, le=1000, description="Its share of a full pool, beside other teams'."
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Answers it may have in progress at once, over all models; more wait.",
    )


class FairnessSettings(_Strict):
    """Lanes, shares and queues in front of the pools; times in seconds."""

    short_prompt_tokens: int = Field(
        default=1024,
        ge=1,
        description="Longest prompt of the short lane, in tokens (estimated: 4 bytes each).",
    )
    short_answer_tokens: int = Field(
        default=256,
        ge=1,
        description="Most tokens that a request of the short lane may ask for, choices together.",
    )
    short_share: float = Field(
        default=0.125,
        ge=0,
        le=0.5,
        description="Share of a pool's slots that long requests never take, at least one of two.",
    )
    ageing_seconds: float = Field(
        default=10,
        gt=0,
        le=3600,
        description="A long request that waited so long goes before short ones that came after.",
    )
    queue_seconds: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="Longest wait for a place; who would wait longer is refused at once (429).",
    )
    short_queue_seconds: float = Field(
        default=10, gt=0, le=3600, description="The same in the short lane."
    )
    queue_length: int = Field(
        default=1000, ge=0, description="Most requests that wait for one model in one pool."
    )
    slots: int = Field(
        default=4096,
        ge=1,
        description="Sequences at once for each replica of a model that says no slots.",
    )
    starting: int = Field(
        default=64,
        ge=1,
        description="Streams that wait for their first token at once, for each replica; more wait "
        "here, where lanes and shares count.",
    )
    gateways: int = Field(
        default=1, ge=1, le=100, description="Gateways that divide the slots among them."
    )
    teams: dict[str, TeamShare] = Field(
        default_factory=dict, description="Teams that differ from weight 1 and no cap."
    )
    salt_key: Path | None = Field(
        default=None,
        description="File with the secret behind each team's cache_salt, made at the first start; "
        "gateways of one site share it. Unset: cache_salt.key beside the ledger's folder.",
    )
